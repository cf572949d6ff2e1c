"""Masks compared at points: where these lie, what is read there, and the grid's loss where it must be."""

from dataclasses import replace

import pytest
import torch
from conftest import random_batch, small_model

from queryinst.criterion import losses, points
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.structures import UNKNOWN, Targets

LIMITS = torch.tensor([[64, 64]])


def centres(side: int) -> torch.Tensor:
    """(1, side * side, 2): the middle of each cell, row by row, as x, y."""
    line = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)[None]


def one(masks: torch.Tensor, region: list[float]) -> Targets:
    return Targets(torch.tensor([region]), torch.zeros(1, dtype=torch.int64), masks[None], torch.tensor([region]), [1])


def test_a_map_is_read_where_its_cells_are():
    maps = torch.randn(1, 5, 5)
    torch.testing.assert_close(points.read(maps, centres(5)), maps.flatten(1))
    halfway = torch.tensor([[[0.2, 0.1], [0.0, 0.5], [1.0, 1.0]]])  # between two cells of the first row; at the edges
    expected = torch.stack([(maps[0, 0, 0] + maps[0, 0, 1]) / 2, maps[0, 2, 0], maps[0, 4, 4]])
    torch.testing.assert_close(points.read(maps, halfway)[0], expected)


def test_most_points_lie_where_the_mask_is_unsure():
    """PointRend, section 3.1: a share of them, and the rest anywhere."""
    ramp = torch.linspace(-8, 8, 64).expand(1, 64, 64)  # unsure in the middle of its width
    drawn = points.unsure_points(ramp.repeat(2, 1, 1), 400)
    assert drawn.shape == (2, 400, 2)
    assert 0 <= drawn.min() < drawn.max() <= 1
    unsure, anywhere = drawn.split([300, 100], dim=1)
    assert (unsure[..., 0] - 0.5).abs().max() < 0.2, "the third of 1200 candidates nearest to the middle"
    assert unsure[..., 1].std().item() == pytest.approx(12**-0.5, abs=0.04)
    assert anywhere.std().item() == pytest.approx(12**-0.5, abs=0.04)
    assert not torch.equal(drawn[0], drawn[1])


def test_an_object_is_read_at_its_own_resolution_and_ends_at_its_region():
    masks = (torch.rand(6, 6) < 0.5).to(torch.uint8)
    targets = one(masks, [10.0, 20.0, 22.0, 32.0])
    target = torch.zeros(1, dtype=torch.int64)
    itself = points.objects_at(centres(6), targets.boxes, target, targets, LIMITS)
    torch.testing.assert_close(itself, masks.float().flatten()[None])
    # A box of twice the size around the same corner: a quarter of it is the object's region, in cells of half the side.
    wide = torch.tensor([[10.0, 20.0, 34.0, 44.0]])
    quarter = points.objects_at(centres(12), wide, target, targets, LIMITS).view(12, 12)
    torch.testing.assert_close(quarter[:6, :6], masks.float())
    assert not quarter[7:].any()
    assert not quarter[:, 7:].any()


def test_boxes_end_at_the_canvas_as_those_of_the_grid_do():
    masks = (torch.rand(8, 8) < 0.5).to(torch.uint8)
    targets, target = one(masks, [40.0, 40.0, 64.0, 64.0]), torch.zeros(1, dtype=torch.int64)
    beyond = torch.tensor([[40.0, 40.0, 90.0, 80.0]])
    found = points.objects_at(centres(8), beyond, target, targets, LIMITS)
    grid = losses.mask_targets(beyond, target, targets, LIMITS, 8, 2)
    torch.testing.assert_close(found.view(1, 8, 8), grid)


@pytest.mark.parametrize("target", ["one", "mask"])
def test_at_all_cells_the_loss_is_that_of_the_grid(monkeypatch: pytest.MonkeyPatch, target: str):
    """Where a cell is wholly object or not. And with points the other losses are what they are without."""
    batch = random_batch([2, 1])
    whole = torch.ones_like(batch.targets.masks)
    whole[1] = UNKNOWN
    batch = replace(batch, targets=replace(batch.targets, masks=whole))
    model = small_model().eval()
    output = model(batch.images, batch.sizes)
    batch = replace(batch, targets=replace(batch.targets, mask_boxes=torch.tensor([[-99.0, -99, 999, 999]] * 3)))
    monkeypatch.setattr(points, "unsure_points", lambda logits, number: centres(28).expand(len(logits), -1, -1))
    made = []
    for number in (0, 784):
        criterion = Criterion(CriterionConfig(mask_points=number, mask_entropy_weight=2.0, class_target=target))
        matches = criterion.match(output.stages, batch.targets, batch.sizes)
        drawn = list(model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels)))).values())
        made.append(criterion(output.stages, drawn, matches, batch.targets, batch.sizes))
    torch.testing.assert_close(made[0], made[1])


def test_masks_learn_from_points_and_boxes_do_not():
    model, batch = small_model(), random_batch([2, 0])
    output = model(batch.images, batch.sizes)
    criterion = Criterion(CriterionConfig(mask_points=50))
    matches = criterion.match(output.stages, batch.targets, batch.sizes)
    drawn = list(model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels)))).values())
    terms = criterion(output.stages, drawn, matches, batch.targets, batch.sizes)
    mask = terms[:, criterion.terms.index("mask")].sum()
    of_masks, of_boxes = torch.autograd.grad(mask, [drawn[0], output.stages[0].boxes], allow_unused=True)
    assert of_masks.isfinite().all()
    assert of_masks.any()
    assert not of_boxes.any(), "of the boxes only where they are, and that is no question of masks"


def test_a_batch_without_objects_has_no_points():
    model, batch = small_model(), random_batch([0, 0])
    output = model(batch.images, batch.sizes)
    criterion = Criterion(CriterionConfig(mask_points=50, mask_entropy_weight=1.0))
    matches = criterion.match(output.stages, batch.targets, batch.sizes)
    drawn = list(model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels)))).values())
    terms = criterion(output.stages, drawn, matches, batch.targets, batch.sizes)
    terms.sum().backward()
    assert terms.isfinite().all()
    assert not terms[:, criterion.terms.index("mask")].any()
