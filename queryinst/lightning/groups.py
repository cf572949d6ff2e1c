"""Groups of further queries between network and criterion: matched as they ask, then judged as the network's own."""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from queryinst.criterion.criterion import Criterion
from queryinst.models.groups import Group
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Batch, Matches, Output


def match(criterion: Criterion, groups: Sequence[Group], output: Output, batch: Batch) -> list[Matches]:
    """The assignment of the network's own queries and then of each group. Raises NonFiniteError."""
    asking = [(own.stages, group.times) for group, own in _pairs(groups, output) if group.given is None]
    made = criterion.match.each([(output.stages, 1), *asking], batch.targets, batch.sizes)
    solved = iter(made[1:])
    return made[:1] + [
        next(solved) if group.given is None else _repeated(group.given, len(own.stages))
        for group, own in _pairs(groups, output)
    ]


def _pairs(groups: Sequence[Group], output: Output) -> list[tuple[Group, Output]]:
    return list(zip(groups, output.groups, strict=True))


def _repeated(given: Matches, stages: int) -> Matches:
    """The same matches in each stage."""
    return replace(given, query=given.query.expand(stages, -1), target=given.target.expand(stages, -1))


def losses(
    model: QueryInst,
    criterion: Criterion,
    groups: Sequence[Group],
    output: Output,
    matches: Sequence[Matches],
    batch: Batch,
    columns: int,
) -> Tensor:
    """(groups, columns): those of the criterion, summed over the stages of a group, times its weight."""
    rows = []
    for (group, own), matched in zip(_pairs(groups, output), matches, strict=True):
        wanted = dict(enumerate(matched.rows(batch.targets.labels))) if group.masks else {}
        masks = list(model.predict_masks(own, wanted).values())
        made = criterion(own.stages, masks, matched, batch.targets, batch.sizes).sum(0)
        rows.append(group.weight * F.pad(made, (0, columns - len(made))))  # they have no association heads
    return torch.stack(rows)
