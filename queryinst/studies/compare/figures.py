"""Which plots the compared runs allow, and what goes into them; the drawing is in `visualize/plots.py`."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from queryinst.studies.compare.groups import KINDS, Group, kinds_of, show
from queryinst.studies.compare.noise import Noise
from queryinst.studies.compare.runs import OF_CLASS
from queryinst.visualize import plots
from queryinst.visualize.plots import Dot, Line

MOST_CLASSES = 20  # rows of bars
ELASTIC = {"num_stages": "stages", "num_proposals": "proposals"}  # settings that a trained network can have fewer of


@dataclass(frozen=True)
class Plot:
    """A figure with the name of its file and what it shows."""

    name: str
    title: str
    caption: str
    figure: Figure


def draw(groups: Sequence[Group], base: Group, noise: Noise) -> list[Plot]:
    """All plots that make sense for these groups."""
    return [
        *(plot for kind in kinds_of(groups) for plot in _against_settings(groups, kind)),
        *_trades(groups),
        *_curves(groups),
        *_stages(groups),
        *_classes(groups, base, noise),
    ]


def _against_settings(groups: Sequence[Group], kind: str) -> Iterator[Plot]:
    """AP against each number that varies: a line for each combination of what else varies beside it."""
    metric = f"{kind}_AP"
    for key in groups[0].settings:
        values = [group.settings[key] for group in groups]
        if len(set(map(repr, values))) < 2 or not all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        ):
            continue
        others = [other for other in groups[0].settings if other != key and not _follows(groups, key, other)]
        series: dict[str, list[Group]] = {}
        for group in groups:
            name = ", ".join(f"{other}={show(group.settings[other])}" for other in others)
            series.setdefault(name, []).append(group)
        lines = [
            Line(name or "trained so", [(g.settings[key], _values(g, metric)) for g in members], number)
            for number, (name, members) in enumerate(series.items())
            if len(members) > 1
        ]
        if lines:
            lines += _elastic_lines(groups, ELASTIC.get(key.split(".")[-1], ""), metric)
            yield Plot(
                f"{metric}_against_{key}",
                f"{_first(KINDS[kind])} against {key}",
                "Means over seeds, standard deviation as bars, single seeds as small dots.",
                plots.against(lines, key, KINDS[kind]),
            )


def _follows(groups: Sequence[Group], key: str, other: str) -> bool:
    """Whether one setting is known where the other is."""
    seen: dict[str, set[str]] = {}
    for group in groups:
        seen.setdefault(repr(group.settings[key]), set()).add(repr(group.settings[other]))
    return all(len(values) == 1 for values in seen.values())


def _values(group: Group, metric: str) -> list[float]:
    return [value for run in group.runs if not math.isnan(value := run.metric(metric))]


def elastic_rows(group: Group) -> list[dict[str, float]]:
    """Means over the seeds of a group's elastic.json files, by stages and proposals; empty where there is none."""
    found: dict[tuple[float, float], list[dict[str, Any]]] = {}
    for run in group.runs:
        for row in run.elastic():
            found.setdefault((row["stages"], row["proposals"]), []).append(row)
    return [{name: mean(row[name] for row in same) for name in same[0]} for _, same in sorted(found.items())]


def _elastic_lines(groups: Sequence[Group], x: str, metric: str) -> list[Line]:
    """Trained networks with fewer stages (or proposals) and all else in full, a line each."""
    lines = []
    for number, group in enumerate(groups):
        rows = elastic_rows(group) if x else []
        other = {"stages": "proposals", "proposals": "stages"}.get(x)
        full = max((row[other] for row in rows), default=0) if other else 0
        points = [(row[x], [row[metric]]) for row in rows if other is None or row[other] == full]
        if points:
            lines.append(Line(f"{group.label}, run with fewer", points, number + 1 if other else number, dashed=True))
    return lines


def _trades(groups: Sequence[Group]) -> Iterator[Plot]:
    """AP against what an image costs."""
    costs: tuple[tuple[str, str, Callable[[Group], float], Callable[[float], float]], ...] = (
        ("gflops", "GFLOPs", lambda g: mean(run.result["flops"] for run in g.runs) / 1e9, lambda value: value),
        ("seconds_per_image", "ms per image", lambda g: 1000 * mean(run.seconds for run in g.runs), lambda v: 1000 * v),
    )
    for key, heading, cost, scaled in costs:
        for kind, words in kinds_of(groups).items():
            metric = f"{kind}_AP"
            dots = [
                Dot(group.label, cost(group), _values(group, metric), number)
                for number, group in enumerate(groups)
                if _values(group, metric) and not math.isnan(cost(group))
            ]
            if len({dot.x for dot in dots}) < 2:
                continue
            lines = [
                Line(line.label, [(scaled(place), values) for place, values in line.points], line.colour)
                for line in _elastic_lines(groups, key, metric)
            ]
            name = heading.replace(" ", "_")
            yield Plot(
                f"{metric}_against_{name}",
                f"{_first(words)} against {heading}",
                "Means over seeds with their standard deviation; nothing cheaper is better than the Pareto front.",
                plots.trade(dots, lines, heading, words),
            )


def _curves(groups: Sequence[Group]) -> Iterator[Plot]:
    lines = []
    for number, group in enumerate(groups):
        of_runs = [curve for run in group.runs if (curve := run.curve("val/segm_AP"))]
        steps = sorted(set.intersection(*(set(curve) for curve in of_runs))) if of_runs else []
        if len(steps) > 1:
            lines.append(Line(group.label, [(s, [curve[s] for curve in of_runs]) for s in steps], number))
    if lines:
        yield Plot(
            "learning_curves",
            "Learning curves",
            "Mask AP on the validation images while training: mean, and from the lowest to the highest seed.",
            plots.curves(lines, "step", "mask AP"),
        )


def _stages(groups: Sequence[Group]) -> Iterator[Plot]:
    for kind, words in kinds_of(groups).items():
        lines = []
        for number, group in enumerate(groups):
            of_runs = [stages for run in group.runs if (stages := run.stages(f"{kind}_AP"))]
            length = min(map(len, of_runs), default=0)
            if length:
                points = [(float(s + 1), [stages[s] for stages in of_runs]) for s in range(length)]
                lines.append(Line(group.label, points, number))
        if max((len(line.points) for line in lines), default=0) > 1:
            yield Plot(
                f"{kind}_AP_by_stage",
                f"{_first(words)} after each stage",
                "What each refinement stage of a network gives: means over seeds, standard deviation as bars.",
                plots.against(lines, "stage", words, single=False),
            )


def _classes(groups: Sequence[Group], base: Group, noise: Noise) -> Iterator[Plot]:
    """Mask AP of each class against the baseline; of many classes, those that differ most."""
    names = base.runs[0].classes
    others = [group for group in groups if group is not base]
    table = np.array([[g.mean(OF_CLASS + name) - base.mean(OF_CLASS + name) for name in names] for g in others])
    if not others or not len(names) or np.isnan(table).all():
        return
    there = np.flatnonzero(~np.isnan(table).all(0))
    most = there[np.argsort(-np.nanmax(np.abs(table[:, there]), 0), kind="stable")][:MOST_CLASSES]
    shown = sorted(most.tolist())
    ends = {g.label: found for g in others if (found := noise.by_class(g, base)) and len(found[0]) == len(names)}
    rest = f" The {len(shown)} of {len(there)} classes that differ most." if len(shown) < len(there) else ""
    lines = " Lines are 95 % intervals over images; noise of seeds is not in them." if ends else ""
    yield Plot(
        "classes",
        f"Mask AP of each class, against {base.label}",
        f"Difference of the means over seeds.{rest}{lines}",
        plots.bars(
            [names[k] for k in shown],
            {g.label: [float(v) for v in row[shown]] for g, row in zip(others, table, strict=True)},
            {label: (low[shown].tolist(), high[shown].tolist()) for label, (low, high) in ends.items()},
            {group.label: number for number, group in enumerate(groups)},
            "difference of mask AP",
        ),
    )


def _first(text: str) -> str:
    return text[0].upper() + text[1:]
