"""The slots of a configuration: names and settings checked before anything is imported, and parts made."""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Write

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.part_config import Used
from queryinst.slots import check_parts, make, outside, place, require_allowed, search_here, sources
from queryinst.source import digest

NET = """
    class Net:
        def __init__(self, config, {}):
            pass
"""


def own(name: str = "my_net:Net", **args: Any) -> TrainConfig:
    """A configuration with a backbone of the user's own."""
    config = TrainConfig()
    config.backbone.name, config.backbone.args = name, args
    return config


def refused(config: TrainConfig) -> str:
    with pytest.raises(UserError) as caught:
        check_parts(config)
    return str(caught.value)


def test_our_own_parts_pass_and_have_no_settings():
    check_parts(TrainConfig())
    config = TrainConfig()
    config.model.box_head.args = {"depth": 3}
    assert refused(config) == "model.box_head.args is for parts that have settings of their own; 'dynamic' has none"


def test_settings_are_held_against_the_signature(write: Write):
    write("my_net.py", NET.format("depth, width: int = 2"))
    check_parts(own(depth=3, width=4))
    assert refused(own()) == "my_net:Net needs the setting 'depth': add +backbone.args.depth=VALUE"
    assert refused(own(dept=3)) == (
        "backbone.args.dept: my_net:Net has no setting 'dept'; did you mean 'depth'?; it has depth, width"
    )
    assert refused(own(depth=3, width="wide")) == ("backbone.args.width takes int, as my_net:Net says; got 'wide'")


def test_a_part_without_settings_gets_none(write: Write):
    write("my_net.py", "class Net:\n    def __init__(self, config): pass")
    check_parts(own())
    assert refused(own(config=1)) == "backbone.args.config: my_net:Net has no setting 'config'; it has none"


def test_any_name_goes_where_the_part_takes_any(write: Write):
    write("my_net.py", NET.format("depth=3, **more"))
    check_parts(own(whatever=1))


@pytest.mark.parametrize("slot", ["box_head", "mask_head"])
def test_heads_are_given_two_arguments(write: Write, slot: str):
    write("my_net.py", "class Net:\n    def __init__(self, config, num_classes, depth=1): pass")
    config = TrainConfig()
    getattr(config.model, slot).name = "my_net:Net"
    getattr(config.model, slot).args = {"num_classes": 3}
    assert refused(config) == f"model.{slot}.args.num_classes: my_net:Net has no setting 'num_classes'; it has depth"
    getattr(config.model, slot).args = {"depth": 3}
    check_parts(config)


def test_terms_are_given_nothing_and_metrics_the_data(write: Write):
    write("my_net.py", "class Net:\n    def __init__(self, first, second=1): pass")
    config = TrainConfig(metrics={"mine": {"name": "my_net:Net"}})
    check_parts(config)
    config.criterion.terms = {"mine": {"name": "my_net:Net"}}
    assert refused(config) == "my_net:Net needs the setting 'first': add +criterion.terms.mine.args.first=VALUE"
    config.criterion.terms = {"mine": {"_target_": "my_net.Net", "first": 3, "third": 3}}
    assert refused(config).startswith("criterion.terms.mine.args.third: my_net:Net has no setting 'third'")


KINDS: list[tuple[str, list[Any], list[Any]]] = [
    ("int", [1, -1], [1.5, "1", True, None, [1]]),
    ("float", [1, 1.5], ["1", True, None]),
    ("bool", [True], [1, "true", None]),
    ("str", ["a", ""], [1, None, ["a"]]),
    ("'str'", ["a"], [1]),
    ("list[int]", [[1], []], [1, "a", {}]),
    ("tuple[int, int]", [[1, 2]], [1]),
    ("Sequence[str]", [["a"]], [{}]),
    ("collections.abc.Sequence[str]", [["a"]], [1]),
    ("dict[str, int]", [{"a": 1}], [[1]]),
    ("int | None", [1, None], ["a", 1.5]),
    ("None | int | str", [1, None, "a"], [1.5]),
    ("Optional[int]", [1, None], ["a"]),
    ("typing.Optional[int]", [1, None], ["a"]),
    ("Union[int, str, None]", [1, "a", None], [1.5, []]),
    ("Union[int]", [1], ["a"]),
    ("Literal['a', 'b']", ["a"], ["c", 1]),
    ("typing.Literal['a', 2] | None", ["a", 2, None], ["c"]),
    ("Literal[Mode.FAST]", ["a", 1], []),
    ("'a whole number'", ["a", 1], []),
    ("Path", ["a", 1, None], []),
    ("int | Path", ["a"], []),
    ("Optional", [1, None], []),
    ("Callable[[int], int]", [1], []),
    ("np.float32", [1], []),
]


@pytest.mark.parametrize(("annotation", "good", "bad"), KINDS, ids=[kind for kind, _, _ in KINDS])
def test_values_are_held_against_plain_types(write: Write, annotation: str, good: list[Any], bad: list[Any]):
    write("my_net.py", NET.format(f"value: {annotation}"))
    for value in good:
        check_parts(own(value=value))
    for value in bad:
        takes = annotation.replace('"', "'")
        assert refused(own(value=value)) == f"backbone.args.value takes {takes}, as my_net:Net says; got {value!r}"


def test_no_type_takes_anything(write: Write):
    write("my_net.py", NET.format("value"))
    for value in (1, "a", None, [1], {"a": 1}):
        check_parts(own(value=value))


def test_types_of_a_file_that_keeps_annotations_as_text(write: Write):
    write(
        "my_net.py",
        "from __future__ import annotations\nclass Net:\n    def __init__(self, c, d: int | None = 1): 0",
    )
    check_parts(own(d=None))
    assert refused(own(d="x")) == "backbone.args.d takes int | None, as my_net:Net says; got 'x'"


WAYS = (
    "resnet18, resnet34, resnet50, resnet101, swin_t, swin_s, swin_b, swin_l, tiny, timm:NAME, torchvision:NAME, or "
    "module:Name of your own"
)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet52", "; did you mean 'resnet50'?"),
        ("my_net.Net", ""),
        ("my_net:", ""),
        (":Net", ""),
        ("my_net.py:Net", None),
        ("my-net:Net", ""),
        ("my_net:Net.Inner", ""),
        ("nets/my_net:Net", ""),
        ("..my_net:Net", ""),
        ("my_net:Net()", ""),
    ],
)
def test_a_name_that_means_nothing(write: Write, name: str, hint: str | None):
    write("my_net.py", NET.format("depth=1"))
    found = refused(own(name))
    if hint is None:
        assert "there is no module 'my_net.py', neither a file" in found
    else:
        assert found == f"backbone.name takes one of {WAYS}; got '{name}'{hint}"


def test_a_slot_without_parts_of_ours_says_what_it_takes():
    config = TrainConfig(metrics={"mine": {"name": "counting"}})
    assert refused(config) == "metrics.mine.name takes module:Name of your own; got 'counting'"


def test_modules_and_names_that_are_not_there(write: Write):
    path = write("my_net.py", NET.format("depth=1"))
    assert refused(own("my_nett:Net")).startswith("backbone.name=my_nett:Net: there is no module 'my_nett'")
    assert refused(own("my_net:Nett")) == (
        f"backbone.name=my_net:Nett: {path} has no class 'Nett'; did you mean 'Net'?"
    )


def test_nothing_is_imported_to_check(write: Write, tmp_path: Path):
    write("my_net.py", "open('ran', 'w')\nraise RuntimeError\n" + "class Net:\n    def __init__(self, c): pass")
    check_parts(own())
    assert sources(own())
    assert not (tmp_path / "ran").exists()


# -- short names of installed packages


@pytest.fixture
def installed(write: Write, tmp_path: Path) -> None:
    """A package with a backbone that it calls `shortnet`."""
    write(
        "shortnets.py", "import pathlib\npathlib.Path('ran').touch()\nclass Net:\n    def __init__(self, c, d=1): pass"
    )
    write("shortnets-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: shortnets\nVersion: 1.0\n")
    write("shortnets-1.0.dist-info/entry_points.txt", "[queryinst.backbone]\nshortnet = shortnets:Net\n")


@pytest.mark.usefixtures("installed")
def test_a_package_gives_its_parts_short_names_and_is_not_imported_for_it(tmp_path: Path):
    check_parts(own("shortnet", d=2))
    assert place(Used("backbone", "backbone", "shortnet", {})) == ("shortnets", "Net")
    assert refused(own("shortnet", e=2)) == "backbone.args.e: shortnet has no setting 'e'; it has d"
    assert "tiny, shortnet, timm:NAME" in refused(own("shortnett"))
    assert refused(own("shortnett")).endswith("got 'shortnett'; did you mean 'shortnet'?")
    assert sources(own("shortnet")) == {"backbone": digest("shortnets")}
    assert not (tmp_path / "ran").exists()
    config = TrainConfig()
    config.model.box_head.name = "shortnet"  # of another slot
    assert refused(config) == ("model.box_head.name takes one of dynamic, or module:Name of your own; got 'shortnet'")


def test_a_short_name_cannot_take_the_place_of_one_of_ours(write: Write, monkeypatch: pytest.MonkeyPatch):
    entry = importlib.metadata.EntryPoint("tiny", "shortnets:Net", "queryinst.backbone")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [entry])
    assert outside(own("tiny")) == []
    check_parts(own("tiny"))


# -- sources


def test_the_sources_of_parts_from_outside(write: Write):
    write("my_net.py", NET.format("depth=1"))
    write("my_loss.py", "class Loss: pass")
    config = own()
    config.criterion.terms = {"a": {"name": "my_loss:Loss"}, "b": {"name": "torch.nn:Identity"}}
    config.callbacks.extra = {"c": {"_target_": "my_loss.Loss"}, "d": {"_target_": "pytorch_lightning.Callback"}}
    config.logger.extra = {"e": {"name": "my_loss:Loss"}}
    made = {"criterion.terms.a": digest("my_loss"), "callbacks.extra.c": digest("my_loss")}
    assert sources(config) == {"backbone": digest("my_net"), **made}
    assert sources(TrainConfig()) == {}
    assert sources(own("timm:resnet50")) == {}


def test_a_source_that_is_gone():
    with pytest.raises(UserError, match=r"^backbone.name=gone_net:Net: there is no module 'gone_net'"):
        sources(own("gone_net:Net"))


# -- what a file names


def test_code_that_a_file_names_runs_only_where_it_is_allowed():
    parts = [Used("backbone", "backbone", "my_net:Net", {}), Used("metrics.m", "metric", "lab.more:M", {})]
    require_allowed(parts, ["my_net", "lab.more"], "best.ckpt")
    require_allowed(parts, ["my_net:Net", "lab.more"], "best.ckpt")
    require_allowed([], [], "best.ckpt")
    with pytest.raises(UserError) as caught:
        require_allowed(parts, ["my_net"], "best.ckpt")
    assert str(caught.value) == (
        "best.ckpt needs lab.more:M (metrics.m), code that is not in the file: if you trust it, add "
        "allow=[my_net,lab.more] to the command (--allow MODULE for export and convert)"
    )
    with pytest.raises(UserError, match=r"needs my_net:Net \(backbone\) and lab.more:M \(metrics.m\), code"):
        require_allowed(parts, ["lab"], "best.ckpt")


# -- made


def part(name: str = "my_net:Net", **args: Any) -> Used:
    return Used("backbone", "backbone", name, args)


def test_a_part_is_made_of_what_is_given_and_its_settings(write: Write):
    write("my_net.py", "def net(*given, **args): return given, args")
    assert make(part("my_net:net", depth=3), 1, 2) == ((1, 2), {"depth": 3})


def test_settings_of_a_part_are_its_own(write: Write):
    """What a part does to a list that it is given is not done to the configuration."""
    write("my_net.py", "class Net:\n    def __init__(self, widths): self.widths = widths; widths.append(1)")
    settings = {"widths": [3]}
    made = Used("backbone", "backbone", "my_net:Net", settings)
    assert make(made).widths == make(made).widths == [3, 1]
    assert settings == {"widths": [3]}


def unmade(one: Used) -> str:
    with pytest.raises(UserError) as caught:
        make(one)
    return str(caught.value)


def test_a_module_that_fails_when_it_is_imported(write: Write):
    path = write("my_net.py", "\nraise RuntimeError('no such card')")
    assert unmade(part()) == (
        f"backbone.name=my_net:Net: my_net cannot be imported: RuntimeError: no such card ({path}, line 2)"
    )


def test_a_module_that_ends_the_process_when_it_is_imported(write: Write):
    write("my_net.py", "import sys\nsys.exit(3)")
    assert unmade(part()).startswith("backbone.name=my_net:Net: my_net cannot be imported: SystemExit: 3 (")


def test_a_module_that_needs_another_one(write: Write):
    write("my_net.py", "import not_there")
    assert unmade(part()).startswith(
        "backbone.name=my_net:Net: my_net cannot be imported: ModuleNotFoundError: No module named 'not_there' ("
    )


def test_an_attribute_error_inside_a_module_is_its_own(write: Write):
    path = write("my_net.py", "import math\nmath.nothing")
    assert unmade(part()) == (
        "backbone.name=my_net:Net: my_net cannot be imported: AttributeError: module 'math' has no attribute "
        f"'nothing' ({path}, line 2)"
    )


def test_a_name_that_the_module_does_not_have_in_the_end(write: Write):
    write("my_net.py", "class Net: pass\ndel Net")
    assert unmade(part()) == "backbone.name=my_net:Net: the module my_net has no 'Net'"


def test_a_constructor_that_fails(write: Write):
    path = write("my_net.py", "class Net:\n    def __init__(self, depth=1):\n        raise ValueError('too deep')")
    where = f"ValueError: too deep ({path}, line 3)"
    assert unmade(part(depth=3)) == f"backbone.name=my_net:Net cannot be made with {{'depth': 3}}: {where}"
    assert unmade(part()) == f"backbone.name=my_net:Net cannot be made with no settings: {where}"


def test_a_sentence_of_the_parts_own_is_kept(write: Write):
    write("my_net.py", "from queryinst.errors import UserError\ndef Net(): raise UserError('depth must be odd')")
    assert unmade(part()) == "depth must be odd"


def test_what_is_made_is_the_source_that_counts(write: Write):
    """A process that has imported a part does not say later that it ran what its file became since."""
    path = write("my_net.py", "import my_blocks\nclass Net:\n    def __init__(self, c=1): pass")
    write("my_blocks.py", "x = 1")
    assert make(part())
    assert sources(own()) == {"backbone": digest("my_net")}
    path.with_name("my_blocks.py").write_text("x = 2")
    with pytest.raises(UserError) as caught:
        sources(own())
    assert str(caught.value) == (
        "backbone.name=my_net:Net: the source of my_net has changed since it was imported; start Python anew to run it"
    )


def test_modules_are_found_where_the_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["elsewhere"])
    search_here()
    search_here()
    assert sys.path == ["elsewhere", str(tmp_path)]
    monkeypatch.setattr(sys, "path", [""])
    search_here()
    assert sys.path == [""]
