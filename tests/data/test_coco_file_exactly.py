"""COCO files and samples in exact values: what is an object to learn, every field of a sample, and whole sentences."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import coco_folder
from PIL import Image

from queryinst.data import coco
from queryinst.data.coco import Categories, CocoFile, Images, is_learnable, outline_of, read_json
from queryinst.data.colours import distort
from queryinst.data.dataset import CocoDataset, planes
from queryinst.data.images import ImageFile, read_image
from queryinst.data.transforms import Geometry, Instances
from queryinst.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("changes", "learnable"),
    [
        ({}, True),
        ({"bbox": [3, 4, 1, 1]}, True),
        ({"bbox": [3, 4, 0.99, 9]}, False),
        ({"bbox": [3, 4, 9, 0.99]}, False),
        ({"bbox": [-5, 4, 5, 9]}, False),  # it only touches the image
        ({"bbox": [-5, 4, 5.01, 9]}, True),
        ({"bbox": [3, -5, 9, 5]}, False),
        ({"bbox": [3, -5, 9, 5.01]}, True),
        ({"bbox": [50, 4, 5, 9]}, False),
        ({"bbox": [49.99, 4, 5, 9]}, True),
        ({"bbox": [3, 40, 5, 9]}, False),
        ({"bbox": [3, 39.99, 5, 9]}, True),
        ({"bbox": [-9, -9, 99, 99]}, True),
        ({"area": 0}, False),
        ({"area": -1}, False),
        ({"area": 0.5}, True),
        ({"area": 1}, True),
        ({"iscrowd": 1}, False),
        ({"iscrowd": 0, "ignore": 0}, True),
        ({"ignore": 1}, False),
    ],
)
def test_what_is_an_object_to_learn(changes: dict[str, Any], learnable: bool):
    assert is_learnable({"bbox": [3, 4, 20, 20], **changes}, 40, 50) is learnable


def entries(*annotations: dict[str, Any]) -> dict[str, Any]:
    """Images of 40 x 50, 50 x 60 and 61 x 50 pixels; each annotation with a mask of its own."""
    square = [10, 10, 30, 10, 30, 30.5, 10, 30]
    return {
        "images": [
            {"id": key, "file_name": f"sub/{key}.png", "height": height, "width": width}
            for key, height, width in ((8, 40, 50), (3, 50, 60), (5, 61, 50))
        ],
        "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": 7}, {"id": 4, "name": "dog"}],
        "annotations": [
            {
                "id": number,
                "bbox": [1, 2, 30, 4.5],
                "segmentation": [[value + number for value in square]],
                **annotation,
            }
            for number, annotation in enumerate(annotations)
        ],
    }


def opened(tmp_path: Path, *annotations: dict[str, Any]) -> CocoFile:
    return CocoFile(coco_folder(tmp_path, entries(*annotations)), tmp_path)


def test_categories_and_images(tmp_path: Path):
    source = opened(tmp_path)
    assert source.categories == Categories((2, 4, 9), ("7", "dog", "cat"))
    assert len(source.categories) == 3
    expected = [
        ImageFile(8, tmp_path / "sub/8.png", 40, 50),
        ImageFile(3, tmp_path / "sub/3.png", 50, 60),
        ImageFile(5, tmp_path / "sub/5.png", 61, 50),
    ]
    assert list(source.images) == expected
    some = Images(source.index, tmp_path / "elsewhere", np.array([2, 0, 1]))[1:]
    assert len(some) == 2
    assert [(image.id, image.path.parent) for image in some] == [(key, tmp_path / "elsewhere/sub") for key in (8, 3)]


def test_images_to_train_on(tmp_path: Path):
    source = opened(tmp_path, {"image_id": 3, "category_id": 4}, {"image_id": 5, "category_id": 4, "iscrowd": 1})
    for smallest, kept in ((40, [8, 3, 5]), (41, [3, 5]), (50, [3, 5]), (51, [])):
        images = source.trainable(smallest, keep_empty=True)
        assert [image.id for image in images] == kept
        assert all(image.path == tmp_path / f"sub/{image.id}.png" for image in images)
    assert [image.id for image in source.trainable(1, keep_empty=False)] == [3], "of one object"
    assert len(source.trainable(51, keep_empty=False)) == 0


def test_instances_are_in_the_files_order(tmp_path: Path):
    source = opened(
        tmp_path,
        {"image_id": 3, "category_id": 9},
        {"image_id": 3, "category_id": 4, "ignore": 1},
        {"image_id": 8, "category_id": 4, "bbox": [1, 2, 3, 4]},
        {"image_id": 3, "category_id": 2, "bbox": [0, 5, 6.5, 7]},
    )
    found = source.instances(source.images[1])
    assert found.boxes.tolist() == [[1, 2, 31, 6.5], [0, 5, 6.5, 12]]
    assert found.labels.tolist() == [2, 0]
    assert found.labels.dtype == np.int64
    assert [polygon[2].tolist() for (polygon,) in found.outlines] == [[30, 30.5], [33, 33.5]]
    assert found.tracks is None
    whole_numbers, nothing = source.instances(source.images[0]), source.instances(source.images[2])
    assert whole_numbers.boxes.tolist() == [[1, 2, 4, 6]]
    assert nothing.boxes.shape == (0, 4)
    assert whole_numbers.boxes.dtype == nothing.boxes.dtype == np.float64
    assert nothing.labels.dtype == np.int64
    assert len(nothing) == len(nothing.labels) == 0


def test_outlines():
    one, other = outline_of([[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12, 13, 14]])
    assert one.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert other.shape == (4, 2)
    assert one.dtype == np.float64
    mask = outline_of({"size": [4, 5], "counts": [6, 1, 13]})
    assert (mask.bitmap.tolist(), mask.left, mask.top) == ([[1]], 1, 2)


def sentence(call: Any, *arguments: Any) -> str:
    with pytest.raises(UserError) as raised:
        call(*arguments)
    return str(raised.value)


def test_sentences_about_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone, hint = tmp_path / "no.json", " (get it)"
    words = f"{gone} does not exist; expected a COCO annotation file there"
    assert sentence(read_json, gone) == words
    assert sentence(read_json, gone, hint, "VIS") == f"{words.replace('COCO', 'VIS')} (get it)"
    assert sentence(CocoFile, gone, tmp_path, hint) == f"{words} (get it)"
    assert sentence(CocoFile, gone, tmp_path) == words
    nowhere = tmp_path / "nowhere" / "x.json"
    assert sentence(read_json, nowhere) == f"{nowhere} does not exist; expected a COCO annotation file there"
    for name in "gfedcba":
        (tmp_path / f"{name}.json").touch()
    (tmp_path / "a.txt").touch()
    listed = "; its folder has a.json, b.json, c.json, d.json, e.json"
    assert sentence(read_json, gone, hint) == f"{words}{listed} (get it)"
    empty = coco_folder(tmp_path, entries() | {"images": []}, "empty")
    assert sentence(CocoFile, empty, tmp_path) == f"{empty} has no images"
    cut = tmp_path / "a.json"
    cut.write_text("[1,")
    end = "Expecting value: line 1 column 4 (char 3); it may be cut short: copy or download it again"
    assert sentence(read_json, cut, hint) == f"{cut} cannot be read as JSON: {end}"
    source, away = coco_folder(tmp_path, entries()), tmp_path / "away"
    there = f"{away} is not a folder; expected the images of {source} there"
    assert sentence(CocoFile, source, away, hint) == f"{there} (get it)"
    assert sentence(coco.require_folder, away, source) == there

    def deep(*_: Any) -> None:
        raise RecursionError

    monkeypatch.setattr(coco, "build", deep)
    nested = f"{source} has an annotation that is nested too deeply to be kept"
    assert sentence(CocoFile, source, tmp_path) == nested


def test_an_index_does_not_hide_that_the_images_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("queryinst.data.index.SMALLEST", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = opened(tmp_path).path
    assert source.with_name(f"{source.name}.index").exists()
    away = tmp_path / "away"
    expected = f"{away} is not a folder; expected the images of {source} there (get it)"
    assert sentence(CocoFile, source, away, " (get it)") == expected


@pytest.fixture
def picture(tmp_path: Path) -> ImageFile:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    return ImageFile(6, tmp_path / "a.png", 5, 7)


def gone(count: int) -> list[ImageFile]:
    return [ImageFile(100 + number, Path("/gone") / f"{number}.png", 5, 7) for number in range(count)]


def enlarged(height: int, width: int, rng: np.random.Generator) -> Geometry:
    return Geometry.identity(height, width).resize(2 * height, 3 * width)


def as_it_is(height: int, width: int, rng: np.random.Generator) -> Geometry:
    return Geometry.identity(height, width)


def objects(image: ImageFile) -> Instances:
    """One of one pixel, and one that covers the right part of the image; with tracks."""
    assert image.id == 6
    outlines = [[np.array([[x, y], [r, y], [r, b], [x, b]], float)] for x, y, r, b in ((2, 1, 3, 2), (4, 0, 7, 5))]
    boxes = np.array([[2.0, 1, 3, 2], [4, 0, 7, 5]])
    return Instances(boxes, np.array([3, 0]), outlines, tracks=np.array([8, 9]))


def test_a_sample_in_every_field(picture: ImageFile):
    sample = CocoDataset([picture], enlarged, objects, mask_size=28)[0, 0]
    assert sample.image.shape == (3, 10, 21)
    assert np.array_equal(sample.image.permute(1, 2, 0), enlarged(5, 7, None).image(PIXELS))
    assert (sample.original_size, sample.image_id, sample.problems) == ((5, 7), 6, ())
    targets = sample.targets
    assert targets.boxes.tolist() == [[6, 2, 9, 4], [12, 0, 21, 10]]
    assert targets.boxes.dtype == targets.mask_boxes.dtype == torch.float32
    assert targets.mask_boxes.tolist() == [[4, 1, 32, 29], [4, 0, 32, 28]]
    assert targets.labels.tolist() == [3, 0]
    assert targets.counts == [2]
    assert targets.tracks.tolist() == [8, 9]
    expected = torch.zeros(2, 28, 28, dtype=torch.uint8)
    expected[0, 1:3, 2:5] = 1
    expected[1, :10, 8:17] = 1
    assert torch.equal(targets.masks, expected)


def test_without_instances_there_are_no_targets(picture: ImageFile):
    dataset = CocoDataset([picture, picture], as_it_is)
    sample = dataset[0, 1]
    assert len(dataset) == 2
    assert np.array_equal(sample.image.permute(1, 2, 0), PIXELS)
    assert np.array_equal(planes(PIXELS).transpose(1, 2, 0), PIXELS)
    targets = sample.targets
    assert [tuple(x.shape) for x in (targets.boxes, targets.mask_boxes, targets.masks)] == [(0, 4), (0, 4), (0, 8, 8)]
    assert targets.counts == [0]
    assert targets.tracks is None


def test_randomness_is_that_of_seed_epoch_and_position(picture: ImageFile):
    """The colours go on with the same numbers after the geometry, and are changed as often as asked for."""
    drawn = []

    def draw(height: int, width: int, rng: np.random.Generator) -> Geometry:
        drawn.append(rng.random())
        return Geometry.identity(height, width)

    images = [*gone(2), picture]
    for settings, seed in (({}, 0), ({"seed": 5}, 5)):
        dataset = CocoDataset(images, draw, photometric=0.5, substitute=True, **settings)
        changed = 0
        for epoch in range(20):
            sample = dataset[epoch, 1]
            rng = np.random.default_rng([seed, epoch, 1])
            assert drawn[-1] == rng.random()
            change = rng.random() < 0.5
            changed += change
            expected = distort(PIXELS, rng) if change else PIXELS
            assert np.array_equal(sample.image.permute(1, 2, 0), expected)
        assert 4 < changed < 16


def test_of_several_images_each_has_the_same_randomness_and_problems_are_said_once(picture: ImageFile):
    dataset = CocoDataset([*gone(1), picture], as_it_is, photometric=1.0, substitute=True)
    one, two, three = dataset.together((3, 0), lambda image: [image] * 3)
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.image, three.image)
    assert one.problems == ("image 100 (/gone/0.png) does not exist",)
    assert two.problems == three.problems == ()


def test_the_next_image_that_can_be_read_takes_the_place(picture: ImageFile):
    def served(images: list[ImageFile], position: int, substitute: bool = True) -> tuple[int, list[int]]:
        settings = {"substitute": True} if substitute else {}
        sample = CocoDataset(images, as_it_is, **settings)[0, position]
        return sample.image_id, [int(re.findall(r"image (\d+)", problem)[0]) for problem in sample.problems]

    assert served([*gone(2), picture], 0) == (6, [100, 101])
    assert served([picture, *gone(2)], 1) == (6, [100, 101]), "behind the last comes the first"
    assert served([*gone(19), picture], 0) == (6, list(range(100, 119)))
    assert served([*gone(20), picture], 0) == (-1, list(range(100, 120))), "twenty are enough"
    assert served(gone(3), 1) == (-1, [101, 102, 100])
    assert served([*gone(1), picture], 0, substitute=False) == (-1, [100])


def test_in_place_of_what_cannot_be_read_is_a_blank_image(picture: ImageFile):
    dataset = CocoDataset(gone(1), as_it_is, objects, mask_size=5)
    blanks = dataset.together((0, 0), lambda image: [image, picture])
    assert len(blanks) == 2, "as many as belong together"
    for blank in blanks:
        assert torch.equal(blank.image, torch.zeros(3, 32, 32, dtype=torch.uint8))
        assert blank.image.dtype == torch.uint8
        assert (blank.original_size, blank.image_id) == ((32, 32), -1)
        assert blank.targets.masks.shape == (0, 5, 5)
        assert blank.targets.boxes.shape == blank.targets.mask_boxes.shape == (0, 4)
        assert blank.targets.counts == [0]
        assert blank.problems == ("image 100 (/gone/0.png) does not exist",)
    assert read_image(picture).shape == (5, 7, 3)
