"""Overlays for W&B: what lies on top, one size for all images, and more objects than a byte can count."""

import numpy as np
import pytest

from queryinst.lightning.callbacks.overlays import overlays, painted
from queryinst.ops.masks import LocalMask
from queryinst.visualize.draw import Layer

SQUARE = LocalMask(np.ones((4, 4), np.uint8), 1, 1)
SHIFTED = LocalMask(np.ones((4, 4), np.uint8), 3, 3)
NOTHING = LocalMask(np.zeros((0, 0), np.uint8), 0, 0)


def test_the_first_lies_on_top():
    canvas = painted([SQUARE, SHIFTED], [1, 2], (8, 9))
    assert canvas.shape == (8, 9)
    assert (canvas[1:5, 1:5] == 1).all()
    assert [(canvas == value).sum() for value in (1, 2)] == [16, 12]
    assert painted([SQUARE, SHIFTED], [256, 2], (8, 9)).max() == 2, "no byte holds more than 255"
    assert not painted([NOTHING], [1], (8, 9)).any()


def test_images_of_two_sizes_and_many_objects(capsys: pytest.CaptureFixture[str]):
    pictures = [np.full((8, 6, 3), 200, np.uint8), np.full((1, 9, 3), 200, np.uint8)]
    many = Layer([SQUARE] * 300, [0] * 300, ["cat"] * 300)
    some = Layer([LocalMask(np.ones((1, 2), np.uint8), 0, 0), NOTHING], [1, 0], ["dog 0.90", "cat 0.50"])
    images = overlays(pictures, [{"prediction": many}, {"prediction": some}], ["cat", "dog"], ["one", "two"])
    assert {image.image.size for image in images} == {(9, 8)}
    assert [image._caption for image in images] == ["one", "two"]
    box = images[1]._boxes["prediction"]._val
    assert [(entry["box_caption"], entry["class_id"]) for entry in box] == [("dog 0.90", 2)], "an empty mask has no box"
    assert box[0]["position"] == {"minX": 0, "maxX": 2, "minY": 0, "maxY": 1}
    masks = images[0]._masks
    assert set(masks) == {"prediction", "prediction objects"}
    assert len(masks["prediction objects"]._val["class_labels"]) == 255
    assert masks["prediction objects"]._val["mask_data"].max() == 1
