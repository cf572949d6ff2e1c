"""The embedded data set: the same everywhere, and with everything that real data has."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from queryinst.config import ShapesConfig
from queryinst.data import shapes
from queryinst.errors import UserError

CONFIG = ShapesConfig(train=1, val=1)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, list[dict]]]:
    return [shapes.draw(CONFIG, "train", index) for index in range(150)]


def test_it_is_a_function_of_seed_split_and_index():
    picture, annotations = shapes.draw(CONFIG, "train", 3)
    again, annotations_again = shapes.draw(CONFIG, "train", 3)
    assert (picture == again).all()
    assert annotations == annotations_again
    for other in (
        shapes.draw(CONFIG, "train", 4),
        shapes.draw(CONFIG, "val", 3),
        shapes.draw(ShapesConfig(1, 1, seed=1), "train", 3),
    ):
        assert other[0].shape != picture.shape or (other[0] != picture).any()


def test_it_has_everything_that_real_data_has(drawn: list[tuple[np.ndarray, list[dict]]]):
    annotations = [annotation for _, of_image in drawn for annotation in of_image]
    masks = [annotation["segmentation"] for annotation in annotations]
    plain = [len([a for a in of_image if not a["iscrowd"]]) for _, of_image in drawn]
    assert 0 in plain
    assert max(plain) > 8
    assert {picture.shape[:2] for picture, _ in drawn} == {(128, 128), (96, 128), (128, 96)}
    assert {annotation["category_id"] for annotation in annotations} == set(shapes.CATEGORIES) - {shapes.ABSENT}
    assert any(annotation["iscrowd"] for annotation in annotations)
    assert any(isinstance(mask, list) and len(mask) > 1 for mask in masks), "a mask in several parts"
    assert any(isinstance(mask, dict) and isinstance(mask["counts"], list) for mask in masks), "an uncompressed RLE"
    assert any(isinstance(mask, dict) and isinstance(mask["counts"], str) for mask in masks), "a compressed RLE"
    assert any(annotation["area"] < 40 for annotation in annotations), "a tiny object"
    assert any(annotation["area"] > 32**2 for annotation in annotations), "an object of COCO's medium size"
    assert any(value % 1 for annotation in annotations for value in annotation["bbox"]), "a box between pixels"


def test_masks_boxes_and_areas_agree_and_do_not_overlap(drawn: list[tuple[np.ndarray, list[dict]]]):
    for picture, annotations in drawn:
        height, width = picture.shape[:2]
        covered = np.zeros((height, width), int)
        for annotation in annotations:
            code = annotation["segmentation"]
            if isinstance(code, list):
                code = coco_mask.merge(coco_mask.frPyObjects(code, height, width))
            elif isinstance(code["counts"], list):
                code = coco_mask.frPyObjects(code, height, width)
            bitmap = coco_mask.decode(code)
            covered += bitmap
            assert abs(bitmap.sum() - annotation["area"]) < 4 + 0.12 * annotation["area"]
            x, y, w, h = annotation["bbox"]
            assert 0 <= x < x + w <= width
            assert 0 <= y < y + h <= height
            if bitmap.any():
                left, top, wide, high = coco_mask.toBbox(code)
                np.testing.assert_allclose([x, y, x + w, y + h], [left, top, left + wide, top + high], atol=2.1)
        assert (covered > 1).mean() < 0.02  # occlusion is real; rims may touch


def test_the_folder_is_coco(shapes_source: Path):
    for split, count in (("train", 24), ("val", 8)):
        coco = COCO(shapes_source / "annotations" / f"instances_{split}.json")
        assert len(coco.imgs) == count
        assert sorted(coco.cats) == list(shapes.CATEGORIES)
        for image in coco.imgs.values():
            with Image.open(shapes_source / "images" / split / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"])
        for annotation in coco.anns.values():
            image = coco.imgs[annotation["image_id"]]
            mask = coco.annToMask(annotation)
            assert mask.shape == (image["height"], image["width"])
            assert mask.any()
    train, val = (set(COCO(shapes_source / "annotations" / f"instances_{s}.json").imgs) for s in ("train", "val"))
    assert not train & val


def test_made_once_and_never_over_something_else(shapes_root: Path):
    config = ShapesConfig(train=24, val=8, side=96)
    before = (shapes_root / "annotations" / "instances_val.json").stat().st_mtime_ns
    shapes.make(shapes_root, config)
    assert (shapes_root / "annotations" / "instances_val.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="data.root=FOLDER"):
        shapes.make(shapes_root, ShapesConfig(train=25, val=8, side=96))
    (shapes_root / "annotations" / "instances_val.json").write_text("{}")
    with pytest.raises(UserError, match="holds other data"):
        shapes.make(shapes_root, config)
    assert json.loads((shapes_root / "annotations" / "instances_val.json").read_text()) == {}


def test_an_empty_folder_is_filled_and_nothing_is_left_beside_it(tmp_path: Path):
    (tmp_path / "shapes").mkdir()
    shapes.make(tmp_path / "shapes", ShapesConfig(train=2, val=1, side=64))
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]
    assert len(list((tmp_path / "shapes" / "images" / "train").iterdir())) == 2
