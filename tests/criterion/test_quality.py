"""Scores that tell how good a detection is: the loss for targets below one, and what these targets are."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import random_batch, small_model

from queryinst.criterion import losses
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.ops import boxes as box_ops
from queryinst.structures import UNKNOWN, Targets


def test_quality_focal_is_its_formula():
    logits, wanted = torch.randn(2, 1, 3, 4), torch.zeros(2, 1, 3, 4)
    wanted[:, 0, 1, 2] = 0.6
    p = logits.sigmoid()
    entropy = -(wanted * p.log() + (1 - wanted) * (1 - p).log())
    expected = torch.where(wanted > 0, 0.3, 0.7) * (wanted - p).abs() ** 1.5 * entropy
    torch.testing.assert_close(losses.quality_focal(logits, wanted, 0.3, 1.5), expected.sum(dim=(1, 2, 3)))


def test_quality_focal_of_ones_and_zeros_is_focal():
    logits, wanted = torch.randn(2, 3, 4, 5), (torch.rand(2, 3, 4, 5) < 0.3).float()
    torch.testing.assert_close(losses.quality_focal(logits, wanted, 0.3, 2.0), losses.focal(logits, wanted, 0.3, 2.0))


def test_it_is_least_where_the_score_is_the_target():
    wanted = torch.full((1, 1, 1, 1), 0.7)
    steps = torch.linspace(-3, 3, 601)
    found = torch.stack([losses.quality_focal(step.view(1, 1, 1, 1), wanted, 0.25, 2.0)[0] for step in steps])
    assert steps[found.argmin()].sigmoid().item() == pytest.approx(0.7, abs=0.01)


def test_cross_entropy_of_masks_joins_their_loss():
    model, batch = small_model().eval(), random_batch([2, 1])
    masks = batch.targets.masks.clone()
    masks[1] = UNKNOWN  # an object with a box alone
    batch = replace(batch, targets=replace(batch.targets, masks=masks))
    output = model(batch.images, batch.sizes)
    found, entropies = [], []
    for weight in (0.0, 3.0):
        criterion = Criterion(CriterionConfig(mask_entropy_weight=weight))
        matches = criterion.match(output.stages, batch.targets, batch.sizes)
        drawn = list(model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels)))).values())
        found.append(criterion(output.stages, drawn, matches, batch.targets, batch.sizes))
    stage = torch.arange(2)[:, None]
    boxes = torch.stack([one.boxes for one in output.stages])[stage, matches.image, matches.query]
    canvases = ((batch.sizes + 31) // 32 * 32)[matches.image].repeat(2, 1)
    wanted = losses.mask_targets(boxes.flatten(0, 1), matches.target.flatten(), batch.targets, canvases, 28, 2)
    wanted = wanted.view(2, -1, 28, 28)
    for logits, of_stage, target in zip(drawn, wanted, matches.target, strict=True):
        p = logits.sigmoid()
        each = -(of_stage * p.log() + (1 - of_stage) * (1 - p).log()).mean((1, 2))
        entropies.append(each[target != 1].sum() / 3)
    expected = found[0].clone()
    expected[:, 3] += 3 * torch.stack(entropies)
    torch.testing.assert_close(found[1], expected)


@pytest.mark.parametrize(
    ("kind", "loss"), [("one", losses.focal), ("box", losses.quality_focal), ("mask", losses.quality_focal)]
)
def test_the_loss_is_that_of_the_targets(kind: str, loss: Any):
    classification = Criterion(CriterionConfig(class_target=kind, focal_alpha=0.3, focal_gamma=1.5)).classification
    logits, wanted = torch.randn(2, 1, 3, 4), torch.rand(2, 1, 3, 4)
    assert torch.equal(classification(logits, wanted), loss(logits, wanted, 0.3, 1.5))


def test_iou_of_boxes():
    a = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 0, 0], [0, 0, 1, 1]])
    b = torch.tensor([[2.0, 0, 6, 4], [0, 0, 4, 4], [0, 0, 0, 0], [5, 5, 6, 6]])
    torch.testing.assert_close(box_ops.iou(a, b), torch.tensor([8 / 24, 1, 0, 0]))


def test_iou_of_masks_counts_what_of_the_object_is_outside_the_box():
    """An object of 8 x 8 pixels; the box has its left half, of which the upper half is drawn, and as much beside it."""
    region = torch.tensor([[0.0, 0, 8, 8]])
    targets = Targets(region, torch.tensor([0]), torch.ones(1, 4, 4, dtype=torch.uint8), region, [1])
    boxes = torch.tensor([[[-4.0, 0, 4, 8]]])  # half of it is beside the object
    wanted = torch.zeros(1, 1, 4, 4)
    wanted[..., 2:] = 1
    logits = torch.full((1, 1, 4, 4), -1.0)
    logits[:, :, :2] = 1
    found = losses.mask_iou(logits, wanted, boxes, torch.tensor([[0]]), targets)
    assert found.item() == pytest.approx(16 / (32 + 64 - 16))


def targets_of_scores(config: CriterionConfig, **changes: Any) -> tuple[torch.Tensor, ...]:
    """What the classification is asked for, with the boxes, masks and matches it is asked with."""
    model, batch = small_model().eval(), random_batch([2, 1])
    batch = replace(batch, targets=replace(batch.targets, **changes))
    criterion, seen = Criterion(config), list[torch.Tensor]()
    classification = criterion.classification

    def look(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        seen.append(wanted)
        return classification(logits, wanted)

    criterion.classification = look
    output = model(batch.images, batch.sizes)
    matches = criterion.match(output.stages, batch.targets, batch.sizes)
    drawn = model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels))))
    criterion(output.stages, list(drawn.values()), matches, batch.targets, batch.sizes)
    (wanted,) = seen
    stage = torch.arange(2)[:, None]
    labels = batch.targets.labels[matches.target]
    boxes = torch.stack([one.boxes for one in output.stages])[stage, matches.image, matches.query]
    overlap = box_ops.iou(boxes, batch.targets.boxes[matches.target])
    assert not wanted.requires_grad, "scores follow boxes, and boxes do not follow scores"
    assert wanted.count_nonzero() <= 6
    return wanted[stage, matches.image, matches.query, labels], overlap


def test_scores_are_asked_for_one_by_default():
    wanted, _ = targets_of_scores(CriterionConfig())
    assert (wanted == 1).all()


def test_scores_are_asked_for_the_overlap_of_boxes():
    wanted, overlap = targets_of_scores(CriterionConfig(class_target="box"))
    torch.testing.assert_close(wanted, overlap)
    assert 0 < wanted.max() < 1


def test_scores_are_asked_for_the_overlap_of_masks_and_of_boxes_where_no_mask_is_known():
    wanted, overlap = targets_of_scores(CriterionConfig(class_target="mask"))
    assert ((wanted >= 0) & (wanted <= 1)).all()
    assert not torch.allclose(wanted, overlap)
    masks = random_batch([2, 1]).targets.masks.clone()
    masks[:] = UNKNOWN
    wanted, overlap = targets_of_scores(CriterionConfig(class_target="mask"), masks=masks)
    torch.testing.assert_close(wanted, overlap)


@pytest.mark.parametrize("kind", ["box", "mask"])
@pytest.mark.parametrize("counts", [[2, 1], [0, 0]])
def test_every_parameter_gets_a_gradient(kind: str, counts: list[int]):
    model, batch = small_model(), random_batch(counts)
    criterion = Criterion(CriterionConfig(class_target=kind))
    output = model(batch.images, batch.sizes)
    matches = criterion.match(output.stages, batch.targets, batch.sizes)
    masks = model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels))))
    losses = criterion(output.stages, list(masks.values()), matches, batch.targets, batch.sizes)
    assert losses.isfinite().all()
    losses.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
