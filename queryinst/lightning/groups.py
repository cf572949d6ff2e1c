"""Between network and criterion: which stages are matched alike, and groups of further queries, matched as they ask."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from queryinst.criterion import proposals
from queryinst.criterion.criterion import Criterion
from queryinst.models.groups import Group
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Batch, Matches, Output, Rows


class Assigned(NamedTuple):
    """Who is matched with what: of each of the `parts` of the network's own queries, and of each group."""

    own: list[Matches]
    groups: list[Matches]
    proposals: Tensor | None  # of `criterion.proposals.assign`, where they come from the pyramid


class Judged(NamedTuple):
    """What a step comes to."""

    losses: Tensor  # (S + groups, columns): a row a stage, then one a group, summed over its stages and weighted; and
    # last, where there are some, one of proposals
    masks: list[Tensor]  # of each stage (M, s, s), drawn for the network's own matched queries
    images: list[Tensor]  # (M,) of each stage: the image of each mask


def parts(criterion: Criterion, output: Output) -> list[Output]:
    """The stages of an output that are matched alike, so that all of theirs is computed at once: all, or one by one."""
    if not criterion.config.matches_per_object:
        return [output]
    return [Output(output.pyramid, [stage], [number]) for number, stage in enumerate(output.stages)]


def match(criterion: Criterion, groups: Sequence[Group], output: Output, batch: Batch) -> Assigned:
    """Assign, and wait for the device once; for proposals of the pyramid, once more an image. Raises NonFiniteError."""
    own_parts, times = parts(criterion, output), criterion.config.matches_per_object or [1]
    sets = [(part.stages, number) for part, number in zip(own_parts, times, strict=True)]
    sets += [(own.stages, group.times) for group, own in _pairs(groups, output) if group.given is None]
    made = criterion.match.each(sets, batch.targets, batch.sizes)
    solved = iter(made[len(own_parts) :])
    of_groups = [
        next(solved) if group.given is None else _repeated(group.given, len(own.stages))
        for group, own in _pairs(groups, output)
    ]
    candidates = output.candidates
    chosen = None if candidates is None else proposals.assign(candidates, batch.targets)
    return Assigned(made[: len(own_parts)], of_groups, chosen)


def _pairs(groups: Sequence[Group], output: Output) -> list[tuple[Group, Output]]:
    return list(zip(groups, output.groups, strict=True))


def _repeated(given: Matches, stages: int) -> Matches:
    """The same matches in each stage."""
    return replace(given, query=given.query.expand(stages, -1), target=given.target.expand(stages, -1))


def judge(
    model: QueryInst,
    criterion: Criterion,
    groups: Sequence[Group],
    output: Output,
    assigned: Assigned,
    batch: Batch,
) -> Judged:
    """Draw what was matched, and compute every loss."""
    rows: list[Tensor] = []
    drawn: list[Tensor] = []
    images: list[Tensor] = []
    for part, matches in zip(parts(criterion, output), assigned.own, strict=True):
        wanted = dict(enumerate(matches.rows(batch.targets.labels)))
        masks, guesses = _drawn(model, part, wanted)
        embeddings = list(model.embed(part, wanted).values())
        rows.append(criterion(part.stages, masks, matches, batch.targets, batch.sizes, embeddings, guesses))
        drawn, images = drawn + masks, images + [matches.image] * len(masks)
    columns = rows[0].shape[1]
    for (group, own), matches in zip(_pairs(groups, output), assigned.groups, strict=True):
        wanted = dict(enumerate(matches.rows(batch.targets.labels))) if group.masks else {}
        masks, guesses = _drawn(model, own, wanted)
        made = criterion(own.stages, masks, matches, batch.targets, batch.sizes, (), guesses).sum(0, keepdim=True)
        rows.append(group.weight * F.pad(made, (0, columns - made.shape[1])))  # they have no association heads
    if output.candidates is not None and assigned.proposals is not None:
        told = dict(
            zip(("class", "giou"), proposals.losses(output.candidates, assigned.proposals, batch.targets), strict=True)
        )
        nothing = rows[0].new_zeros(())
        rows.append(torch.stack([told.get(term, nothing) for term in criterion.terms[:columns]])[None])
    return Judged(torch.cat(rows), drawn, images)


def _drawn(model: QueryInst, output: Output, rows: dict[int, Rows]) -> tuple[list[Tensor], list[Tensor]]:
    """The masks of each stage, and where the model guesses how good they are, that."""
    drawn = model.draw(output, rows).values()
    return [one.logits for one in drawn], [one.quality for one in drawn if one.quality is not None]
