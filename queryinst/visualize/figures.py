"""Plots as pictures: where queries find things, and precision over recall."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from queryinst.visualize.draw import Picture

DPI = 110
NUMBERED = 90  # area of a disc that has room for a number


def query_map(
    share: NDArray[np.float32], centres: NDArray[np.float32], sizes: NDArray[np.float32], score: float
) -> Picture:
    """Every used query as a disc where its detections are: area by how often, colour by how large their boxes are.

    Args:
        share: (N,) of the images in which a query gives a detection.
        centres: (N, 2) mean centre of its boxes, x and y in parts of the image.
        sizes: (N,) mean square root of the boxes' areas, in parts of the image.
        score: lowest score of a detection that was counted.
    """
    figure = Figure(figsize=(6.4, 5.8), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    order = np.flatnonzero(share > 0)
    order = order[np.argsort(-share[order])]  # the small ones on top
    top = max(0.5, float(sizes.max(initial=0)))
    look: dict[str, Any] = {"edgecolors": "black", "linewidths": 0.6}
    discs = axes.scatter(
        centres[order, 0], centres[order, 1], _area(share[order]), sizes[order], vmin=0, vmax=top, alpha=0.75, **look
    )
    for query in order[_area(share[order]) >= NUMBERED]:
        paint = "white" if sizes[query] < top / 2 else "black"
        axes.annotate(str(query), centres[query], ha="center", va="center", fontsize=7, color=paint)
    axes.set(xlim=(-0.02, 1.02), ylim=(1.02, -0.02), aspect="equal", xlabel="left to right", ylabel="top to bottom")
    axes.set_title(f"{len(order)} of {len(share)} queries find something\n(score {score:g} or more)", fontsize=10)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    figure.colorbar(discs, label="mean size of their boxes, part of the image's side", shrink=0.85)
    if len(order):
        for value in np.unique([share[order].min(), share[order].max()]):
            text = f"in {100 * value:.2g}% of the images"
            axes.scatter([], [], _area(np.array([value])), "lightgrey", label=text, **look)
        figure.legend(loc="outside lower center", ncols=2, frameon=False, handletextpad=1.5, borderpad=1)
    return _picture(figure)


def _area(share: NDArray[np.float32]) -> NDArray[np.float32]:
    return 20 + 900 * share


def pr_curves(curves: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> Picture:
    """Precision over recall: a panel for each kind, in it a line for each name.

    Args:
        curves: by title and by name, (R,) precision at R recalls spread over 0..1.
    """
    figure = Figure(figsize=(4.6 * len(curves), 4.2), dpi=DPI, layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for name, precision in lines.items():
            axes.plot(np.linspace(0, 1, len(precision)), precision, label=name)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=title)
        axes.grid(alpha=0.25)
        axes.legend(title="IoU", loc="lower left")
    return _picture(figure)


def _picture(figure: Figure) -> Picture:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
