"""Stages whose objects are matched with several queries, and not with as many in each."""

import pytest
import torch
from conftest import random_batch, small_model
from test_groups_of_a_step import still
from torch import Tensor

from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.lightning import groups
from queryinst.models.groups import Group
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Batch, Output


def judged(model: QueryInst, batch: Batch, numbers: list[int]) -> tuple[Output, groups.Assigned, groups.Judged]:
    criterion = Criterion(CriterionConfig(matches_per_object=numbers))
    output = model(batch.images, batch.sizes)
    assigned = groups.match(criterion, [], output, batch)
    return output, assigned, groups.judge(model, criterion, [], output, assigned, batch)


def alone(model: QueryInst, batch: Batch, stage: int, number: int) -> Tensor:
    """The losses of a stage, as if the network had no other."""
    criterion = Criterion(CriterionConfig())
    whole = model(batch.images, batch.sizes)
    output = Output(whole.pyramid, [whole.stages[stage]], [stage])
    (matches,) = criterion.match.each([(output.stages, number)], batch.targets, batch.sizes)
    masks = list(model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels)))).values())
    return criterion(output.stages, masks, matches, batch.targets, batch.sizes)[0]


def test_each_stage_has_as_many_matches_as_it_is_given():
    model, batch = still(small_model(num_stages=3)), random_batch([2, 1])
    _, assigned, found = judged(model, batch, [3, 1, 2])
    assert [len(matches.image) for matches in assigned.own] == [9, 3, 6]
    assert [tuple(masks.shape) for masks in found.masks] == [(9, 28, 28), (3, 28, 28), (6, 28, 28)]
    assert all(torch.equal(images, own.image) for images, own in zip(found.images, assigned.own, strict=True))
    for stage, number in enumerate([3, 1, 2]):
        torch.testing.assert_close(found.losses[stage], alone(model, batch, stage, number))


@pytest.mark.parametrize("counts", [[2, 1], [0, 0], [0, 3]])
def test_one_in_each_is_what_is_published(counts: list[int]):
    model, batch = still(small_model()), random_batch(counts)
    torch.testing.assert_close(judged(model, batch, [1, 1])[2].losses, judged(model, batch, [])[2].losses)


def test_groups_are_matched_beside_them_as_they_ask():
    model, batch = still(small_model()), random_batch([2, 1])
    criterion = Criterion(CriterionConfig(matches_per_object=[2, 1]))
    asked = [Group("recollection", None)]
    output = model(batch.images, batch.sizes, asked)
    assigned = groups.match(criterion, asked, output, batch)
    assert [len(matches.image) for matches in assigned.own] == [6, 3]
    assert [tuple(matches.query.shape) for matches in assigned.groups] == [(1, 3)]
    losses = groups.judge(model, criterion, asked, output, assigned, batch).losses
    assert losses.shape == (3, 4)
    losses.sum().backward()
