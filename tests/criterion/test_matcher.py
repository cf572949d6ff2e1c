"""Matching: a best assignment, per image and stage, whatever the order of queries."""

import itertools
from dataclasses import replace

import pytest
import torch
from conftest import random_targets
from torchvision.ops import generalized_box_iou

from queryinst.criterion.matcher import Matcher, NonFiniteError
from queryinst.criterion_config import CriterionConfig
from queryinst.structures import StageOutput

SIZES = torch.tensor([[64, 64], [64, 48]])


def stages(queries: int = 5, count: int = 2, seed: int = 0) -> list[StageOutput]:
    generator = torch.Generator().manual_seed(seed)

    def one() -> StageOutput:
        low = torch.rand(2, queries, 2, generator=generator) * 40
        boxes = torch.cat([low, low + 5 + torch.rand(2, queries, 2, generator=generator) * 20], -1)
        unused = torch.zeros(2, queries, 1)
        return StageOutput(torch.randn(2, queries, 3, generator=generator), boxes, unused, unused)

    return [one() for _ in range(count)]


@pytest.mark.parametrize("queries", [5, 2], ids=["enough queries", "more objects than queries"])
def test_it_is_the_cheapest_assignment(queries: int):
    matcher, targets, outputs = Matcher(CriterionConfig()), random_targets([3, 2]), stages(queries)
    costs, matches = matcher.costs(outputs, targets, SIZES), matcher(outputs, targets, SIZES)
    start = [0, 3]
    for stage, image in itertools.product(range(2), range(2)):
        of_image, count = matches.image == image, targets.counts[image]
        rows, columns = matches.query[stage][of_image], matches.target[stage][of_image] - start[image]
        fitting = min(queries, count)
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == len(rows) == fitting
        every = [
            costs[stage, image][list(some), list(others)].sum()
            for some in itertools.permutations(range(queries), fitting)
            for others in itertools.permutations(range(count), fitting)
        ]
        assert costs[stage, image][rows, columns].sum().item() == pytest.approx(min(every).item())


def test_scores_count_as_much_as_boxes_fit():
    """Stable-DINO, equation 9: the focal cost of p times a power of the generalized IoU, brought to 0..1."""
    targets, outputs = random_targets([3, 2]), stages()
    plain = CriterionConfig(l1_cost=0.0, giou_cost=0.0)
    costs = Matcher(replace(plain, class_cost_overlap=0.5)).costs(outputs, targets, SIZES)
    labels, boxes = targets.labels.split(targets.counts), targets.boxes.split(targets.counts)
    for stage, image in itertools.product(range(2), range(2)):
        overlap = (generalized_box_iou(outputs[stage].boxes[image], boxes[image]) + 1) / 2
        p = outputs[stage].logits[image].sigmoid()[:, labels[image]] * overlap.sqrt()
        expected = 2 * (0.25 * (1 - p) ** 2 * -p.log() - 0.75 * p**2 * -(1 - p).log())
        torch.testing.assert_close(costs[stage, image, :, : targets.counts[image]], expected)


def test_of_two_equal_scores_the_better_box_is_matched():
    targets = random_targets([1])
    boxes = torch.stack([targets.boxes[0] + 3, targets.boxes[0]])[None]
    outputs = [StageOutput(torch.ones(1, 2, 3), boxes, boxes, boxes)]
    matched = [
        Matcher(CriterionConfig(l1_cost=0.0, giou_cost=0.0, class_cost_overlap=power))(outputs, targets, SIZES[:1])
        for power in (0.0, 0.5)
    ]
    assert [matches.query.tolist() for matches in matched] == [[[0]], [[1]]]


@pytest.mark.parametrize("queries", [6, 4], ids=["enough queries", "fewer than asked for"])
def test_an_object_may_be_matched_several_times(queries: int):
    """The cheapest way to give each object twice its query, by trying all ways."""
    matcher, targets, outputs = Matcher(CriterionConfig()), random_targets([3, 1]), stages(queries)
    costs = matcher.costs(outputs, targets, SIZES)
    (matches,) = matcher.each([(outputs, 2)], targets, SIZES)
    for stage, image in itertools.product(range(2), range(2)):
        of_image, count, start = matches.image == image, targets.counts[image], [0, 3][image]
        rows, columns = matches.query[stage][of_image], matches.target[stage][of_image] - start
        fitting = min(queries, 2 * count)
        assert len(set(rows.tolist())) == len(rows) == fitting, "a query has one object"
        assert all(columns.tolist().count(place) <= 2 for place in range(count))
        assert set(columns.tolist()) <= set(range(count))
        every = [
            costs[stage, image][list(some), [place % count for place in others]].sum()
            for some in itertools.combinations(range(queries), fitting)
            for others in itertools.permutations(range(2 * count), fitting)
        ]
        assert costs[stage, image][rows, columns].sum().item() == pytest.approx(min(every).item())


def test_several_sets_of_queries_are_matched_each_for_itself():
    matcher, targets = Matcher(CriterionConfig()), random_targets([3, 2])
    sets = [(stages(5), 1), (stages(8, count=3, seed=1), 2), (stages(4, count=1, seed=2), 1)]
    for found, one in zip(matcher.each(sets, targets, SIZES), sets, strict=True):
        (expected,) = matcher.each([one], targets, SIZES)
        assert torch.equal(found.image, expected.image)
        assert torch.equal(found.query, expected.query)
        assert torch.equal(found.target, expected.target)


def test_permuting_the_queries_permutes_the_assignment():
    matcher, targets, outputs = Matcher(CriterionConfig()), random_targets([3, 2]), stages()
    order = torch.tensor([3, 0, 4, 1, 2])
    shuffled = [StageOutput(o.logits[:, order], o.boxes[:, order], o.queries, o.mask_queries) for o in outputs]
    plain, moved = matcher(outputs, targets, SIZES), matcher(shuffled, targets, SIZES)
    for stage in range(2):
        back = dict(zip(moved.target[stage].tolist(), order[moved.query[stage]].tolist(), strict=True))
        assert back == dict(zip(plain.target[stage].tolist(), plain.query[stage].tolist(), strict=True))


@pytest.mark.parametrize("counts", [[0, 0], [0, 3], [2, 0]])
def test_images_without_ground_truth(counts: list[int]):
    matches = Matcher(CriterionConfig())(stages(), random_targets(counts), SIZES)
    assert matches.query.shape == matches.target.shape == (2, sum(counts))
    assert matches.image.tolist() == [0] * counts[0] + [1] * counts[1]


def test_more_ground_truths_than_queries_matches_what_fits():
    matches = Matcher(CriterionConfig())(stages(queries=2), random_targets([5, 1]), SIZES)
    assert matches.query.shape == (2, 3)
    assert all(sorted(row[:2].tolist()) == [0, 1] for row in matches.query)


def test_each_image_is_matched_as_if_alone():
    matcher, outputs = Matcher(CriterionConfig()), stages()
    both = matcher(outputs, random_targets([3, 2]), SIZES)
    targets = random_targets([3, 2])
    alone = matcher(
        [StageOutput(o.logits[1:], o.boxes[1:], o.queries[1:], o.mask_queries[1:]) for o in outputs],
        type(targets)(targets.boxes[3:], targets.labels[3:], targets.masks[3:], targets.mask_boxes[3:], [2]),
        SIZES[1:],
    )
    assert torch.equal(both.query[:, both.image == 1], alone.query)


def test_nan_names_stage_and_image():
    outputs = stages()
    outputs[1].boxes[1, 2] = float("nan")
    with pytest.raises(NonFiniteError) as caught:
        Matcher(CriterionConfig())(outputs, random_targets([3, 2]), SIZES)
    assert (str(caught.value), caught.value.image) == ("stage 2 gives NaN or infinite boxes", 1)


def test_boxes_too_large_for_float32_are_no_fault_of_a_value():
    """Every value is finite; the area of the box is not."""
    outputs = stages()
    outputs[0].boxes[1, 2] = torch.tensor([0.0, 0, 1e30, 1e30])
    with pytest.raises(NonFiniteError) as caught:
        Matcher(CriterionConfig())(outputs, random_targets([3, 2]), SIZES)
    assert str(caught.value) == "the matching costs of finite outputs are NaN or infinite"
    assert caught.value.image == 1
