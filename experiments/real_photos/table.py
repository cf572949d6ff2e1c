"""The table and the curves of this experiment, from what its runs wrote.

    python experiments/real_photos/table.py experiments/real_photos/curves.png

Reads `runs/*/` (result.json and metrics.csv of QueryInst; runs of one name are its seeds) and `mask_rcnn/*.json` beside
this file. Minutes are those of training: evaluation takes longer the more often it is asked for.
"""

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from queryinst.visualize import plots

HERE = Path(__file__).parent
COLUMNS = {"mask AP": "segm_AP", "mask AP50": "segm_AP50", "mask AP75": "segm_AP75", "box AP": "bbox_AP"}
CURVES = {"facade": "QueryInst", "mask_rcnn_lr0.01": "Mask R-CNN"}


@dataclass(frozen=True)
class Run:
    """What is shown of a run."""

    group: str
    images: int  # seen in training, all epochs together
    seconds: float  # an image at test, the more the busier the machine was
    metrics: dict[str, float]
    curve: list[tuple[float, float]]  # minutes of training, mask AP


def ours(folder: Path) -> Run:
    """A run folder; its minutes follow from the usual speed of those that it logged every twenty steps."""
    result = json.loads((folder / "result.json").read_text())
    batch, took, curve = result["config"]["data"]["batch_size"], [], []
    with (folder / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            if row["train/images_per_second"]:
                took.append(1 / float(row["train/images_per_second"]))
            if row["val/segm_AP"]:
                minutes = (int(row["step"]) + 1) * batch * median(took) / 60
                curve.append((minutes, float(row["val/segm_AP"])))
    return Run(result["name"], result["steps"] * batch, result["seconds_per_image"], result["metrics"], curve)


def theirs(file: Path) -> Run:
    """What `mask_rcnn.py` wrote."""
    found = json.loads(file.read_text())
    curve = [(point["minutes"], point["segm_AP"]) for point in found["curve"]]
    group, images = f"mask_rcnn_lr{found['lr']:g}", found["steps"] * found["batch"]
    return Run(group, images, found["seconds_per_image"], found, curve)


def runs() -> Iterator[Run]:
    """Everything that was recorded."""
    for folder in sorted((HERE / "runs").iterdir()):
        yield ours(folder)
    for file in sorted((HERE / "mask_rcnn").glob("*.json")):
        yield theirs(file)


def text(values: list[float], digits: int = 3) -> str:
    """One number, or mean and standard deviation of several."""
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def row(*cells: Any) -> None:
    print("|", " | ".join(map(str, cells)), "|")


def main(to: Path) -> None:
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs():
        groups[run.group].append(run)
    row("runs", "seeds", "minutes of training", "images seen", *COLUMNS, "s an image at test, least")
    row(*["---"] * (5 + len(COLUMNS)))
    for name, group in groups.items():
        figures = [text([run.metrics[column] for run in group]) for column in COLUMNS.values()]
        minutes, images = (
            text([run.curve[-1][0] for run in group], 1),
            text([float(run.images) for run in group], 0),
        )
        row(name, len(group), minutes, images, *figures, f"{min(run.seconds for run in group):.2f}")
    lines = []
    for number, (name, label) in enumerate(CURVES.items()):
        points = zip(*(run.curve for run in groups[name]), strict=True)  # all seeds were judged as often
        together = [(mean(place for place, _ in seeds), [value for _, value in seeds]) for seeds in points]
        lines.append(plots.Line(label, [(0.0, [0.0]), *together], number))
    to.write_bytes(plots.png(plots.curves(lines, "minutes of training", "mask AP on 83 photographs")))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
