"""Groups of further queries: they pass the same stages, see themselves alone, and change nothing for the network."""

from dataclasses import replace

import pytest
import torch
from conftest import random_batch, small_model
from torch import Tensor, nn

from queryinst.models.groups import NOTHING, Group, Start
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Rows, StageOutput

NAMES = ("logits", "boxes", "queries", "mask_queries")
BATCH = random_batch([2, 1])
RECOLLECTION = Group("recollection", None)


def start(number: int, parts: list[list[int]] | None = None) -> Start:
    """Queries at random places of both images; those of one part see one another."""
    corners = torch.rand(2, number, 2) * 40
    boxes = torch.cat([corners, corners + 8 + torch.rand(2, number, 2) * 16], 2)
    part = torch.tensor(parts) if parts else torch.zeros(2, number)
    return Start(boxes, torch.randn(2, number, 16), part[:, :, None] != part[:, None] if parts else None)


def require_close(ours: StageOutput, theirs: StageOutput) -> None:
    for name in NAMES:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-3, atol=1e-3)


def alone(model: QueryInst, begins: Start) -> list[StageOutput]:
    """What the stages make of these queries where there are no others."""
    pyramid = model.pyramid(model.normalise(BATCH.images, BATCH.sizes))
    boxes, queries, made = begins.boxes, begins.queries, []
    for stage in model.stages:
        made.append(model.run(stage, pyramid, queries, boxes))
        boxes, queries = made[-1].boxes.detach(), made[-1].queries
    return made


@pytest.mark.parametrize(
    "others",
    [[Group("a", start(5))], [Group("a", start(4, [[0, 0, 1, 1], [0, 1, 1, 1]])), RECOLLECTION], [RECOLLECTION]],
)
def test_the_networks_own_queries_get_what_they_get_without_others(others: list[Group]):
    model = small_model(num_stages=3).eval()
    plain, together = model(BATCH.images, BATCH.sizes), model(BATCH.images, BATCH.sizes, others)
    assert not plain.groups
    assert [len(stage.boxes[0]) for stage in together.stages] == [6, 6, 6]
    for ours, theirs in zip(together.stages, plain.stages, strict=True):
        require_close(ours, theirs)


def test_each_group_gets_what_it_would_get_alone():
    model = small_model(num_stages=3).eval()
    begun = [start(5), start(3)]
    groups = model(BATCH.images, BATCH.sizes, [Group(str(n), one) for n, one in enumerate(begun)]).groups
    for own, one in zip(groups, begun, strict=True):
        assert own.numbers == [0, 1, 2]
        for ours, theirs in zip(own.stages, alone(model, one), strict=True):
            require_close(ours, theirs)


def test_parts_of_a_group_see_themselves_alone():
    """And each image has parts of its own."""
    model = small_model().eval()
    parts = [[0, 0, 1, 1, 1], [0, 1, 2, 1, 0]]
    begun = start(5, parts)
    (group,) = model(BATCH.images, BATCH.sizes, [Group("a", begun)]).groups
    for image, numbers in enumerate(parts):
        for part in set(numbers):
            those = [place for place, number in enumerate(numbers) if number == part]
            one = alone(model, Start(begun.boxes[:, those], begun.queries[:, those]))
            for ours, theirs in zip(group.stages, one, strict=True):
                for name in NAMES:
                    found, expected = getattr(ours, name)[image, those], getattr(theirs, name)[image]
                    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_recollected_queries_leave_out_a_stage():
    """SQR, figure 3: 1, 2, 3 and 5 sets of queries in stages 1 to 4, of which the first set is the network's own."""
    model = small_model(num_stages=4).eval()
    output = model(BATCH.images, BATCH.sizes, [RECOLLECTION])
    (group,) = output.groups
    assert group.numbers == [1, 2, 2, 3, 3, 3, 3]
    pyramid, stages = output.pyramid, model.stages
    boxes, queries = model.queries(BATCH.sizes)
    zero = model.run(stages[0], pyramid, queries, boxes)
    skipped = model.run(stages[1], pyramid, queries, boxes)  # the first stage is left out
    require_close(group.stages[0], skipped)
    second = model.run(stages[2], pyramid, skipped.queries, skipped.boxes)
    again = model.run(stages[2], pyramid, zero.queries, zero.boxes)  # the second one is
    require_close(group.stages[1], second)
    require_close(group.stages[2], again)
    one = model.run(stages[1], pyramid, zero.queries, zero.boxes)
    paths = [second, again, one, skipped]  # each by the last stage it has been through, which was 3, 3, 2 and 2
    for found, last in zip(group.stages[3:], paths, strict=True):
        require_close(found, model.run(stages[3], pyramid, last.queries, last.boxes))


def test_masks_of_a_group_are_drawn_by_the_stages_it_went_through():
    model = small_model(num_stages=3).eval()
    output = model(BATCH.images, BATCH.sizes, [RECOLLECTION])
    (group,) = output.groups
    one = torch.zeros(1, dtype=torch.int64)
    rows = {index: Rows(one, one, one) for index in range(3)}
    for index, drawn in model.predict_masks(group, rows).items():
        number = [1, 2, 2][index]
        stage = group.stages[index]
        region = output.pyramid.align(stage.boxes[0, :1], one, 14)
        head = model.stages[number].mask
        torch.testing.assert_close(drawn, head.classify(head(stage.mask_queries[0, :1], region), one))


def test_nobody_learns_from_absent_queries():
    model = small_model().eval()
    absent = torch.tensor([[False, True], [False, False]])
    (group,) = model(BATCH.images, BATCH.sizes, [Group("a", replace(start(2), absent=absent))]).groups
    for stage in group.stages:
        assert (stage.logits[0, 1] == NOTHING).all()
        assert (stage.logits[1, 1] != NOTHING).all()


def test_a_group_may_be_empty():
    output = small_model()(BATCH.images, BATCH.sizes, [Group("a", start(0))])
    assert [stage.logits.shape for stage in output.groups[0].stages] == [(2, 0, 3)] * 2


def test_boxes_are_detached_between_stages_and_queries_are_not():
    model = small_model(num_stages=2).eval()
    begun = start(2)
    queries = begun.queries.requires_grad_()
    (group,) = model(BATCH.images, BATCH.sizes, [Group("a", begun)]).groups
    group.stages[1].boxes.sum().backward()
    assert queries.grad is not None
    assert queries.grad.abs().sum() > 0
    reg = model.stages[0].box.reg
    assert isinstance(reg, nn.Linear)
    assert reg.weight.grad is None, "the boxes of stage 1 are where stage 2 looks, and no more"


def test_own_heads_need_not_know_of_groups_where_there_are_none():
    class Plain(nn.Module):
        def forward(self, queries: Tensor, regions: Tensor, boxes: Tensor) -> StageOutput:
            return StageOutput(queries[..., :3], boxes, queries, queries)

    model = small_model()
    for stage in model.stages:
        stage.box = Plain()  # type: ignore[assignment]
    assert len(model(BATCH.images, BATCH.sizes).stages) == 2
