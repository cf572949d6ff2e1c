"""Each loss against a plain formula, and mask targets from small regions against those from whole bitmaps."""

import numpy as np
import pytest
import torch
from conftest import random_targets
from torchvision.ops import roi_align

from queryinst.criterion import losses
from queryinst.structures import Targets


def test_focal_is_its_formula():
    logits, wanted = torch.randn(2, 1, 3, 4), torch.zeros(2, 1, 3, 4)
    wanted[:, 0, 1, 2] = 1
    p = logits.sigmoid()
    expected = -(wanted * 0.25 * (1 - p) ** 2 * p.log() + (1 - wanted) * 0.75 * p**2 * (1 - p).log())
    torch.testing.assert_close(losses.focal(logits, wanted, 0.25, 2.0), expected.sum(dim=(1, 2, 3)))


def test_l1_is_normalised_by_the_image():
    boxes, wanted = torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[[1.0, 0, 10, 15]]])
    assert losses.l1(boxes, wanted, torch.tensor([[10.0, 20, 10, 20]])).item() == pytest.approx(1 / 10 + 5 / 20)


def test_giou_of_a_box_with_itself_is_no_loss():
    boxes = random_targets([4]).boxes[None]
    assert losses.giou(boxes, boxes).item() == pytest.approx(0, abs=1e-5)


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


@pytest.mark.parametrize("box", [[-50.0, -50, -10, -10], [200, 200, 300, 300], [5, 5, 5, 5], [9, 9, 2, 2]])
def test_boxes_outside_the_image_have_empty_targets_or_at_least_finite_ones(box: list[float]):
    targets = random_targets([1])
    ours = losses.mask_targets(torch.tensor([box]), torch.tensor([0]), targets, torch.tensor([[64, 64]]), 28, samples=2)
    assert set(np.unique(ours)) <= {0.0, 1.0}
