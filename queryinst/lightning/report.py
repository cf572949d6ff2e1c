"""What a finished run tells its dashboards: best numbers, every stage's, every class's, precision over recall."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from queryinst.lightning.kinds import Evaluator
from queryinst.lightning.loggers import send_picture
from queryinst.visualize import draw
from queryinst.visualize.figures import pr_curves

KINDS = {"segm": "mask", "bbox": "box"}  # of video there are only masks
CLASS_COLUMNS = ("class", "objects", "mask AP", "mask AP50", "mask AP75", "box AP")


@rank_zero_only
def report(
    loggers: list[Logger],
    metrics: dict[str, float],
    stages: Sequence[dict[str, float]],
    evaluator: Evaluator,
    folder: Path | None,
    step: int,
) -> None:
    """Write `best/*` and `stage_k/*`, a table of classes, and precision over recall as chart and picture.

    Args:
        loggers: of the run; those of other people's classes get nothing.
        metrics: of the best checkpoint; NaN where there was nothing to find.
        stages: the same of every stage, the first one first.
        evaluator: that gave `metrics`.
        folder: of the run, for `pictures/precision_recall.png`; None: no picture, to no logger either.
        step: the last one of training.
    """
    curves = precision_over_recall(evaluator)
    if folder:
        picture = pr_curves({f"{KINDS[kind]}, mean over classes": lines for kind, lines in curves.items()})
        draw.write(picture, folder / "pictures" / "precision_recall.png")
        send_picture(loggers, "best/precision_recall", picture, step)
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            for number, of_stage in enumerate(stages, 1):  # over stages, not steps
                for kind in curves:
                    logger.experiment.add_scalar(f"best/by_stage/{kind}_AP", of_stage[f"{kind}_AP"], number)
        elif isinstance(logger, WandbLogger):
            _to_wandb(logger, metrics, stages, class_table(evaluator), curves, step)


def _to_wandb(
    logger: WandbLogger,
    metrics: dict[str, float],
    stages: Sequence[dict[str, float]],
    classes: list[list[Any]],
    curves: dict[str, dict[str, NDArray[np.float64]]],
    step: int,
) -> None:
    import wandb

    summary = {f"best/{name}": value for name, value in metrics.items()}
    for number, of_stage in enumerate(stages, 1):
        summary |= {f"stage_{number}/{name}": value for name, value in of_stage.items() if "/" not in name}
    logger.experiment.summary.update({name: value for name, value in summary.items() if value == value})
    by_stage = [
        [number, of_stage[f"{kind}_AP"], name]
        for kind, name in KINDS.items()
        if kind in curves
        for number, of_stage in enumerate(stages, 1)
    ]
    shown: dict[str, Any] = {
        "best/classes": wandb.Table(columns=list(CLASS_COLUMNS), data=classes),
        "best/stages": wandb.plot.line(
            wandb.Table(columns=["stage", "AP", "kind"], data=by_stage), "stage", "AP", "kind", title="AP by stage"
        ),
    }
    for kind, lines in curves.items():
        points = [
            [recall, float(precision), name]
            for name, precisions in lines.items()
            for recall, precision in zip(np.linspace(0, 1, len(precisions)).round(2).tolist(), precisions, strict=True)
        ]
        shown[f"best/precision_recall_{KINDS[kind]}"] = wandb.plot.line(
            wandb.Table(columns=["recall", "precision", "IoU"], data=points),
            "recall",
            "precision",
            "IoU",
            title=f"{KINDS[kind].capitalize()}: precision over recall, mean over classes",
        )
    logger.log_metrics(shown, step)


def class_table(evaluator: Evaluator) -> list[list[Any]]:
    """A row a class, the worst mask AP first, as `CLASS_COLUMNS` says; None where there is no object of a class."""
    precision = evaluator.precision
    counts = {category["id"]: 0 for category in evaluator.categories}
    for annotation in evaluator.content["annotations"]:
        counts[annotation["category_id"]] += not annotation.get("iscrowd")
    rows = []
    for label, category in enumerate(evaluator.categories):
        mask = precision["segm"][:, :, label]
        scores = [_mean(part) for part in (mask, mask[0], mask[5])]
        scores.append(_mean(precision["bbox"][:, :, label]) if "bbox" in precision else None)
        rows.append([str(category["name"]), counts[category["id"]], *scores])
    return sorted(rows, key=lambda row: (row[2] is None, row[2] or 0))


def precision_over_recall(evaluator: Evaluator) -> dict[str, dict[str, NDArray[np.float64]]]:
    """By kind and by IoU threshold, precision (101,) at 101 recalls from 0 to 1, the mean over classes with objects."""
    curves = {}
    for kind in (kind for kind in KINDS if kind in evaluator.precision):
        precision = evaluator.precision[kind]
        defined = precision[:, :, precision[0, 0] > -1]
        mean = defined.mean(-1) if defined.shape[-1] else np.zeros(precision.shape[:2])
        curves[kind] = {"0.50": mean[0], "0.75": mean[5], "0.50 to 0.95": mean.mean(0)}
    return curves


def _mean(precision: NDArray[np.float64]) -> float | None:
    return float(precision.mean()) if (precision > -1).all() else None
