"""The index of an annotation file: the same answers as the file, made once, and never trusted where it does not fit."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import coco_folder
from pycocotools import mask as coco_mask

from queryinst.data import coco, index
from queryinst.data.coco import CocoFile
from queryinst.errors import UserError

SQUARE = [10.25, 10, 30.1, 10, 30, 30.7, 10, 30]
RUNS = {"size": [40, 50], "counts": [410, 20, 20, 20, 1530]}
SEGMENTATIONS = [
    [SQUARE],
    [SQUARE, [0.1, 0.2, 5, 1e-3, 7, 7]],
    RUNS,
    {"size": [40, 50], "counts": coco_mask.frPyObjects(RUNS, 40, 50)["counts"].decode()},
]


def content() -> dict[str, Any]:
    """Three images, ids not in order, one without annotations; each kind of segmentation."""
    images = [{"id": key, "file_name": f"é{key}.png", "height": 40, "width": 50, "license": 3} for key in (9, 2, 5)]
    annotations = [
        {"id": number, "image_id": (9, 5)[number % 2], "category_id": 4, "bbox": [1, 2.5, 20, 20], "segmentation": mask}
        | ({"area": 12.75, "iscrowd": 0} if number % 3 else {"ignore": 1})
        for number, mask in enumerate(SEGMENTATIONS * 2)
    ]
    annotations[1]["note"] = "nobody reads this"
    return {"images": images, "annotations": annotations, "categories": [{"id": 4, "name": "cat"}], "info": {}}


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An annotation file that counts as large; the images' folder is its own."""
    monkeypatch.setattr(index, "SMALLEST", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return coco_folder(tmp_path, content())


def opened(path: Path) -> CocoFile:
    return CocoFile(path, path.parent)


def beside(path: Path) -> Path:
    return path.with_name(path.name + ".index")


def no_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, hint: str = "") -> None:
        raise AssertionError(f"{path} is parsed again")

    monkeypatch.setattr(coco, "read_json", refuse)


def same(source: CocoFile, data: dict[str, Any]) -> None:
    """Assert that a source answers as its JSON says."""
    assert [image.id for image in source.images] == [image["id"] for image in data["images"]]
    assert [image.path.name for image in source.images] == [image["file_name"] for image in data["images"]]
    for image in source.images:
        expected = [a for a in data["annotations"] if a["image_id"] == image.id]
        expected = [{key: value for key, value in a.items() if key != "note"} for a in expected]
        assert source.annotations(image) == expected
        found = source.instances(image)
        assert len(found) == len(source.learnable(image)) == sum("ignore" not in a for a in expected)
        assert (found.boxes == [1, 2.5, 21, 22.5]).all()
        for ours, annotation in zip(found.outlines, source.learnable(image), strict=True):
            both = zip(ours, coco.outline_of(annotation["segmentation"]), strict=True)
            assert all(np.array_equal(one, other) for one, other in both)
    made = source.content
    assert {a["id"] for a in made["annotations"]} == {a["id"] for a in data["annotations"]}
    assert made["categories"] == data["categories"]
    assert [image["height"] for image in made["images"]] == [40, 40, 40]


def test_from_memory_from_disk_and_in_another_process_it_is_the_file(large: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "SMALLEST", 10**9)
    small = opened(large)
    same(small, content())
    assert not beside(large).exists()
    same(pickle.loads(pickle.dumps(small)), content())
    monkeypatch.setattr(index, "SMALLEST", 0)
    same(opened(large), content())
    no_parsing(monkeypatch)
    again = opened(large)
    same(again, content())
    sent = pickle.dumps(again)
    assert len(sent) < 2000 < beside(large).stat().st_size
    same(pickle.loads(sent), content())


def test_it_is_mapped_and_not_copied(large: Path):
    opened(large)
    source = opened(large)
    assert not any(array.flags.owndata for array in source.index.arrays.values())
    assert source.index.file == beside(large).absolute()
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(beside(large)) in maps.read_text()


def test_images_are_a_sequence(large: Path):
    images = opened(large).images
    assert [image.id for image in images[1:]] == [2, 5]
    assert images[-1].id == 5
    assert images[0].path == large.parent / "é9.png"
    with pytest.raises(IndexError):
        images[3]
    source = opened(large)
    assert [image.id for image in source.trainable(32, keep_empty=False)] == [9, 5]
    assert len(source.trainable(32, keep_empty=True)) == 3
    assert len(source.trainable(41, keep_empty=True)) == 0
    with pytest.raises(KeyError):
        source.index.position(3)


def test_a_changed_file_is_read_again(large: Path):
    opened(large)
    data = content()
    data["annotations"][0]["bbox"] = [1, 2.5, 20, 21]  # of the same length, perhaps within the same tick of the clock
    large.write_text(json.dumps(data))
    changed = opened(large)
    assert changed.annotations(changed.images[0])[0]["bbox"] == [1, 2.5, 20, 21]
    assert [path.name for path in large.parent.iterdir() if "index" in path.name] == [beside(large).name]


@pytest.mark.parametrize("damage", ["empty", "cut", "foreign", "folder", "arrays", "lengths"])
def test_an_index_that_does_not_fit_is_made_again(large: Path, damage: str, monkeypatch: pytest.MonkeyPatch):
    first = opened(large)
    place, arrays = beside(large), {name: array.copy() for name, array in first.index.arrays.items()}
    whole, digest = place.read_bytes(), first.index.digest
    place.unlink()
    if damage == "folder":
        place.mkdir()
    elif damage in ("empty", "cut", "foreign"):
        place.write_bytes({"empty": b"", "cut": whole[:-10], "foreign": b"something else altogether"}[damage])
    elif damage == "arrays":
        del arrays["names"]
        index.save_file(arrays, place, {"format": index.FORMAT, "digest": digest})
    else:
        arrays["texts"] = arrays["texts"][:-1]
        index.save_file(arrays, place, {"format": index.FORMAT, "digest": digest})
    same(opened(large), content())
    no_parsing(monkeypatch)
    same(opened(large), content())


def test_where_nothing_can_be_written_beside_it_is_in_the_cache_folder(large: Path, monkeypatch: pytest.MonkeyPatch):
    replace, cache = index.os.replace, large.parents[1] / "cache"

    def refuse(source: Path, target: Path) -> None:
        if cache not in target.parents:
            raise PermissionError(f"{target} is read-only")
        replace(source, target)

    monkeypatch.setattr(index.os, "replace", refuse)
    same(opened(large), content())
    assert [path.name for path in large.parent.iterdir()] == [large.name]
    assert len(list((cache / "queryinst").iterdir())) == 1
    no_parsing(monkeypatch)
    same(opened(large), content())


def test_where_nothing_can_be_written_at_all_it_stays_in_memory(large: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(source: Path, target: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(index.os, "replace", refuse)
    same(opened(large), content())
    assert not [path for path in large.parents[1].rglob("*") if "index" in path.name]


def test_a_faulty_file_leaves_nothing(large: Path):
    data = content()
    data["annotations"][5]["category_id"] = 3
    large.write_text(json.dumps(data))
    for _ in range(2):
        with pytest.raises(UserError, match="names category 3"):
            opened(large)
    large.write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        opened(large)
    assert not beside(large).exists()
    opened(coco_folder(large.parents[1], content()))
    with pytest.raises(UserError, match="is not a folder"):
        CocoFile(large, large.parent / "nowhere")


def test_an_index_that_is_replaced_under_a_run_is_named(large: Path):
    sent = pickle.dumps(opened(large))
    beside(large).unlink()
    with pytest.raises(UserError, match="was changed while it was in use"):
        pickle.loads(sent)
