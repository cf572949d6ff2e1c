"""Histograms of splits beside each other."""

import numpy as np
import pytest

from queryinst.visualize.charts import LEFT, PAINTS, WIDTH, draw, histogram, shares


def test_a_bin_reaches_up_to_and_with_its_upper_edge():
    chart = histogram("sides", {"train": [0, 1, 2, 2, 9], "val": []}, [0, 1, 2, 4], ["1", "2", "4"])
    assert chart.shares["train"] == pytest.approx([0.4, 0.4, 0.2])
    assert chart.shares["val"].tolist() == [0, 0, 0], "nothing is no division by zero"


def test_the_taller_bar_has_more_of_its_colour():
    chart = shares("objects", ["cat", "dog"], {"train": [3, 1], "val": [1, 1]})
    picture = draw([chart, chart, chart])
    assert picture.shape[1] == 2 * WIDTH
    panel, middle = picture[: picture.shape[0] // 2, :WIDTH], (LEFT + WIDTH) // 2
    of_train = (panel == PAINTS[0]).all(2)
    assert of_train[:, :middle].sum() > 2.5 * of_train[:, middle:].sum()
    assert (picture[-100:, WIDTH:] == 255).all(), "the last place is empty"


def test_no_categories_and_no_objects():
    assert draw([shares("none", [], {"train": [], "val": []})] * 2).shape[2] == 3
    assert np.isfinite(histogram("none", {"train": []}, [0, 1], ["1"]).shares["train"]).all()
