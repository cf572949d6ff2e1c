"""The index of an annotation file, byte by byte: what it holds, where it lies, and when it is not trusted."""

import gc
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from test_index import beside, content, large, no_parsing, opened, same

from queryinst.data import index
from queryinst.data.coco import CocoFile, is_learnable
from queryinst.errors import UserError

__all__ = ["large"]  # a fixture


def small() -> dict[str, Any]:
    """Two images with ids that fall, three annotations, of which the odd ones are learnable."""
    return {
        "images": [
            {"id": 30, "file_name": "é.png", "height": 4, "width": 5},
            {"id": -2, "file_name": "a\ud800", "height": 6, "width": 7},
        ],
        "annotations": [
            {"id": 1, "image_id": -2, "category_id": 4, "bbox": [1, 2.5, 3, 4], "area": 9, "segmentation": [[1, 2]]},
            {"id": 2, "image_id": 30, "category_id": 4, "iscrowd": 0, "ignore": 1, "track": 8, "note": "x"},
            {"id": 3, "image_id": -2, "category_id": 9, "score": 0.5},
        ],
        "categories": [{"id": 4, "name": "cat", "supercategory": "pet"}],
    }


def is_odd(annotation: dict[str, Any], height: int, width: int) -> bool:
    assert (height, width) == {30: (4, 5), -2: (6, 7)}[annotation["image_id"]]
    return annotation["id"] % 2 == 1


def test_what_is_kept():
    data = small()
    made = index.build(data, is_odd)
    assert data["annotations"] == [], "of a large file they are gigabytes"
    assert made.file is None
    assert made.digest == ""
    texts = [
        b'[{"id":2,"image_id":30,"category_id":4,"iscrowd":0,"ignore":1,"track":8}]',
        b'[{"id":1,"image_id":-2,"category_id":4,"bbox":[1,2.5,3,4],"area":9,"segmentation":[[1,2]]},'
        b'{"id":3,"image_id":-2,"category_id":9}]',
    ]
    expected = {
        "ids": [30, -2],
        "order": [1, 0],
        "sizes": [[4, 5], [6, 7]],
        "learnable": [0, 2],
        "names": [*"é.png".encode(), *b"a\xed\xa0\x80"],
        "name_ends": [0, 6, 10],
        "texts": [*b"".join(texts)],
        "text_ends": [0, len(texts[0]), sum(map(len, texts))],
        "categories": [*json.dumps(data["categories"]).encode()],
        "videos": [*b"[]"],
        "summary": [*b"[3, 0, 2, 2, 1]"],
    }
    assert {name: array.tolist() for name, array in made.arrays.items()} == expected
    assert {name: array.dtype for name, array in made.arrays.items()} == index.ARRAYS
    assert made.categories() == small()["categories"]
    assert made.videos() == []
    assert index.build(small() | {"videos": [{"id": 3}]}, is_odd).videos() == [{"id": 3}]


def test_images_by_position_and_positions_by_id():
    made = index.build(small(), is_odd)
    assert len(made) == 2
    assert [made.image(position) for position in (0, 1)] == small()["images"]
    assert [made.position(key) for key in (30, -2)] == [0, 1]
    assert [annotation["id"] for annotation in made.annotations(1)] == [1, 3]
    for key in (-3, 0, 31):
        with pytest.raises(KeyError) as raised:
            made.position(key)
        assert raised.value.args == (key,)


def test_a_small_file_leaves_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.json"
    path.write_bytes(b"12345")
    digest = hashlib.sha256(b"12345").hexdigest()
    for smallest, expected in ((4, digest), (5, digest), (6, "")):
        monkeypatch.setattr(index, "SMALLEST", smallest)
        assert index.digest_of(path) == expected
    monkeypatch.setattr(index, "SMALLEST", 0)
    assert index.digest_of(path, "video-") == f"video-{digest}"
    assert index.digest_of(tmp_path / "gone.json") == ""
    assert index.digest_of(tmp_path) == "", "a folder"


def rewrite(path: Path, metadata: dict[str, str] | None = None, **arrays: Any) -> None:
    """Write the index of a file again with other arrays, or with other metadata."""
    before, whole = stored(path)
    beside(path).unlink()  # not over a file that is mapped
    index.save_file(whole | arrays, beside(path), before if metadata is None else metadata)


def stored(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Metadata and arrays of the index of a file."""
    with safe_open(beside(path), "np") as written:
        return written.metadata(), {name: written.get_tensor(name) for name in written.keys()}  # noqa: SIM118


def require_whole(path: Path) -> None:
    """Assert that the index of a file is what the file says."""
    metadata, arrays = stored(path)
    expected = index.build(content(), is_learnable)
    assert metadata == {"format": "queryinst annotations 3", "digest": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert {name: array.tolist() for name, array in arrays.items()} == {
        name: array.tolist() for name, array in expected.arrays.items()
    }
    assert {name: array.dtype for name, array in arrays.items()} == index.ARRAYS


@pytest.mark.parametrize("other", ["older", "newer", "content", "more", "none"])
def test_an_index_of_another_format_or_content_is_made_again(large: Path, other: str, monkeypatch: pytest.MonkeyPatch):
    """Also where all its arrays have the right shape: here they say that every image is of 1 x 1 pixels."""
    opened(large)
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    metadata = {
        "older": {"format": "queryinst annotations 1", "digest": digest},
        "newer": {"format": "queryinst annotations 4", "digest": digest},
        "content": {"format": index.FORMAT, "digest": digest[::-1]},
        "more": {"format": index.FORMAT, "digest": digest, "more": "x"},
        "none": {},
    }[other]
    wrong = np.ones((3, 2), np.int64)
    rewrite(large, sizes=wrong)
    assert opened(large).images[0].height == 1, "else this test could not fail"
    rewrite(large, metadata, sizes=wrong)
    same(opened(large), content())
    require_whole(large)
    no_parsing(monkeypatch)
    same(opened(large), content())


def test_the_format_has_a_number():
    """It goes up with every change of what an index holds."""
    assert index.FORMAT == "queryinst annotations 3"
    names = "ids order sizes learnable names name_ends texts text_ends categories videos summary"
    assert list(index.ARRAYS) == names.split()


Change = Callable[[np.ndarray], np.ndarray]
DAMAGES: list[tuple[str, Change]] = [
    *((name, lambda array: array[:-1]) for name in ("ids", "order", "sizes", "learnable", "name_ends", "text_ends")),
    *((name, lambda array: np.append(array, array[-1:], axis=0)) for name in ("order", "sizes", "learnable")),
    *((name, lambda array: np.append(array, array[-1:])) for name in ("name_ends", "text_ends", "names", "texts")),
    *((name, lambda array: array.astype(np.int32)) for name in ("ids", "order", "sizes", "learnable", "text_ends")),
    *((name, lambda array: array.astype(np.int16)) for name in ("names", "texts", "categories", "videos")),
    *((name, lambda array: array[:-1]) for name in ("names", "texts")),
]


@pytest.mark.parametrize(("name", "change"), DAMAGES)
def test_arrays_that_do_not_fit_together_are_made_again(large: Path, name: str, change: Change):
    opened(large)
    require_whole(large)
    rewrite(large, **{name: change(stored(large)[1][name])})
    same(opened(large), content())
    require_whole(large)


def test_what_is_written_says_its_format_and_content(large: Path, monkeypatch: pytest.MonkeyPatch):
    names, replace = [], os.replace

    def note(source: Path, target: Path) -> None:
        names.append(source.name)
        replace(source, target)

    monkeypatch.setattr(index.os, "replace", note)
    source = opened(large)
    assert names == [f"{large.name}.index.{os.getpid()}.partial"], "no two processes write to one file"
    require_whole(large)
    assert source.index.digest == hashlib.sha256(large.read_bytes()).hexdigest()
    assert source.index.file == beside(large), "it is mapped from the first opening on"


def test_an_index_is_known_by_its_whole_path(large: Path, monkeypatch: pytest.MonkeyPatch):
    """A loader process may have another working directory."""
    monkeypatch.chdir(large.parent)
    opened(Path(large.name))
    assert opened(Path(large.name)).index.file == beside(large)


@pytest.mark.parametrize("home", ["cache", ""])
def test_the_cache_folder(large: Path, home: str, monkeypatch: pytest.MonkeyPatch):
    """Below `$XDG_CACHE_HOME`, or `~/.cache` where that is empty; nothing is left of what could not be finished."""
    root = large.parents[1]
    monkeypatch.setenv("HOME", str(root / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", home and str(root / home))
    beside(large).mkdir()
    digest = hashlib.sha256(large.read_bytes()).hexdigest()
    place = root / (home or "home/.cache") / "queryinst" / f"{digest}.index"
    same(opened(large), content())
    assert place.is_file()
    assert {path.name for path in large.parent.iterdir()} == {large.name, beside(large).name}
    assert [path.name for path in place.parent.iterdir()] == [place.name]
    no_parsing(monkeypatch)
    assert opened(large).index.file == place


def test_a_part_that_can_neither_be_finished_nor_removed_does_not_stop_anything(
    large: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("read-only by now")

    monkeypatch.setattr(index.os, "replace", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    same(opened(large), content())


def test_an_index_that_is_gone_is_named(large: Path):
    opened(large)
    sent = opened(large).index.__reduce__()
    beside(large).write_bytes(b"")
    with pytest.raises(UserError) as raised:
        sent[0](*sent[1])
    assert str(raised.value) == f"{beside(large)} was changed while it was in use; start the command again"


def test_reference_cycles_are_looked_for_again_as_before():
    assert gc.isenabled()
    with index.no_garbage():
        assert not gc.isenabled()
        with index.no_garbage():
            pass
        assert not gc.isenabled(), "as it was"
    assert gc.isenabled()
    with pytest.raises(ValueError, match="^x$"), index.no_garbage():
        raise ValueError("x")
    assert gc.isenabled()


def test_content_is_the_file_image_by_image(large: Path):
    """With each annotation's own area, which is neither that of its box nor that of its mask."""
    data = content()
    for number, annotation in enumerate(data["annotations"]):
        annotation["area"] = 7.25 + number
    large.write_text(json.dumps(data))
    for _ in ("parsed", "mapped"):
        source = CocoFile(large, large.parent)
        made = source.content
        kept = [{key: value for key, value in a.items() if key != "note"} for a in data["annotations"]]
        order = [image["id"] for image in data["images"]]
        assert made["annotations"] == sorted(kept, key=lambda a: order.index(a["image_id"]))
        assert made["images"] == [{k: v for k, v in image.items() if k != "license"} for image in data["images"]]
        assert made["categories"] == data["categories"]
        assert made.keys() == {"images", "annotations", "categories"}
