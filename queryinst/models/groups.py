"""Groups of further queries, in training only: beside the network's own, through the same stages, each for itself.

Denoising, a one-to-many branch and recollection differ in where queries come from and how they are matched. That is a
`Group`; all the rest, here, is the same for each. At test there are none, and `QueryInst.query` runs as it is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from queryinst.ops.roi import FeaturePyramid
from queryinst.structures import Matches, Output, Sight, StageOutput

if TYPE_CHECKING:
    from queryinst.models.queryinst import QueryInst

NOTHING = -30.0  # a logit that no classification loss minds: e^-30 is no score


@dataclass(frozen=True)
class Start:
    """Queries that a group enters the first stage with."""

    boxes: Tensor  # (B, n, 4) xyxy pixels
    queries: Tensor  # (B, n, d)
    hidden: Tensor | None = None  # as of `Sight`: they see one another by default, and never those of another group
    absent: Tensor | None = None  # (B, n) bool: only there because another image of the batch has more


@dataclass(frozen=True)
class Group:
    """Further queries: where they come from, what they are to find, and how much that counts."""

    name: str  # in the logs
    start: Start | None  # None: they are recollected from the network's own
    times: int = 1  # that each object is matched with a query
    given: Matches | None = None  # who finds what, the same in each stage (`query` and `target` (1, M)): no matching
    masks: bool = True  # whether theirs are drawn
    weight: float = 1.0


@dataclass(frozen=True)
class Lane:
    """Queries on their way: what of a group enters a stage."""

    owner: int  # place of the group; 0 is the network's own
    boxes: Tensor
    queries: Tensor
    hidden: Tensor | None = None
    absent: Tensor | None = None
    fresh: bool = True  # the stage before made them, or they are proposals that enter the first one


def side_by_side(model: QueryInst, pyramid: FeaturePyramid, sizes: Tensor, groups: Sequence[Group]) -> Output:
    """What `QueryInst.query` does, for its own queries and those of `groups`: laid side by side along N.

    Each gets what it would get alone. RoIAlign and all layers but self-attention run once for all of them.

    Returns:
        the output of the own, with those of the groups, in their order, in `groups`.
    """
    boxes, queries, candidates = model.propose(pyramid, sizes)
    lanes = [Lane(0, boxes, queries)]
    for owner, group in enumerate(groups, 1):
        if group.start:
            lanes.append(Lane(owner, **vars(group.start)))
    recollecting = [owner for owner, group in enumerate(groups, 1) if group.start is None]
    made: list[list[StageOutput]] = [[] for _ in (None, *groups)]
    numbers: list[list[int]] = [[] for _ in made]
    for number, stage in enumerate(model.stages):
        boxes, queries = (torch.cat([getattr(lane, name) for lane in lanes], dim=1) for name in ("boxes", "queries"))
        sights = [Sight(lane.boxes.shape[1], lane.hidden) for lane in lanes]
        output = model.run(stage, pyramid, queries, boxes, sights)
        leaving = []
        for lane, part in zip(lanes, _split(output, [sight.number for sight in sights]), strict=True):
            made[lane.owner].append(part if lane.absent is None else _without(part, lane.absent))
            numbers[lane.owner].append(number)
            leaving.append(replace(lane, boxes=model.onward(part, lane.boxes), queries=part.queries, fresh=True))
        # SQR, section 3.3: what a stage was given, and the stage before it had made, the next one is given too.
        again = [lane for lane in lanes if lane.fresh and lane.owner in (0, *recollecting)]
        lanes = leaving + [replace(lane, owner=owner, fresh=False) for owner in recollecting for lane in again]
    outputs = [Output(pyramid, stages, numbers=of) for stages, of in zip(made, numbers, strict=True)]
    return replace(outputs[0], groups=outputs[1:], candidates=candidates)


def _split(output: StageOutput, counts: list[int]) -> list[StageOutput]:
    """The output of each of several sets of queries that lie side by side."""
    made = {name: value.split(counts, dim=1) for name, value in vars(output).items() if value is not None}
    return [StageOutput(**{name: parts[place] for name, parts in made.items()}) for place in range(len(counts))]


def _without(output: StageOutput, absent: Tensor) -> StageOutput:
    """The same where queries are absent (B, n): nobody learns from their classes."""
    return replace(output, logits=output.logits.masked_fill(absent[..., None], NOTHING))
