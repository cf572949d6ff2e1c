"""The table of a comparison: a row a group, the same numbers for CSV, Markdown, the terminal, the page and W&B."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from rich.table import Table

from queryinst.studies.compare.groups import Group, show, stdev_or_nan
from queryinst.studies.compare.runs import Run

APS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
WORDS = {"APs": "AP small", "APm": "AP medium", "APl": "AP large"}
IN_BRIEF = {"segm_AP": "mask AP", "segm_AP50": "AP50", "segm_AP75": "AP75", "bbox_AP": "box AP"}
SPREAD = "± is the standard deviation over seeds (n - 1)"


@dataclass(frozen=True)
class Column:
    """One number of a run."""

    key: str
    heading: str
    read: Callable[[Run], float]
    digits: int
    brief: str | None = None  # heading in a terminal, where there is room for it


def _ap(kind: str, word: str, name: str) -> Column:
    key = f"{kind}_{name}"
    return Column(key, f"{word} {WORDS.get(name, name)}", lambda run: run.metric(key), 3, IN_BRIEF.get(key))


def _of_video(key: str, heading: str, brief: str | None = None) -> Column:
    return Column(key, heading, lambda run: run.metric(key), 3, brief)


COLUMNS = (
    *(_ap("segm", "mask", name) for name in APS),
    *(_ap("bbox", "box", name) for name in APS),
    _ap("boundary", "boundary", "AP"),
    _of_video("association_accuracy", "association accuracy", "assoc."),
    _of_video("id_kept", "identity kept"),
    _of_video("segm_AP_occlusion", "mask AP, occlusion", "occl. AP"),
    _of_video("association_accuracy_occlusion", "association accuracy, occlusion"),
    Column("parameters_M", "parameters, M", lambda run: run.result["parameters"] / 1e6, 2, "M par."),
    Column("gflops", "GFLOPs", lambda run: run.result["flops"] / 1e9, 2, "GFLOPs"),
    Column("ms_per_image", "ms per image", lambda run: 1000 * run.seconds, 1, "ms"),
    Column("minutes", "training, min", lambda run: float(run.result["minutes"]), 1, "min"),
    Column("seconds_per_step", "seconds a step", lambda run: run.seconds_per_step, 3),
)


@dataclass(frozen=True)
class Cell:
    """Mean over the seeds and sample standard deviation; NaN where there is none."""

    mean: float
    spread: float
    digits: int

    @property
    def text(self) -> str:
        if math.isnan(self.mean):
            return "-"
        spread = "" if math.isnan(self.spread) or not self.spread else f" ± {self.spread:.{self.digits}f}"
        return f"{self.mean:.{self.digits}f}{spread}"


@dataclass(frozen=True)
class Row:
    """A group and its cell of every column that has a number somewhere."""

    group: Group
    cells: dict[str, Cell]


def rows(groups: Sequence[Group]) -> tuple[list[Column], list[Row]]:
    """The columns that are not empty, and the rows."""
    every = (*COLUMNS, *_at_equal_minutes(groups))
    made = [Row(group, {column.key: _cell(group, column) for column in every}) for group in groups]
    columns = [column for column in every if any(not math.isnan(row.cells[column.key].mean) for row in made)]
    return columns, made


def _at_equal_minutes(groups: Sequence[Group]) -> Iterator[Column]:
    """Mask AP when the group that trains shortest was done, from curves: what the same minutes buy.

    A schedule made for these minutes would give a little more, as learning rates fall towards the end of their own.
    """
    curves = {id(run): run.learned("val/segm_AP") for group in groups for run in group.runs}
    if not all(curves.values()):
        return
    shortest = min(mean(curves[id(run)][-1][0] for run in group.runs) for group in groups)

    def read(run: Run) -> float:
        minutes, aps = zip((0.0, 0.0), *curves[id(run)], strict=True)
        return float(np.interp(shortest, minutes, aps))

    yield Column("segm_AP_at_equal_minutes", f"mask AP at {shortest:.1f} min", read, 3)


def _cell(group: Group, column: Column) -> Cell:
    values = [column.read(run) for run in group.runs]
    return Cell(mean(values), stdev_or_nan(values), column.digits)


def as_csv(columns: Sequence[Column], made: Sequence[Row]) -> str:
    """Every setting that varies, number of seeds, mean and standard deviation of every column."""
    with io.StringIO(newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        settings = list(made[0].group.settings)
        numbers = [f"{column.key}_{what}" for column in columns for what in ("mean", "sd")]
        writer.writerow(["group", *settings, "seeds", *numbers])
        for row in made:
            cells = [row.cells[column.key] for column in columns]
            values = [number for cell in cells for number in (cell.mean, cell.spread)]
            writer.writerow(
                [
                    row.group.label,
                    *(show(row.group.settings[key]) for key in settings),
                    len(row.group.runs),
                    *("" if math.isnan(value) else f"{value:.6g}" for value in values),
                ]
            )
        return file.getvalue()


def as_markdown(columns: Sequence[Column], made: Sequence[Row]) -> str:
    """A table for a README."""
    lines = [["group", "seeds", *(column.heading for column in columns)]]
    lines += [
        [row.group.label, str(len(row.group.runs)), *(row.cells[column.key].text for column in columns)] for row in made
    ]
    texts = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "---|" * len(lines[0]), *texts[1:]]) + "\n"


def for_terminal(columns: Sequence[Column], made: Sequence[Row]) -> Table:
    """The columns that have room in a terminal, the standard deviation beside AP alone."""
    shown = [column for column in columns if column.brief]
    table = Table(box=None, pad_edge=False, header_style="bold", caption=SPREAD, caption_justify="left")
    table.add_column("group", overflow="fold", min_width=16)
    for heading in ("seeds", *(str(column.brief) for column in shown)):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in made:
        cells = [(row.cells[column.key], column.key.endswith("_AP")) for column in shown]
        texts = [cell.text if spread else cell.text.partition(" ")[0] for cell, spread in cells]
        table.add_row(row.group.label, str(len(row.group.runs)), *texts)
    return table
