"""Which place answers for which object, what it learns, and that it does learn it."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import random_batch, random_targets, small_model
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from queryinst.criterion import proposals
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.lightning import groups
from queryinst.models.pyramid_proposals import PyramidProposals
from queryinst.ops import boxes as box_ops
from queryinst.structures import Candidates, Output, Targets


def row_of_places(
    objects: list[list[float]], logits: list[float], boxes: list[list[float]]
) -> tuple[Candidates, Targets]:
    """One image of 100 x 10 pixels, its places side by side from x = 5 on, 10 pixels apart."""
    number = len(logits)
    places = torch.tensor([[10.0 * k + 5, 5.0] for k in range(number)])
    inside = torch.ones(1, number, dtype=torch.bool)
    candidates = Candidates(torch.tensor([logits]), torch.tensor([boxes]), places, inside)
    return candidates, replace(random_targets([len(objects)]), boxes=torch.tensor(objects).view(-1, 4))


def suits(logit: float, box: Tensor, wanted: Tensor) -> float:
    return float(torch.tensor(logit).sigmoid() ** 0.2 * box_ops.iou(box, wanted) ** 0.8)


def test_the_assignment_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        objects = [[x, 0.0, x + w, 10.0] for x, w in zip(rng.uniform(0, 30, 3), rng.uniform(20, 60, 3), strict=True)]
        logits = rng.normal(0, 2, 6).tolist()
        boxes = [[x, 0.0, x + w, 10.0] for x, w in zip(rng.uniform(0, 50, 6), rng.uniform(10, 50, 6), strict=True)]
        candidates, targets = row_of_places(objects, logits, boxes)
        image, place, target = proposals.assign(candidates, targets)
        assert image.tolist() == [0] * len(image)
        value = {
            (k, g): suits(logits[k], candidates.boxes[0, k], targets.boxes[g])
            for k, g in itertools.product(range(6), range(3))
            if objects[g][0] < 10 * k + 5 < objects[g][2]
        }
        best = max(
            sum(value.get((k, g), -1.0) for g, k in enumerate(chosen)) for chosen in itertools.permutations(range(6), 3)
        )
        assert sum(value[pair] for pair in zip(place.tolist(), target.tolist(), strict=True)) == pytest.approx(best)


def test_places_outside_of_an_object_or_of_the_image_never_answer_for_it():
    wide = [[0.0, 0.0, 100.0, 10.0]] * 4
    candidates, targets = row_of_places([[11.0, 0.0, 14.0, 10.0], [22.0, 0.0, 40.0, 10.0]], [0.0, 0.0, 0.0, 9.0], wide)
    assert proposals.assign(candidates, targets).tolist() == [[0], [3], [1]], "the first lies between all places"
    inside = torch.tensor([[True, True, True, False]])
    assert proposals.assign(candidates._replace(inside=inside), targets).tolist() == [[0], [2], [1]]


def test_targets_are_counted_over_the_batch_and_an_image_without_objects_has_none():
    wide = torch.tensor([0.0, 0.0, 100.0, 10.0]).expand(3, 4, 4)
    places = torch.tensor([[5.0, 5.0], [15.0, 5.0], [25.0, 5.0], [35.0, 5.0]])
    candidates = Candidates(torch.zeros(3, 4), wide, places, torch.ones(3, 4, dtype=torch.bool))
    targets = replace(random_targets([1, 0, 1]), boxes=torch.tensor([[0.0, 0, 10, 10], [30.0, 0, 40, 10]]))
    assert proposals.assign(candidates, targets).tolist() == [[0, 2], [0, 3], [0, 1]]


def test_numbers_that_are_none_are_nobodys():
    nan = float("nan")
    candidates, targets = row_of_places([[0.0, 0.0, 20.0, 10.0]], [nan, 0.0], [[0.0, 0.0, 20.0, 10.0]] * 2)
    assert proposals.assign(candidates, targets).tolist() == [[0], [1], [0]]


def test_the_losses_spelled_out():
    boxes = [[0.0, 0.0, 20.0, 10.0], [5.0, 0.0, 25.0, 10.0], [0.0, 0.0, 1.0, 1.0]]
    candidates, targets = row_of_places([[0.0, 0.0, 15.0, 10.0], [10.0, 0.0, 30.0, 10.0]], [0.5, -1.0, 2.0], boxes)
    pairs = torch.tensor([[0, 0], [0, 1], [0, 1]])
    class_loss, giou_loss = proposals.losses(candidates, pairs, targets)
    wanted = torch.tensor([[1.0, 1.0, 0.0]])
    torch.testing.assert_close(class_loss, sigmoid_focal_loss(candidates.logits, wanted, 0.25, 2.0).sum() / 2)
    torch.testing.assert_close(giou_loss, torch.tensor(2 * (1 - 15 / 20 + 1 - 15 / 25) / 2))
    less = candidates._replace(inside=torch.tensor([[True, True, False]]))
    outside = sigmoid_focal_loss(candidates.logits, wanted, 0.25, 2.0)[0, 2] / 2
    torch.testing.assert_close(proposals.losses(less, pairs, targets)[0], class_loss - outside)


def test_without_objects_all_places_learn_that_there_are_none():
    candidates, targets = row_of_places([], [0.0, 1.0], [[0.0, 0.0, 20.0, 10.0]] * 2)
    pairs = proposals.assign(candidates, targets)
    assert pairs.shape == (3, 0)
    class_loss, giou_loss = proposals.losses(candidates, pairs, targets)
    torch.testing.assert_close(class_loss, sigmoid_focal_loss(candidates.logits, torch.zeros(1, 2), 0.25, 2.0).sum())
    assert giou_loss == 0


@pytest.mark.parametrize("counts", [[2, 1], [0, 0]])
def test_a_step_has_a_row_for_them_and_every_parameter_learns(counts: list[int]):
    torch.manual_seed(0)
    model, batch, criterion = small_model(proposals="pyramid"), random_batch(counts), Criterion(CriterionConfig())
    output = model(batch.images, batch.sizes)
    assigned = groups.match(criterion, [], output, batch)
    losses = groups.judge(model, criterion, [], output, assigned, batch).losses
    assert output.candidates
    assert assigned.proposals is not None
    made = proposals.losses(output.candidates, assigned.proposals, batch.targets)
    assert losses[2].tolist() == [made[0].item(), 0, made[1].item(), 0]
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in model.queries.parameters())


def test_proposals_find_the_objects_of_an_image_that_was_learned():
    torch.manual_seed(0)
    batch = random_batch([3])
    model = small_model(proposals="pyramid")
    assert isinstance(model.queries, PyramidProposals)
    adamw = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for _ in range(120):
        maps = model.pyramid(model.normalise(batch.images, batch.sizes))
        boxes, _, candidates = model.propose(maps, batch.sizes)
        assert candidates
        adamw.zero_grad()
        sum(proposals.losses(candidates, proposals.assign(candidates, batch.targets), batch.targets)).backward()
        adamw.step()
    fit = box_ops.iou(boxes[0, :, None], batch.targets.boxes)
    assert fit[:3].amax(0).min() > 0.7, "the three best places, one for each"
    assert isinstance(model(batch.images, batch.sizes), Output)
