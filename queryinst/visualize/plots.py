"""Plots of a comparison in one restrained style: lines with single values as dots, trade-offs, curves, bars.

A figure is drawn once and saved as PNG, dark on white, or as SVG for a page, where its ink takes the colour of the text
around it. No pyplot: no window, no state.
"""

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import offset_copy

INK, GRID = "#24292f", "#d0d7de"  # stand for the page's own colours in an SVG
COLOURS = ("#3b82c4", "#e0812b", "#2f9e6e", "#c0506b", "#8a6fc7", "#a0802f", "#35a0b3", "#8c8c8c")
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "svg.fonttype": "path",  # the same on every screen
    "svg.hashsalt": "queryinst",
    "text.parse_math": False,  # a `$` in a class name is a `$`
    "savefig.dpi": 160,
}
WIDTH, HEIGHT = 5.2, 3.2  # inches: letters stay readable on a phone
MANY_TICKS = 8


@dataclass(frozen=True)
class Line:
    """One series: at each x the values of single seeds."""

    label: str
    points: Sequence[tuple[float, Sequence[float]]]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Dot:
    """A thing that costs `x` and gives each of `values` (one a seed)."""

    label: str
    x: float
    values: Sequence[float]
    colour: int


def colour(number: int) -> str:
    """The n-th colour, readable on white and on black."""
    return COLOURS[number % len(COLOURS)]


def against(lines: Sequence[Line], x: str, y: str, single: bool = True) -> Figure:
    """Means as lines, standard deviations as bars; where `single`, each value as a dot to the right of its mean."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(x, y)
        for line in lines:
            points = _finite(line.points)
            places = [place for place, _ in points]
            axes.errorbar(
                places,
                [mean(values) for _, values in points],
                [stdev(values) if len(values) > 1 else 0.0 for _, values in points],
                color=colour(line.colour),
                marker="s" if line.dashed else "o",
                markersize=4 if line.dashed else 6,
                linestyle="--" if line.dashed else "-",
                capsize=3,
                label=line.label,
            )
            seeds = [(place, value) for place, values in points for value in values if single and len(values) > 1]
            if seeds:
                beside = offset_copy(axes.transData, figure, x=7, units="points")
                at, heights = zip(*seeds, strict=True)
                axes.scatter(at, heights, s=10, color=colour(line.colour), alpha=0.7, transform=beside)
        _ticks(axes, sorted({place for line in lines for place, _ in line.points}))
        _legend(figure, axes)
    return figure


def trade(dots: Sequence[Dot], lines: Sequence[Line], x: str, y: str) -> Figure:
    """What is paid against what is got: means with standard deviations, points of `lines` beside them, and of both
    together the Pareto front.
    """
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(x, y)
        beside = [(place, mean(values)) for line in lines for place, values in _finite(line.points)]
        front = pareto([*((dot.x, mean(dot.values)) for dot in dots), *beside])
        axes.plot(
            [place for place, _ in front],
            [value for _, value in front],
            drawstyle="steps-post",
            color=INK,
            alpha=0.45,
            linewidth=1,
            zorder=1,
            label="Pareto front",
        )
        for dot in dots:
            spread = stdev(dot.values) if len(dot.values) > 1 else 0.0
            axes.errorbar(
                [dot.x],
                [mean(dot.values)],
                [spread],
                color=colour(dot.colour),
                marker="o",
                markersize=7,
                linestyle="",
                capsize=3,
                label=dot.label,
            )
        for line in lines:
            points = _finite(line.points)
            axes.plot(
                [place for place, _ in points],
                [mean(values) for _, values in points],
                color=colour(line.colour),
                marker="s",
                markerfacecolor="none",
                markersize=4.5,
                linestyle="",
                label=line.label,
            )
        if axes.dataLim.xmin < 0.7 * axes.dataLim.xmax:
            axes.set_xlim(0, 1.06 * axes.dataLim.xmax)
        _legend(figure, axes)
    return figure


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, gain) those that nothing cheaper or as cheap beats, the cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front


def curves(lines: Sequence[Line], x: str, y: str) -> Figure:
    """Means over seeds as lines, from the lowest to the highest seed as a band."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(x, y)
        for line in lines:
            points = _finite(line.points)
            places = [place for place, _ in points]
            paint = colour(line.colour)
            axes.plot(places, [mean(values) for _, values in points], color=paint, label=line.label)
            low, high = ([end(values) for _, values in points] for end in (min, max))
            axes.fill_between(places, low, high, color=paint, alpha=0.2, linewidth=0)
        axes.set_ylim(bottom=0)
        _legend(figure, axes)
    return figure


def bars(
    names: Sequence[str],
    values: Mapping[str, Sequence[float]],
    ends: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    colours: Mapping[str, int],
    x: str,
) -> Figure:
    """Horizontal bars: for each name one of each series, with the ends of an interval where there is one."""
    with matplotlib.rc_context(STYLE):
        thick = 0.8 / len(values)
        figure, axes = _figure(x, "", height=max(2.4, 1.1 + 0.13 * len(names) * (len(values) + 1)))
        for number, (label, series) in enumerate(values.items()):
            places = [row + thick * (number + 0.5) - 0.4 for row in range(len(names))]
            axes.barh(places, series, thick * 0.9, color=colour(colours[label]), label=label)
            if label in ends:
                low, high = ends[label]
                axes.hlines(places, low, high, color=INK, linewidth=0.9)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.locator_params(axis="x", nbins=6)
        axes.axvline(0, color=INK, linewidth=0.8)
        _legend(figure, axes)
    return figure


def best_so_far(
    values: Sequence[tuple[int, float]], pruned: Sequence[tuple[int, float]], best: Sequence[tuple[int, float]], y: str
) -> Figure:
    """The trials of a search by their number: those trained to the end, those pruned, and the best until then."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure("trial", y)
        numbers, heights = zip(*best, strict=True)
        axes.plot(numbers, heights, drawstyle="steps-post", color=colour(0), label="best so far")
        for points, marker, label in ((values, "o", "trained to the end"), (pruned, "x", "pruned")):
            if points:
                numbers, heights = zip(*points, strict=True)
                axes.scatter(numbers, heights, s=20, marker=marker, color=colour(marker == "x"), label=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(figure, axes)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as a picture on white."""
    with matplotlib.rc_context(STYLE), io.BytesIO() as file:
        figure.savefig(file, format="png", facecolor="white")
        return file.getvalue()


def svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` element for a page: `currentColor`, `var(--grid)`, and ids that begin with `name`."""
    with matplotlib.rc_context(STYLE), io.StringIO() as file:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(GRID, "var(--grid)")
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)  # comments hold the texts
    text = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", text)
    return re.sub(
        r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1), count=1
    )


def _figure(x: str, y: str, height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _finite(points: Sequence[tuple[float, Sequence[float]]]) -> list[tuple[float, list[float]]]:
    kept = ((place, [value for value in values if not math.isnan(value)]) for place, values in points)
    return sorted((place, values) for place, values in kept if values and not math.isnan(place))


def _ticks(axes: Axes, places: Sequence[float]) -> None:
    """At the values themselves where they are few; logarithmic where they span much."""
    if places[0] > 0 and places[-1] / places[0] > 20:
        axes.set_xscale("log")
    gaps = [b - a for a, b in itertools.pairwise(places)]
    if len(places) <= MANY_TICKS and (axes.get_xscale() == "log" or min(gaps) > 0.06 * (places[-1] - places[0])):
        axes.set_xticks(places, [f"{place:g}" for place in places])
        axes.minorticks_off()


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the plot, in as many columns as fit; the figure grows by it."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda place: not isinstance(handles[place], ErrorbarContainer))
    if len(labels) > 1:
        columns = max(1, min(4, len(labels), int(72 / (max(map(len, labels)) + 7))))
        figure.set_figheight(figure.get_figheight() + 0.19 * math.ceil(len(labels) / columns))
        figure.legend(
            [handles[o] for o in order], [labels[o] for o in order], loc="outside lower center", ncols=columns
        )
