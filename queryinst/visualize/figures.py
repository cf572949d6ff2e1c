"""Plots as pictures: where queries find things, and precision over recall."""

from collections.abc import Mapping

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from queryinst.visualize.draw import Picture

DPI = 110


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
    figure = Figure(figsize=(6.4, 5.6), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    order = np.flatnonzero(share > 0)
    order = order[np.argsort(-share[order])]  # the small ones on top
    discs = axes.scatter(
        centres[order, 0],
        centres[order, 1],
        s=20 + 1500 * share[order],
        c=sizes[order],
        vmin=0,
        vmax=max(0.5, float(sizes.max(initial=0))),
        cmap="viridis",
        alpha=0.7,
        edgecolors="black",
        linewidths=0.6,
    )
    for query in order[:100]:
        axes.annotate(str(query), centres[query], ha="center", va="center", fontsize=7)
    axes.set(xlim=(0, 1), ylim=(1, 0), aspect="equal", xlabel="left to right", ylabel="top to bottom")
    axes.set_title(f"{len(order)} of {len(share)} queries find something (score {score:g} or more)", fontsize=11)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    figure.colorbar(discs, label="mean size of their boxes, part of the image's side", shrink=0.85)
    if len(order):
        shown = np.unique(np.round([share[order].min(), share[order].max()], 2))
        for value in shown:
            axes.scatter([], [], s=20 + 1500 * value, c="lightgrey", edgecolors="black", label=f"in {value:.0%}")
        axes.legend(
            title="of the images",
            loc="upper center",
            bbox_to_anchor=(0.5, -0.12),
            ncols=2,
            frameon=False,
            labelspacing=1.5,
        )
    return _picture(figure)


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
