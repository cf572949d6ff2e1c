"""What happens to training images: everything that can be drawn is drawn, and nothing else."""

import numpy as np
import pytest

from queryinst.config import AugmentationConfig
from queryinst.data.transforms import EvaluationGeometry, Geometry, TrainGeometry, fit


@pytest.mark.parametrize(
    ("sides", "limits", "expected"),
    [
        ((100, 200), (50, 1000), (50, 100)),
        ((200, 100), (1000, 50), (50, 25)),
        ((10, 15), (3, 99), (3, 5)),  # 4.5 is rounded up
        ((15, 10), (3, 99), (5, 3)),
        ((5000, 1), (800, 1333), (1333, 1)),
        ((1, 5000), (800, 1333), (1, 1333)),
        ((7, 7), (7, 7), (7, 7)),
    ],
)
def test_fit(sides: tuple[int, int], limits: tuple[int, int], expected: tuple[int, int]):
    assert fit(*sides, *limits) == expected


def drawn(times: int, height: int, width: int, **settings: object) -> list[Geometry]:
    rng = np.random.default_rng(0)
    draw = TrainGeometry(AugmentationConfig(**{"flip": 0.0, "short_sides": [60], **settings}))
    return [draw(height, width, rng) for _ in range(times)]


def seen(geometry: Geometry) -> tuple[int, int, int, int]:
    """left, top, width, height of the part of the image file that is left."""
    corners = (np.array([[0, 0], [geometry.width, geometry.height]]) - geometry.offset) / geometry.scale
    (left, top), (right, bottom) = np.round(corners, 6)
    assert all(value == int(value) for value in (left, top, right, bottom))
    return int(left), int(top), int(right - left), int(bottom - top)


def parts(side: int, smallest: int, largest: int) -> set[tuple[int, int]]:
    """Every begin and length that a crop of a side may have."""
    return {(begin, length) for length in range(smallest, largest + 1) for begin in range(side - length + 1)}


@pytest.mark.parametrize(
    ("crop_sides", "rows", "columns"),
    [([3, 5], parts(6, 3, 5), parts(9, 3, 5)), ([8, 20], {(0, 6)}, parts(9, 8, 9)), ([7, 8], {(0, 6)}, parts(9, 7, 8))],
)
def test_a_crop_may_lie_everywhere_and_have_every_size(
    crop_sides: list[int], rows: set[tuple[int, int]], columns: set[tuple[int, int]]
):
    found = [
        seen(geometry)
        for geometry in drawn(600, 6, 9, crop=1.0, crop_short_sides=[6], crop_sides=crop_sides, long_side=99)
    ]
    assert {(top, height) for _, top, _, height in found} == rows
    assert {(left, width) for left, _, width, _ in found} == columns
    assert {(left == 0, top == 0) for left, top, width, height in found if width < 9 and height < 6} == (
        {(a, b) for a in (False, True) for b in (False, True)} if len(rows) > 1 else set()
    ), "not along one line"


def test_before_a_crop_the_short_side_is_drawn():
    """12 x 18 pixels become 6 x 9 or 24 x 36, or what the long side allows, of which a square of 6 is kept."""
    for long_side, side, parts_left in ((99, 60, {12, 3}), (18, 18, {12, 6})):
        found = drawn(60, 12, 18, crop=1.0, crop_short_sides=[6, 24], crop_sides=[6, 6], long_side=long_side)
        assert {(geometry.height, geometry.width) for geometry in found} == {(side, side)}
        assert {tuple(side / geometry.scale) for geometry in found} == {(left, left) for left in parts_left}


def test_after_a_crop_its_own_sides_are_fitted():
    found = drawn(300, 6, 9, crop=1.0, crop_short_sides=[6], crop_sides=[3, 5], long_side=96)
    for geometry in found:
        _, _, width, height = seen(geometry)
        assert (geometry.height, geometry.width) == fit(height, width, 60, 96)


def test_flips_and_crops_are_as_frequent_as_asked_for():
    found = drawn(3000, 6, 9, flip=0.2, crop=0.3, crop_short_sides=[6], crop_sides=[4, 4], long_side=99)
    flipped = np.array([geometry.scale[0] < 0 for geometry in found])
    cropped = np.array([abs(geometry.scale[1]) == 15 for geometry in found])
    assert abs(flipped.mean() - 0.2) < 0.02
    assert abs(cropped.mean() - 0.3) < 0.02
    assert abs((flipped & cropped).mean() - 0.06) < 0.015, "one has nothing to do with the other"
    assert all(geometry.scale[1] > 0 for geometry in found)
    assert all(geometry.scale[0] < 0 for geometry in drawn(50, 6, 9, flip=1.0))


def test_short_sides():
    for between, expected in ((False, {36, 38, 40}), (True, {36, 37, 38, 39, 40})):
        found = drawn(200, 10, 20, short_sides=[38, 40, 36], between=between, long_side=1000)
        assert {geometry.height for geometry in found} == expected
        assert all(geometry.width == 2 * geometry.height for geometry in found)
    limited = drawn(50, 10, 20, short_sides=[36, 60], between=True, long_side=50)
    assert {(geometry.height, geometry.width) for geometry in limited} == {(25, 50)}


def test_jitter_has_every_size_and_lies_everywhere():
    """A factor of 0.5 to 1.5 on a square of 8: widths of 4 to 12, of which at most 8 are kept, from any column."""
    found = drawn(1500, 6, 8, scale_jitter=[0.5, 1.5], jitter_side=8)
    columns, rows = set(), set()
    for geometry in found:
        width, height = np.rint(geometry.scale * [8, 6]).astype(int).tolist()
        assert geometry.scale.tolist() == [width / 8, height / 6]
        assert height == int(width * 0.75 + 0.5)
        assert (geometry.height, geometry.width) == (min(height, 8), min(width, 8))
        columns.add((width, -geometry.offset[0]))
        rows.add((height, -geometry.offset[1]))
    assert columns == {(width, left) for width in range(4, 13) for left in range(max(0, width - 8) + 1)}
    assert rows == {(height, top) for height in range(3, 10) for top in range(max(0, height - 8) + 1)}


def test_jitter_replaces_the_crops_and_is_flipped():
    found = drawn(50, 6, 8, scale_jitter=[0.9, 1.5], jitter_side=8, flip=1.0, crop=1.0)
    assert all(geometry.scale[0] < 0 and max(geometry.height, geometry.width) <= 8 for geometry in found)
    tall = drawn(600, 8, 6, scale_jitter=[1.5, 1.5], jitter_side=8)
    assert {tuple(geometry.offset) for geometry in tall} == {(-x, -y) for x in range(2) for y in range(5)}


def test_published_sides_are_drawn():
    """With crops of 384 to 600 pixels out of a short side of 400, 500 or 600, as DETR has them."""
    found = drawn(60, 480, 640, short_sides=[480, 512], crop=1.0)
    assert {min(geometry.height, geometry.width) for geometry in found} == {480, 512}
    kept = np.array([[geometry.height, geometry.width] / geometry.scale[::-1] for geometry in found])
    assert kept.min() > 384 / 600 * 480 - 1
    assert (kept < [481, 641]).all()


def test_evaluation_has_sides_of_its_own():
    config = AugmentationConfig(short_sides=[70], test_short_side=40, long_side=100)
    for sides, expected in (((20, 30), (40, 60)), ((30, 20), (60, 40)), ((20, 100), (20, 100))):
        geometry = EvaluationGeometry(config)(*sides, np.random.default_rng(0))
        assert (geometry.height, geometry.width) == expected
        assert geometry.scale.tolist() == [expected[1] / sides[1], expected[0] / sides[0]]
        assert geometry.offset.tolist() == [0, 0]
