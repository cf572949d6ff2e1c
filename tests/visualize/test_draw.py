"""Pictures of masks."""

import numpy as np
import torch

from queryinst.ops.masks import LocalMask
from queryinst.structures import Detections
from queryinst.visualize import draw


def test_a_mask_changes_its_pixels_and_only_near_ones():
    picture = np.full((300, 400, 3), 128, np.uint8)
    drawn = draw.overlay(picture, [LocalMask(np.ones((10, 12), np.uint8), 30, 40)], ["x"])
    assert (picture == 128).all()
    changed = (drawn != picture).any(-1)
    assert changed[40:50, 30:42].all()
    assert not changed[:20].any()
    assert not changed[:, :25].any()


def test_the_first_mask_lies_on_top():
    masks = [LocalMask(np.ones((20, 20), np.uint8), 20, 20)] * 2
    picture = np.zeros((300, 300, 3), np.uint8)
    drawn = draw.overlay(picture, masks, ["", ""], opacity=1.0)
    assert drawn[30, 30].tolist() == list(draw.colour(0))


def test_a_small_image_is_enlarged_with_its_masks():
    """Letters would cover it otherwise. Every pixel becomes a square."""
    picture = np.zeros((100, 128, 3), np.uint8)
    mask = LocalMask(np.array([[1, 0], [0, 1]], np.uint8), 60, 70)
    drawn = draw.overlay(picture, [mask], [""], opacity=1.0)
    assert drawn.shape == (300, 384, 3)
    assert drawn[211, 181].tolist() == drawn[214, 184].tolist() == list(draw.colour(0))
    assert not drawn[211, 184].any()
    assert not drawn[250:, 250:].any()


def test_a_track_keeps_its_colour_and_its_number_whatever_its_place():
    """In two frames of a video, the better detection is another object."""
    boxes = torch.tensor([[10.0, 10, 60, 60], [200, 200, 260, 260]])
    found = Detections(
        boxes,
        torch.tensor([0.9, 0.8]),
        torch.tensor([0, 1]),
        torch.ones(2, 28, 28),
        (300, 300),
        tracks=torch.tensor([7, 4]),
    )
    picture, names = np.zeros((300, 300, 3), np.uint8), ["cat", "dog"]
    assert draw.detected(found, names).captions == ["7 cat 0.90", "4 dog 0.80"]
    order = torch.tensor([1, 0])
    one, other = (draw.predictions(picture, each, names) for each in (found, found.take(order)))
    assert np.array_equal(one[35, 35], other[35, 35])
    assert not np.array_equal(one[35, 35], one[230, 230])
    assert one[35, 35].tolist() == [int(0.45 * value) for value in draw.colour(7)]


def test_neighbouring_colours_differ():
    assert all(np.abs(np.subtract(draw.colour(n), draw.colour(n + 1))).sum() > 100 for n in range(30))


def test_predictions_at_the_border_and_of_no_size():
    found = Detections(
        torch.tensor([[-5.0, -5, 20, 20], [50, 30, 100, 100], [10, 10, 10, 10]]),
        torch.tensor([0.9, 0.8, 0.7]),
        torch.tensor([0, 1, 0]),
        torch.ones(3, 28, 28),
        (40, 60),
    )
    picture = draw.predictions(np.zeros((40, 60, 3), np.uint8), found, ["cat", "dog"])
    assert picture.shape == (40 * 6, 60 * 6, 3)
    assert picture[0, 0].any()
    assert picture[-1, -1].any()


def test_grid():
    cells = [[np.full((h, w, 3), 200, np.uint8) for h, w in ((40, 60), (300, 20))] for _ in range(3)]
    assert draw.grid(cells, ["a", "b"], side=100).shape == (28 + 300, 200, 3)


def test_a_thin_picture_has_a_place_in_a_grid():
    picture = np.full((1, 700, 3), 255, np.uint8)
    drawn = draw.grid([[picture, picture.transpose(1, 0, 2)]], ["wide", "tall"])
    assert drawn.shape == (348, 640, 3)
    bodies = drawn[28:, :320], drawn[28:, 320:]
    assert [int((body == 255).all(-1).sum()) for body in bodies] == [316, 316]


def test_captions_in_other_scripts_are_letters():
    """OpenCV 4 writes question marks for all of them."""
    blank, mask = np.zeros((400, 500, 3), np.uint8), LocalMask(np.ones((40, 40), np.uint8), 20, 200)
    written = [draw.overlay(blank, [mask], [text]).tobytes() for text in ("猫", "狗", "кот", "пес", "??", "é", "e")]
    assert len(set(written)) == len(written)
