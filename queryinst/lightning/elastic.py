"""One trained model at every depth: average precision against cost for fewer stages and fewer proposals."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from queryinst.config import PostprocessConfig
from queryinst.errors import UserError
from queryinst.evaluation.coco import CocoEvaluator
from queryinst.lightning.broken import fault_of
from queryinst.lightning.module import QueryInstModule
from queryinst.models.cost import flops, seconds
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.structures import COUNTED, Batch, Detections
from queryinst.visualize import plots


class Setting(NamedTuple):
    """How much of a trained model is run."""

    stages: int
    proposals: int  # that go on after the first stage


class ElasticModule(QueryInstModule):
    """Evaluates a QueryInst with 1..S stages times several numbers of proposals. One device.

    Args:
        model: the network.
        content: of the annotation file.
        proposals: how many go on after the first stage.
        postprocess: how detections are made.
        backend, max_detections: as of `CocoEvaluator`.
    """

    def __init__(
        self,
        model: QueryInst,
        content: dict[str, Any],
        proposals: Sequence[int],
        postprocess: PostprocessConfig,
        backend: str,
        max_detections: int = COUNTED,
    ) -> None:
        super().__init__(model, {}, postprocess)
        every = model.queries.number
        # One stage has the same detections whatever goes on after it.
        self.grid = {
            Setting(stages, number): CocoEvaluator(content, backend, max_detections=max_detections)
            for stages in range(1, len(model.stages) + 1)
            for number in (sorted(proposals, reverse=True) if stages > 1 else [every])
        }
        self.rows: list[dict[str, float]] = []

    def on_validation_epoch_start(self) -> None:
        for evaluator in self.grid.values():
            evaluator.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Detections]:  # type: ignore[override]
        if batch.problems:
            raise UserError(batch.problems[0])
        pyramid = self.model.pyramid(self.model.normalise(batch.images, batch.sizes))
        found: list[Detections] = []
        for number in sorted({setting.proposals for setting in self.grid}):
            output = self.model.query(pyramid, batch.sizes, proposals=number)
            for setting in (setting for setting in self.grid if setting.proposals == number):
                stage = setting.stages - 1
                found = detect(self.model, output, batch.sizes, batch.original_sizes, self.postprocess, stage)
                fault = fault_of(found, batch.image_ids, setting.stages)
                if fault:
                    raise fault
                self.grid[setting].update(batch.image_ids, found)
        return found

    def on_validation_epoch_end(self) -> None:
        self.rows = []
        for setting, evaluator in self.grid.items():
            metrics = evaluator.compute()
            kept = {name: metrics[name] for name in metrics if "/" not in name}
            self.rows.append({**setting._asdict(), **kept})

    def add_cost(self, side: int) -> None:
        """Add `gflops` and `seconds_per_image` of a square image to the rows."""
        for row in self.rows:
            how = {"stages": int(row["stages"]), "proposals": int(row["proposals"])}
            row["gflops"] = flops(self.model, side, side, **how) / 1e9
            row["seconds_per_image"] = seconds(self.model, self.postprocess, side, side, **how)


def table(rows: Sequence[dict[str, float]]) -> str:
    """The rows as text, those that nothing cheaper beats marked."""
    lines = [f"{'stages':>6}{'proposals':>11}{'mask AP':>9}{'box AP':>8}{'GFLOPs':>9}{'ms':>8}"]
    best = pareto(rows)
    for index, row in enumerate(rows):
        lines.append(
            f"{row['stages']:>6}{row['proposals']:>11}{row['segm_AP']:>9.3f}{row['bbox_AP']:>8.3f}"
            f"{row['gflops']:>9.2f}{1000 * row['seconds_per_image']:>8.1f}{'  *' if index in best else ''}"
        )
    return "\n".join([*lines, "* no other row has as much mask AP for fewer GFLOPs"])


def pareto(rows: Sequence[dict[str, float]]) -> set[int]:
    """Positions of the rows that no other beats in both mask AP and GFLOPs."""
    front = plots.pareto([(row["gflops"], row["segm_AP"]) for row in rows])
    return {index for index, row in enumerate(rows) if (row["gflops"], row["segm_AP"]) in front}


def chart(rows: Sequence[dict[str, float]]) -> bytes:
    """Mask AP against GFLOPs of every row, a colour for each number of stages, and the Pareto front, as PNG."""
    dots, seen = [], set[int]()
    for row in rows:
        stages = int(row["stages"])
        label = f"{'_' * (stages in seen)}{stages} stage{'s' * (stages > 1)}"  # once in the legend
        dots.append(plots.Dot(label, row["gflops"], [row["segm_AP"]], stages - 1))
        seen.add(stages)
    return plots.png(plots.trade(dots, [], "GFLOPs", "mask AP"))
