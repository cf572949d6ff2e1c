"""Bars are as high as what they count, and every text has its place."""

import numpy as np
import pytest

from queryinst.visualize.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    LINE,
    PAINTS,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    draw,
    histogram,
    shares,
)
from queryinst.visualize.draw import Picture

HIGH = HEIGHT - TOP - BOTTOM
COUNTS = {"train": [3, 1], "val": [1, 1]}


def bars(picture: Picture, split: int) -> list[tuple[int, int, int]]:
    """Left, width and height of the bars of a split, above the base line."""
    body = (picture[TOP : HEIGHT - BOTTOM] == PAINTS[split]).all(-1)
    heights = body.sum(0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], heights > 0, [0]])))
    return [(int(a), int(b - a), int(heights[a])) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def changed(one: Picture, other: Picture) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what differs."""
    rows, columns = ((one != other).any(axis=axis).any(-1) for axis in (1, 0))
    return tuple(int(line.nonzero()[0][end]) for line, end in ((columns, 0), (rows, 0), (columns, -1), (rows, -1)))


def test_bars_are_as_high_as_their_shares_beside_each_other():
    picture = draw([shares("", ["", ""], COUNTS)], columns=1)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    step = (WIDTH - LEFT - RIGHT) / 2
    bar = 0.42 * step
    for split, parts in ((0, (1, 1 / 3)), (1, (2 / 3, 2 / 3))):
        for bin_, ((left, width, height), part) in enumerate(zip(bars(picture, split), parts, strict=True)):
            assert left == pytest.approx(LEFT + step * (bin_ + 0.08) + bar * split, abs=0.5)
            assert width == pytest.approx(bar, abs=1)
            assert height == pytest.approx(part * HIGH, abs=0.5)


def test_three_lines_are_at_nothing_the_half_and_the_highest():
    picture = draw([Chart("", [], {})], columns=1)
    column = (picture[:, WIDTH - RIGHT - 3] == LINE).all(-1)
    assert np.flatnonzero(column).tolist() == [TOP, TOP + HIGH // 2, TOP + HIGH]


def test_every_text_has_its_place():
    plain = draw([shares("", ["", ""], COUNTS)], columns=1)
    left, top, right, bottom = changed(plain, draw([shares("a title", ["", ""], COUNTS)], columns=1))
    assert LEFT <= left <= LEFT + 3
    assert top > 0
    assert bottom < TOP
    for bin_ in range(2):
        labels = ["", ""]
        labels[bin_] = "name"
        left, top, right, bottom = changed(plain, draw([shares("", labels, COUNTS)], columns=1))
        assert (left + right) / 2 == pytest.approx(LEFT + (WIDTH - LEFT - RIGHT) / 2 * (bin_ + 0.5), abs=3)
        assert HEIGHT - BOTTOM < top < bottom < HEIGHT - BOTTOM + 20
    other = draw([shares("", ["", ""], {"train": [3, 1], "others": [1, 1]})], columns=1)
    left, top, right, bottom = changed(plain, other)
    assert bottom < TOP
    assert WIDTH - RIGHT - 60 < left < right <= WIDTH - RIGHT + 1, "the last name ends at the right"
    scaled = draw([shares("", ["", ""], {"train": [7, 3], "val": [5, 5]})], columns=1)
    left, _, right, _ = changed(plain[:, :LEFT], scaled[:, :LEFT])
    assert right <= LEFT - 5, "percents end before the lines begin"


def test_labels_that_are_close_stand_on_two_lines():
    lowest = []
    for number in (8, 9):
        picture = draw([shares("", ["x"] * number, {"train": [0] * number})], columns=1)
        ink = (picture[HEIGHT - BOTTOM + 3 :] < 200).any(-1)
        columns = [ink[:, round(LEFT + (WIDTH - LEFT - RIGHT) / number * (bin_ + 0.5))].nonzero()[0] for bin_ in (0, 1)]
        lowest.append(int(columns[1].mean() - columns[0].mean()))
    assert lowest == [0, 14]


def test_numbers_beyond_the_edges_are_in_the_outermost_bins():
    chart = histogram("sides", {"train": [-5, 0, 1, 99], "val": [2]}, [0, 1, 2, 4], ["1", "2", "4"])
    assert chart.shares["train"] == pytest.approx([0.75, 0, 0.25])
    assert chart.shares["val"] == pytest.approx([0, 1, 0])
    assert (chart.title, list(chart.labels)) == ("sides", ["1", "2", "4"])


def test_panels_are_in_rows():
    one, other = shares("a", ["", ""], COUNTS), shares("b", ["", ""], {"train": [1, 3], "val": [1, 1]})
    panels = [draw([chart], columns=1) for chart in (one, other)]
    assert (draw([one, other]) == np.hstack(panels)).all()
    assert (draw([one, other], columns=1) == np.vstack(panels)).all()
    assert draw([one, other, one]).shape == (2 * HEIGHT, 2 * WIDTH, 3)
