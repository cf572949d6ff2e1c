"""What can be known of a part's source without running it: where it is, what it takes, what it is made of."""

import sys
from pathlib import Path

import pytest
from conftest import Write

from queryinst import source
from queryinst.errors import UserError
from queryinst.source import Parameter, definition, digest, files, signature, spec_of

WHERE = "backbone.name=my_net:Net"


def taken(module: str = "my_net", name: str = "Net", given: int = 1) -> list[str] | None:
    """What a constructor takes by name, those that must be given with a star, and ** where anything goes."""
    found = signature(module, name, given, WHERE)
    if found is None:
        return None
    return [f"{one.name}{'*' * one.required}" for one in found.parameters] + ["**"] * found.open


def said(module: str = "my_net", name: str = "Net") -> str:
    with pytest.raises(UserError) as caught:
        signature(module, name, 1, WHERE)
    return str(caught.value)


CLASS = """
    class Net:
        def __init__(self, config, {}):
            pass
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("depth", ["depth*"]),
        ("depth: int = 3, width=2", ["depth", "width"]),
        ("*, depth, width=2", ["depth*", "width"]),
        ("**more", ["**"]),
        ("other=1, /, depth=3", ["depth"]),
        ("depth=1, *rest, width, **more", ["depth", "width*", "**"]),
    ],
)
def test_a_class_takes_what_its_constructor_names_after_what_is_given(
    write: Write, arguments: str, expected: list[str]
):
    write("my_net.py", CLASS.format(arguments))
    assert taken() == expected


def test_a_function_takes_what_it_names_after_what_is_given(write: Write):
    write("my_net.py", "def net(config, classes, depth, width=2): pass")
    assert taken(name="net", given=2) == ["depth*", "width"]


def test_annotations_are_kept_as_they_are_written(write: Write):
    write("my_net.py", CLASS.format("a: int | None = None, b: 'str' = '', c=0"))
    found = signature("my_net", "Net", 1, WHERE)
    assert found
    assert found.parameters == [
        Parameter("a", False, "int | None"),
        Parameter("b", False, "'str'"),
        Parameter("c", False, ""),
    ]


FIELDS = """
    import dataclasses
    from dataclasses import KW_ONLY, dataclass, field
    from typing import ClassVar

    @{}
    class Net:
        config: object
        shared: ClassVar[int] = 3
        depth: int
        width: int = 2
        more: list = field(default_factory=list)
        {}

        other = 5
"""


@pytest.mark.parametrize("decorator", ["dataclass", "dataclasses.dataclass", "dataclass(frozen=True)"])
def test_a_dataclass_takes_its_fields(write: Write, decorator: str):
    write("my_net.py", FIELDS.format(decorator, ""))
    assert taken() == ["depth*", "width", "more"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("made: int = field(init=False, default=0)", ["depth*", "width", "more"]),
        ("named: int = field(kw_only=True)", ["depth*", "width", "more", "named*"]),
        ("_: KW_ONLY", None),
    ],
)
def test_fields_that_are_not_plain(write: Write, line: str, expected: list[str] | None):
    write("my_net.py", FIELDS.format("dataclass", line))
    assert taken() == expected


def test_a_dataclass_whose_constructor_is_another_cannot_be_told(write: Write):
    write("my_net.py", FIELDS.format("dataclass(kw_only=True)", ""))
    assert taken() is None


def test_the_constructor_may_be_inherited_also_from_another_file(write: Write):
    write("base.py", CLASS.format("depth, width=2"))
    write("my_net.py", "from base import Net as Base\nclass Middle(Base): pass\nclass Net(Middle): pass")
    assert taken() == ["depth*", "width"]


def test_of_a_class_without_a_constructor_nothing_is_taken(write: Write):
    write("my_net.py", "from abc import ABC\nclass Net: pass\nclass Other(ABC): pass")
    assert taken() == []
    assert taken(name="Other") == []


UNKNOWN = {
    "another's class": "import torch\nclass Net(torch.nn.Module): pass",
    "built in": "class Net(dict): pass",
    "named tuple": "from typing import NamedTuple\nclass Net(NamedTuple):\n    depth: int",
    "two bases": "class A: pass\nclass B: pass\nclass Net(A, B): pass",
    "partial": "import functools\nNet = functools.partial(dict, depth=3)",
    "decorated": "from contextlib import contextmanager\n@contextmanager\ndef Net(config, depth): yield",
    "lazy": "def __getattr__(name): return dict",
    "star": "from os.path import *",
    "globals": "for name in ['Net']: globals()[name] = dict",
    "metaclass": "class Net(metaclass=type): pass",
    "new": "class Net:\n    def __new__(cls, config, depth): pass",
}


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_what_reading_cannot_tell_is_not_judged(write: Write, text: str):
    write("my_net.py", text)
    assert taken() is None


def test_a_decorated_constructor_is_not_judged(write: Write):
    write("my_net.py", "import torch\nclass Net:\n    @torch.no_grad()\n    def __init__(self, config, depth): pass")
    assert taken() is None


HERE = "class Net:\n        def __init__(self, config, depth): pass"
LEADING = {
    "import": "from nets.deep import Net",
    "package": "from nets import Net",
    "if": "if True:\n    from nets.deep import Net",
    "fallback": "try:\n    from fast_nets import Net\nexcept ImportError:\n    from nets.deep import Net",
    "fallback here": f"try:\n    import fast_nets\nexcept ImportError:\n    {HERE}",
    "in if": f"if True:\n    {HERE}",
    "typing": "import typing\nif typing.TYPE_CHECKING:\n    from nowhere import A\nfrom nets.deep import Net",
}


@pytest.mark.parametrize("text", LEADING.values(), ids=LEADING)
def test_a_name_is_followed_to_where_it_is_defined(write: Write, text: str):
    write("nets/__init__.py", "from .deep import Net")
    write("nets/deep.py", CLASS.format("depth"))
    write("my_net.py", text)
    assert taken() == ["depth*"]


def test_relative_imports_of_every_kind(write: Write):
    write("lab/__init__.py", "from .nets import Net")
    write("lab/nets/__init__.py", "from ..deep import Net")
    write("lab/deep.py", "from . import deeper\nfrom .deeper.end import Net")
    write("lab/deeper/__init__.py", "")
    write("lab/deeper/end.py", CLASS.format("depth"))
    assert taken("lab") == taken("lab.nets") == taken("lab.deep") == ["depth*"]
    found = definition("lab", "Net", WHERE)
    assert found
    assert found[0] == "lab.deeper.end"


def test_folders_need_no_init_file(write: Write):
    write("lab/nets/v2/deep.py", "from ..plain import Net")
    write("lab/nets/plain.py", CLASS.format("depth"))
    assert taken("lab.nets.v2.deep") == ["depth*"]
    assert [name for name, _ in files("lab.nets.v2.deep")] == ["lab/nets/plain.py", "lab/nets/v2/deep.py"]


def test_a_circle_of_imports_ends(write: Write):
    write("my_net.py", "from other import Net")
    write("other.py", "from my_net import Net")
    assert taken() is None
    write("my_net.py", "class Net(Net): pass")
    assert taken() is None


def test_a_module_that_is_not_there(write: Write, tmp_path: Path):
    write("my_net.py", "")
    assert said("my_nett") == (
        f"{WHERE}: there is no module 'my_nett', neither a file my_nett.py in the folder {tmp_path} nor an installed "
        "package; did you mean 'my_net'?"
    )
    assert "neither a file my_net/deep.py in the folder" in said("my_net.deep")


def test_a_name_that_is_not_there(write: Write):
    path = write("my_net.py", "import json\nclass Nett: pass\nwidth, (depth, *rest) = 1, (2, 3)")
    assert said() == f"{WHERE}: {path} has no class 'Net'; did you mean 'Nett'?"
    assert taken(name="json") is taken(name="depth") is taken(name="rest") is None  # known, whatever they are


def test_a_file_that_is_no_python(write: Write):
    path = write("my_net.py", "import torch\nclass Net(\n")
    assert said() == f"{WHERE}: {path}, line 2 is no Python: '(' was never closed"
    path.write_bytes(b"class Net: pass\0")
    assert said().startswith(f"{WHERE}: {path}")


def test_nothing_is_imported(write: Write, tmp_path: Path):
    trap = "import pathlib\npathlib.Path('ran').touch()\nraise RuntimeError('imported')\n"
    write("pack/__init__.py", trap)
    write("pack/deep.py", trap + "class Net:\n    def __init__(self, config, depth): pass")
    assert taken("pack.deep") == ["depth*"]
    assert digest("pack.deep")
    assert not (tmp_path / "ran").exists()
    assert not {"pack", "pack.deep"} & set(sys.modules)


def test_what_a_module_without_a_file_takes_is_not_judged():
    assert taken("sys", "version") is None
    assert taken("math", "sqrt") is None
    assert files("sys") == []
    assert spec_of("sys.path") is None
    assert spec_of("__main__.x") is None


# -- what a part is made of


def names(module: str) -> list[str]:
    return [name for name, _ in files(module)]


def test_a_file_brings_what_it_imports_of_its_own_folder_and_no_more(write: Write):
    write("my_net.py", "import torch\nfrom blocks import Block\ndef late():\n    import helpers.deep")
    write("blocks.py", "import more")
    write("more.py", "import my_net")
    write("helpers/__init__.py", "")
    write("helpers/deep.py", "from .sub import x")
    write("helpers/sub.py", "")
    write("folder/plain.py", "")
    write("unrelated.py", "")
    expected = ["blocks.py", "helpers/__init__.py", "helpers/deep.py", "helpers/sub.py", "more.py", "my_net.py"]
    assert names("my_net") == expected
    write("more.py", "from folder import plain")
    assert names("my_net") == ["blocks.py", "folder/plain.py", *expected[1:]]


def test_the_digest_follows_every_byte_of_them_and_their_names(write: Write):
    write("my_net.py", "import blocks")
    write("blocks.py", "x = 1")
    made = [digest("my_net")]
    write("unrelated.py", "x = 1")
    assert digest("my_net") == made[0]
    write("blocks.py", "x = 1  # a comment")
    made.append(digest("my_net"))
    write("my_net.py", "import blocks\n")
    made.append(digest("my_net"))
    write("my_net.py", "x = 1")
    write("my_other.py", "x = 1")
    made += [digest("my_net"), digest("my_other")]
    assert len(set(made)) == 5
    assert all(len(one) == 16 for one in made)


def test_the_digest_is_the_same_in_another_folder(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write("my_net.py", "import blocks")
    write("blocks.py", "")
    before = digest("my_net")
    (tmp_path / "other").mkdir()
    for name in ("my_net.py", "blocks.py"):
        (tmp_path / name).rename(tmp_path / "other" / name)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "other"), *sys.path[1:]])
    assert digest("my_net") == before


def test_an_installed_package_counts_as_a_whole_without_its_neighbours(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write("site/pack/__init__.py", "import neighbour")
    write("site/pack/deep.py", "")
    write("site/neighbour.py", "")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert names("pack.deep") == ["neighbour.py", "pack/__init__.py", "pack/deep.py"]
    monkeypatch.setattr(source, "INSTALLED", (tmp_path / "site",))
    assert names("pack.deep") == ["pack/__init__.py", "pack/deep.py"]


def test_links_are_followed(write: Write, tmp_path: Path):
    write("elsewhere/blocks.py", "x = 1")
    write("my_net.py", "import blocks")
    (tmp_path / "blocks.py").symlink_to(tmp_path / "elsewhere/blocks.py")
    assert names("my_net") == ["blocks.py", "my_net.py"]
    before = digest("my_net")
    write("elsewhere/blocks.py", "x = 2")
    assert digest("my_net") != before


def test_a_package_may_lie_in_two_places(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write("lab/one.py", "")
    write("more/lab/two.py", "")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "more")])
    assert names("lab.one") == ["lab/one.py", "lab/two.py"]


def test_a_neighbour_that_is_no_python_counts_as_it_is(write: Write):
    write("my_net.py", "import blocks")
    write("blocks.py", "class (")
    assert names("my_net") == ["blocks.py", "my_net.py"]
