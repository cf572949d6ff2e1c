"""Histograms of a data set's splits beside each other, in one picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from queryinst.visualize.draw import FONT, Picture

PAINTS = ((66, 120, 190), (226, 140, 50))  # RGB of the first and the second split
INK, LINE = (40, 40, 40), (225, 225, 225)
WIDTH, HEIGHT = 560, 300  # of a panel
LEFT, TOP, RIGHT, BOTTOM = 56, 44, 16, 40  # margins around the bars of a panel
LETTER = 0.42


@dataclass(frozen=True)
class Chart:
    """One panel: how much of each split falls into each bin."""

    title: str
    labels: Sequence[str]  # a bin each; may be empty
    shares: Mapping[str, NDArray[np.float64]]  # by split, (bins,) summing to 1, or to 0 where there is nothing


def histogram(title: str, values: Mapping[str, ArrayLike], edges: Sequence[float], labels: Sequence[str]) -> Chart:
    """Numbers sorted into bins, each up to and with its upper edge; the outermost take what lies beyond."""
    inner = np.asarray(edges[1:-1], np.float64)
    counts = {
        split: np.bincount(np.digitize(np.asarray(numbers, np.float64), inner, right=True), minlength=len(edges) - 1)
        for split, numbers in values.items()
    }
    return shares(title, labels, counts)


def shares(title: str, labels: Sequence[str], counts: Mapping[str, ArrayLike]) -> Chart:
    """Counts of each bin as shares of their split."""
    numbers = {split: np.asarray(count, np.float64) for split, count in counts.items()}
    return Chart(title, labels, {split: count / max(count.sum(), 1) for split, count in numbers.items()})


def draw(charts: Sequence[Chart], columns: int = 2) -> Picture:
    """The panels in rows, (H, W, 3) uint8 RGB."""
    panels = [_panel(chart) for chart in charts]
    panels += [np.full_like(panels[0], 255)] * (-len(panels) % columns)
    return np.vstack([np.hstack(panels[start : start + columns]) for start in range(0, len(panels), columns)])


def _panel(chart: Chart) -> Picture:
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    top = max([float(share.max(initial=0)) for share in chart.shares.values()] + [0.01])
    base, high = HEIGHT - BOTTOM, HEIGHT - BOTTOM - TOP
    for part in (0, 0.5, 1):
        y = round(base - part * high)
        cv2.line(canvas, (LEFT, y), (WIDTH - RIGHT, y), LINE, 1)
        _write(canvas, f"{100 * part * top:.3g}%", LEFT - 6, y + 4, 1.0)
    _write(canvas, chart.title, LEFT, 20, 0.0, scale=0.5)
    step = (WIDTH - LEFT - RIGHT) / max(len(chart.labels), 1)
    bar = 0.84 * step / max(len(chart.shares), 1)
    for number, (split, share) in enumerate(chart.shares.items()):
        paint = PAINTS[number % len(PAINTS)]
        _write(canvas, split, WIDTH - RIGHT - 60 * (len(chart.shares) - 1 - number), 20, 1.0, paint)
        for bin_, value in enumerate(share):
            x = LEFT + step * (bin_ + 0.08) + bar * number
            low = (round(x), base)
            cv2.rectangle(canvas, low, (max(low[0], round(x + bar) - 1), round(base - value / top * high)), paint, -1)
    for bin_, label in enumerate(chart.labels):
        down = 15 + 14 * (bin_ % 2 if step < 60 else 0)  # every second one lower, where they are close
        _write(canvas, label, round(LEFT + step * (bin_ + 0.5)), base + down, 0.5)
    return canvas


def _write(
    canvas: Picture, text: str, x: int, y: int, anchor: float, paint: tuple[int, int, int] = INK, scale: float = LETTER
) -> None:
    """Text whose left end (anchor 0), middle (0.5) or right end (1) is at x."""
    (width, _), _ = cv2.getTextSize(text, FONT, scale, 1)
    cv2.putText(canvas, text, (round(x - anchor * width), y), FONT, scale, paint, 1, cv2.LINE_AA)
