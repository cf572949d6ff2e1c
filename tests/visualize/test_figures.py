"""Plots as pictures: they differ with what they show, and work with nothing to show."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from queryinst.visualize import figures
from queryinst.visualize.figures import pr_curves, query_map


def test_the_map_shows_use_place_and_size():
    share, centres, sizes = np.array([0.5, 0], "f"), np.array([[0.2, 0.8], [0, 0]], "f"), np.array([0.1, 0], "f")
    picture = query_map(share, centres, sizes, 0.3)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    others = [
        (share / 2, centres, sizes),
        (share, centres + 0.1, sizes),
        (share, centres, sizes * 4),
        (share * 0, *[centres, sizes]),
    ]
    for other in others:
        different = query_map(*other, 0.3)
        assert different.shape == picture.shape
        assert (different != picture).any()


def test_curves_fill_a_panel_each():
    falling = np.linspace(1, 0, 101)
    one = pr_curves({"mask": {"0.50": falling}})
    two = pr_curves({"mask": {"0.50": falling}, "box": {"0.50": falling**2}})
    assert two.shape == (one.shape[0], 2 * one.shape[1], 3)
    assert (pr_curves({"mask": {"0.50": falling**2}}) != one).any()


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures before they become pictures, so that a test can ask what is in them."""
    monkeypatch.setattr(figures, "_picture", lambda figure: figure)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.usefixtures("unpainted")
def test_discs_are_at_their_places_the_small_ones_on_top():
    share, sizes = np.array([0.25, 0, 1, 0.01], "f"), np.array([0.75, 0.9, 0.25, 0.5], "f")
    centres = np.array([[0.2, 0.8], [0, 0], [0.5, 0.25], [0.9, 0.1]], "f")
    figure: Figure = query_map(share, centres, sizes, 0.05)  # type: ignore[assignment]
    axes = figure.axes[0]
    discs = axes.collections[0]
    order = [2, 0, 3]
    np.testing.assert_allclose(discs.get_offsets(), centres[order])
    np.testing.assert_allclose(discs.get_sizes(), 20 + 900 * share[order], rtol=1e-6)
    np.testing.assert_allclose(discs.get_array(), sizes[order])
    assert discs.get_clim() == (0, pytest.approx(0.9))
    numbers = {text.get_text(): text for text in axes.texts}
    assert numbers.keys() == {"2", "0"}, "the third has no room for a number"
    assert numbers["0"].xy == pytest.approx(centres[0])
    assert (numbers["0"].get_color(), numbers["2"].get_color()) == ("black", "white")
    assert axes.get_title() == "3 of 4 queries find something\n(score 0.05 or more)"
    assert texts(figure) == ["in 1% of the images", "in 1e+02% of the images"]
    assert (axes.get_ylim()[0] > axes.get_ylim()[1], axes.get_xlim()[0] < axes.get_xlim()[1]) == (True, True)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("left to right", "top to bottom")


@pytest.mark.usefixtures("unpainted")
def test_nothing_used_is_an_empty_map():
    nothing = np.zeros(2, "f")
    figure: Figure = query_map(nothing, np.zeros((2, 2), "f"), nothing, 0.3)  # type: ignore[assignment]
    assert len(figure.axes[0].collections[0].get_offsets()) == 0
    assert figure.axes[0].collections[0].get_clim() == (0, 0.5)
    assert figure.axes[0].get_title().startswith("0 of 2 queries")
    assert not figure.legends


@pytest.mark.usefixtures("unpainted")
def test_a_curve_is_precision_over_recall():
    falling, low = np.linspace(1, 0, 101), np.linspace(0.5, 0, 5)
    figure: Figure = pr_curves({"mask": {"0.50": falling, "0.75": low}, "box": {"0.50": low}})  # type: ignore[assignment]
    mask, box = figure.axes
    assert (mask.get_title(), box.get_title()) == ("mask", "box")
    assert (mask.get_xlabel(), mask.get_ylabel()) == ("recall", "precision")
    assert [line.get_label() for line in mask.lines] == ["0.50", "0.75"]
    np.testing.assert_allclose(mask.lines[0].get_xydata(), np.stack([np.linspace(0, 1, 101), falling], 1))
    np.testing.assert_allclose(box.lines[0].get_xydata(), np.stack([np.linspace(0, 1, 5), low], 1))
    assert (box.get_xlim(), box.get_ylim()) == ((0, 1), (0, 1.02))


def test_a_picture_has_the_colours_of_the_figure():
    figure = Figure(figsize=(1, 2), dpi=50, facecolor=(1.0, 0.5, 0.0))
    picture = figures._picture(figure)
    assert picture.shape == (100, 50, 3)
    assert picture[0, 0].tolist() == [round(255 * part) for part in mpl.colors.to_rgb((1.0, 0.5, 0.0))]
