"""Plots as pictures: they differ with what they show, and work with nothing to show."""

import numpy as np

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
