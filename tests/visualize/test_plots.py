"""Plots of a comparison: what is drawn, and an SVG that a page can hold."""

import io
import math
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from queryinst.visualize import plots
from queryinst.visualize.plots import Dot, Line, pareto

LINES = [Line("a", [(3, [0.5, 0.6]), (1, [0.2, 0.3])], 0), Line("b", [(1, [0.1]), (2, [math.nan])], 1, dashed=True)]


def test_means_spread_and_single_seeds():
    (axes,) = plots.against(LINES, "stages", "mask AP").axes
    first, second = axes.containers
    np.testing.assert_allclose(first[0].get_xydata(), [[1, 0.25], [3, 0.55]])
    ends = [segment[:, 1] for segment in first[2][0].get_segments()]
    np.testing.assert_allclose(
        ends, [[0.25 - 0.1 / 2**0.5, 0.25 + 0.1 / 2**0.5], [0.55 - 0.1 / 2**0.5, 0.55 + 0.1 / 2**0.5]]
    )
    assert second[0].get_xydata().tolist() == [[1, 0.1]], "what has no number is left out"
    assert axes.get_xlabel() == "stages"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "3"]
    dots = [collection for collection in axes.collections if len(collection.get_offsets()) == 4]
    assert len(dots) == 1


def test_a_wide_range_is_logarithmic():
    (axes,) = plots.against([Line("a", [(1e-5, [0.1]), (1e-2, [0.2])], 0)], "lr", "AP").axes
    assert axes.get_xscale() == "log"


def test_pareto_front():
    points = [(3.0, 0.5), (1.0, 0.2), (2.0, 0.6), (1.0, 0.3), (4.0, 0.6)]
    assert pareto(points) == [(1.0, 0.3), (2.0, 0.6)]
    assert pareto([]) == []


def test_trade_shows_the_front_and_the_points_beside():
    """A network that is run with fewer stages counts as one that was trained so."""
    dots = [Dot("a", 1.0, [0.3, 0.3], 0), Dot("b", 2.0, [0.2], 1)]
    figure = plots.trade(dots, [Line("fewer", [(0.5, [0.1]), (0.8, [0.1]), (1.5, [0.3, 0.2])], 0)], "GFLOPs", "AP")
    (axes,) = figure.axes
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["a", "b", "Pareto front", "fewer"]
    front = next(line for line in axes.lines if line.get_label() == "Pareto front")
    assert front.get_xydata().tolist() == [[0.5, 0.1], [1.0, 0.3]]
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 2


def test_costs_that_are_close_fill_the_plot():
    (axes,) = plots.trade([Dot("a", 10.0, [0.3], 0), Dot("b", 11.0, [0.2], 1)], [], "GFLOPs", "AP").axes
    low, high = axes.get_xlim()
    assert 9 < low < 10
    assert 11 < high < 12


def test_curves_have_a_band_from_the_lowest_to_the_highest_seed():
    (axes,) = plots.curves(LINES[:1], "step", "AP").axes
    assert axes.lines[0].get_xydata().tolist() == [[1, 0.25], [3, 0.55]]
    ys = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (ys.min(), ys.max()) == (0.2, 0.6)


def test_bars_with_intervals():
    figure = plots.bars(
        ["x", "y"], {"a": [0.1, -0.2], "b": [0.0, 0.3]}, {"a": ([0.0, -0.3], [0.2, -0.1])}, {"a": 1, "b": 2}, "AP"
    )
    (axes,) = figure.axes
    assert [patch.get_width() for patch in axes.patches] == [0.1, -0.2, 0.0, 0.3]
    assert mpl.colors.to_hex(axes.patches[0].get_facecolor()) == plots.colour(1)
    assert [segment[:, 0].tolist() for segment in axes.collections[0].get_segments()] == [[0.0, 0.2], [-0.3, -0.1]]


def test_png_is_a_picture_that_is_not_empty():
    picture = np.asarray(Image.open(io.BytesIO(plots.png(plots.against(LINES, "x", "y")))).convert("RGB"))
    assert (picture[0, 0] == 255).all()
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


@pytest.mark.parametrize("nasty", ["<script>alert(1)</script>", "a --> b", "$\\frac{", "& \" '", "{{ 7 * 7 }}"])
def test_svg_is_well_formed_carries_no_text_and_takes_the_colours_of_the_page(nasty: str):
    figure = plots.bars([nasty, "y"], {nasty: [0.1, 0.2], "b": [0.3, 0.1]}, {}, {nasty: 0, "b": 1}, nasty)
    text = plots.svg(figure, "p3")
    root = ElementTree.fromstring(text)
    assert root.get("viewBox")
    assert root.get("width") is None
    assert "script" not in text
    assert "currentColor" in text
    assert "var(--grid)" in text
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids
    assert all(name.startswith("p3-") for name in ids if name)
    assert len(set(ids)) == len(ids)
    for element in root.iter():
        for key, value in element.items():
            if key.endswith("href"):
                assert value.removeprefix("#") in ids
