"""How settled the assignment of queries to objects is, from stage to stage and from evaluation to evaluation."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from queryinst.criterion.matcher import Matcher, NonFiniteError
from queryinst.lightning.module import QueryInstModule
from queryinst.ops.ranks import of_all_ranks
from queryinst.structures import Batch, Matches

STABILITY_IMAGES = 100  # first images of the validation set that are matched


class MatchingStability(pl.Callback):
    """Logs, of the objects of some validation images, the share that another query is matched with.

    `val/query_change/stage_k` compares stage k with stage k-1, `val/query_change/evaluation` the last stage with
    itself at the evaluation before. An object without a query, where there are more objects than queries, counts as one
    whose query is "none".

    Args:
        matcher: that of the criterion.
        image_ids: the images.
    """

    def __init__(self, matcher: Matcher, image_ids: Sequence[int]) -> None:
        self.matcher, self.image_ids = matcher, set(image_ids)
        self.queries: dict[int, Tensor] = {}  # of each image, (S, objects) int64, -1: none; of the evaluation going on
        self.previous: dict[int, Tensor] = {}  # of the one before

    def state_dict(self) -> dict[str, Any]:
        return {"previous": self.previous}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.previous = state_dict["previous"]

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.queries = {}

    def on_validation_batch_end(  # type: ignore[override]  # it looks at the stages
        self,
        trainer: pl.Trainer,
        pl_module: QueryInstModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if trainer.state.fn != "fit" or not self.image_ids.intersection(batch.image_ids):
            return
        try:
            matches = self.matcher(pl_module.stages, batch.targets, batch.sizes)
        except NonFiniteError:
            return  # the module says so, on all processes together
        found = zip(batch.image_ids, by_image(matches, batch.targets.counts), strict=True)
        self.queries |= {image_id: queries for image_id, queries in found if image_id in self.image_ids}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        queries = of_all_ranks(self.queries)
        pl_module.log_dict(changes(queries, self.previous))
        self.previous = queries


def by_image(matches: Matches, counts: list[int]) -> list[Tensor]:
    """The query of every object at every stage: for each image (S, objects) int64 on the CPU, -1 where it has none."""
    queries = torch.full((len(matches.query), sum(counts)), -1)
    queries.scatter_(1, matches.target.cpu(), matches.query.cpu())
    return list(queries.split(counts, dim=1))


def changes(queries: dict[int, Tensor], previous: dict[int, Tensor]) -> dict[str, Tensor]:
    """The shares by metric name; those with nothing to compare are left out."""
    metrics: dict[str, Tensor] = {}
    now = torch.cat(list(queries.values()), dim=1) if queries else torch.zeros(0, 0)
    if not now.numel():
        return metrics
    for stage, (earlier, later) in enumerate(itertools.pairwise(now), 2):
        metrics[f"val/query_change/stage_{stage}"] = (earlier != later).float().mean()
    both = [key for key in queries if key in previous]
    pairs = [(queries[key][-1], previous[key][-1]) for key in both]
    if sum(len(one) for one, _ in pairs):
        one, other = (torch.cat(part) for part in zip(*pairs, strict=True))
        metrics["val/query_change/evaluation"] = (one != other).float().mean()
    return metrics
