"""Each loss against a plain formula, and mask targets from small regions against those from whole bitmaps."""

import math

import pytest
import torch
from conftest import random_targets
from torch import Tensor
from torchvision.ops import roi_align

from queryinst.criterion import losses
from queryinst.structures import Targets


def test_focal_is_its_formula():
    logits, wanted = torch.randn(2, 1, 3, 4), torch.zeros(2, 1, 3, 4)
    wanted[:, 0, 1, 2] = 1
    p = logits.sigmoid()
    expected = -(wanted * 0.3 * (1 - p) ** 1.5 * p.log() + (1 - wanted) * 0.7 * p**1.5 * (1 - p).log())
    torch.testing.assert_close(losses.focal(logits, wanted, 0.3, 1.5), expected.sum(dim=(1, 2, 3)))


def test_l1_is_normalised_by_the_image():
    boxes, wanted = torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[[1.0, 0, 10, 15]]])
    assert losses.l1(boxes, wanted, torch.tensor([[10.0, 20, 10, 20]])).item() == pytest.approx(1 / 10 + 5 / 20)


def test_giou_of_a_box_with_itself_is_no_loss():
    boxes = random_targets([4]).boxes[None]
    assert losses.giou(boxes, boxes).item() == pytest.approx(0, abs=1e-5)


def test_giou_sums_the_boxes_of_a_stage():
    """A quarter covers the whole; and two boxes of 1 x 1 lie apart by 2, in a hull of 4 x 1."""
    boxes = torch.tensor([[[0.0, 0, 2, 2], [0, 0, 1, 1]], [[0, 0, 1, 1], [3, 0, 4, 1]]])
    wanted = torch.tensor([[[0.0, 0, 1, 1], [0, 0, 1, 1]], [[3, 0, 4, 1], [0, 0, 1, 1]]])
    assert losses.giou(boxes, wanted).tolist() == pytest.approx([3 / 4, 2 * (1 + 2 / 4)])


def test_dice_is_its_formula():
    """With small sums: the epsilon is seen in the eighth part of the fifth digit."""
    logits, wanted = torch.tensor([[[[0.0, -2.0]], [[-9.0, -9.0]]]]), torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    p, q = 1 / (1 + math.exp(2)), 1 / (1 + math.exp(9))
    expected = 1 - 2 * 0.5 / (0.25 + p * p + 1 + 2e-5) + 1 - 2 * q / (2 * q * q + 1 + 2e-5)
    assert losses.dice(logits, wanted).item() == pytest.approx(expected, abs=1e-6)


def test_dice_of_nothing_is_one_and_of_the_truth_is_none():
    truth = (torch.rand(1, 3, 28, 28) > 0.5).float()
    sure = torch.full((1, 3, 28, 28), -100.0)
    assert losses.dice(sure, torch.zeros_like(sure)).item() == pytest.approx(3)
    assert losses.dice(torch.where(truth > 0, 100.0, -100.0), truth).item() == pytest.approx(0, abs=1e-5)


def test_mask_targets_are_the_references():
    """Clip to the canvas, RoIAlign of the bitmap with adaptive sampling, at least one half."""
    targets = random_targets([6])
    boxes = targets.boxes + torch.randn(6, 4) * 6
    ours = losses.mask_targets(boxes, torch.arange(6), targets, torch.tensor([[64, 64]]).repeat(6, 1), 28, samples=0)
    rois = torch.cat([torch.arange(6.0)[:, None], boxes.clamp(0, 64)], 1)
    expected = roi_align(targets.masks[:, None].float(), rois, 28, 1.0, 0, aligned=True)[:, 0] >= 0.5
    assert torch.equal(ours, expected.float())


def test_a_region_of_the_images_pixels_gives_the_targets_of_the_whole_bitmap():
    whole = random_targets([6])
    regions = torch.stack([whole.boxes[:, :2].floor() - 1, whole.boxes[:, :2].floor() + 39], 1).flatten(1).clamp(min=0)
    regions[:, 2:] = regions[:, :2] + 40
    masks = torch.zeros(6, 40, 40, dtype=torch.uint8)
    padded = torch.nn.functional.pad(whole.masks, (0, 64, 0, 64))
    for index, (left, top, _, _) in enumerate(regions.int().tolist()):
        masks[index] = padded[index, top : top + 40, left : left + 40]
    small = Targets(whole.boxes, whole.labels, masks, regions, whole.counts)
    boxes, limits = whole.boxes + torch.randn(6, 4) * 3, torch.tensor([[64, 64]]).repeat(6, 1)
    a, b = (losses.mask_targets(boxes, torch.arange(6), t, limits, 28, samples=2) for t in (whole, small))
    assert (a != b).float().mean() < 2e-3  # rounding at the threshold


def of_mask(mask: Tensor) -> Targets:
    """One object in an image of 64 x 64, with a bitmap of the whole image."""
    box = torch.tensor([[0.0, 0, 64, 64]])
    return Targets(box, torch.zeros(1, dtype=torch.int64), mask[None], box, [1])


@pytest.fixture
def flat() -> Targets:
    """An object of 5 x 2 pixels."""
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[4:6, 5:10] = 1
    return of_mask(mask)


@pytest.mark.parametrize("samples", [0, 2])
@pytest.mark.parametrize(
    ("box", "row", "column"),
    [
        ([-50.0, -50, -10, -10], 0, 0),
        ([200.0, -9, 300, -5], 0, 63),
        ([-30.0, 64, 0, 90], 63, 0),
        ([200.0, 200, 300, 300], 63, 63),
    ],
)
def test_a_box_outside_the_image_shows_the_nearest_pixel(box: list[float], row: int, column: int, samples: int):
    """Clipped, it is a point of a corner. As many samples as it has pixels are none, and nothing is seen."""
    for value in (0, 1):
        mask = torch.full((64, 64), 1 - value, dtype=torch.uint8)
        mask[row, column] = value
        limits = torch.tensor([[64, 64]])
        ours = losses.mask_targets(torch.tensor([box]), torch.tensor([0]), of_mask(mask), limits, 28, samples)
        assert (ours == (value if samples else 0)).all()


def test_an_empty_box_shows_its_point_and_one_inside_out_the_mirrored_object(flat: Targets):
    limits = torch.tensor([[64, 64]] * 4)
    boxes = torch.tensor([[6.0, 5, 6, 5], [20, 20, 20, 20], [12.1, 8.2, 4, 3.3], [4, 3.3, 12.1, 8.2]])
    inside, outside, backward, forward = losses.mask_targets(
        boxes, torch.zeros(4, dtype=torch.int64), flat, limits, 28, samples=2
    )
    assert (inside == 1).all()
    assert (outside == 0).all()
    assert torch.equal(backward, forward.flip(0, 1))
    assert forward.mean().item() == pytest.approx(5 / 8.1 * 2 / 4.9, abs=0.03)


def test_a_cell_that_is_half_covered_is_object(flat: Targets):
    """Its right edge in the middle of two pixels, and of three; with as many samples as pixels."""
    boxes, limits = torch.tensor([[9.0, 4, 11, 5], [9, 4, 12, 5]]), torch.tensor([[64, 64]] * 2)
    covered = losses.mask_targets(boxes, torch.tensor([0, 0]), flat, limits, size=1, samples=0)
    assert covered.flatten().tolist() == [1, 0]


@pytest.mark.parametrize(("samples", "seen"), [(0, 0), (1, 1), (3, 0)])
def test_samples_are_as_many_as_asked_for(flat: Targets, samples: int, seen: int):
    """A cell of 9 x 8 with the object of 5 x 2 in its middle: a single sample meets it, of more the fewest do."""
    boxes, limits = torch.tensor([[3.0, 1, 12, 9]]), torch.tensor([[64, 64]])
    assert losses.mask_targets(boxes, torch.tensor([0]), flat, limits, 1, samples).item() == seen
