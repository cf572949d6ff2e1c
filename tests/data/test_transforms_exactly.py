"""Geometry in exact numbers: maps, regions, stored masks, and all that can be drawn."""

import numpy as np
import pytest

from queryinst.config import AugmentationConfig
from queryinst.data.transforms import EvaluationGeometry, Geometry, Instances, TrainGeometry, fit
from queryinst.ops.masks import LocalMask, rasterise


def corner_points(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def instances(*outlines: list[np.ndarray] | LocalMask, **how: np.ndarray) -> Instances:
    return Instances(np.zeros((len(outlines), 4)), np.arange(len(outlines)), list(outlines), **how)


def square(left: float, top: float, right: float, bottom: float) -> Instances:
    return instances([corner_points(left, top, right, bottom)])


def test_each_step_is_one_affine_map():
    geometry = Geometry.identity(60, 80).flip().resize(90, 160).crop(10, 20, 30, 50)
    assert geometry.scale.tolist() == [-2, 1.5]
    assert geometry.offset.tolist() == [150, -20]
    assert (geometry.height, geometry.width) == (30, 50)
    moved = geometry.instances(square(20, 30, 40, 50))
    assert len(moved) == 0, "its box is empty"
    again = geometry.instances(Instances(np.array([[60.0, 20, 70, 30]]), np.array([5]), [[np.zeros((3, 2))]]))
    assert again.boxes.tolist() == [[10, 10, 30, 25]]
    assert again.scale.tolist() == [-2, 1.5]
    assert again.offset.tolist() == [150, -20]
    further = Geometry.identity(30, 50).resize(60, 150).crop(1, 2, 9, 9).instances(again)
    assert further.scale.tolist() == [-6, 3]
    assert further.offset.tolist() == [449, -42]


def test_boxes_are_clipped_and_those_that_only_touch_the_frame_are_gone():
    boxes = np.array([[-5.0, -4, 30, 40], [50, 0, 60, 10], [0, 30, 10, 30.5], [49, 29, 60, 60], [-9, 0, 0, 9]])
    found = Instances(boxes, np.arange(5), [[np.full((3, 2), key)] for key in range(5)], tracks=np.arange(5) + 10)
    moved = Geometry.identity(30, 50).instances(found)
    assert moved.boxes.tolist() == [[0, 0, 30, 30], [49, 29, 50, 30]]
    assert moved.labels.tolist() == [0, 3]
    assert [polygon[0, 0] for (polygon,) in moved.outlines] == [0, 3]
    assert moved.tracks.tolist() == [10, 13]


def test_extents_of_polygons_in_parts_and_of_bitmaps():
    parts = [corner_points(5, 1, 8, 4), corner_points(2, 3, 4, 9)]
    bitmap = LocalMask(np.ones((3, 7), np.uint8), 20, 10)
    found = instances(parts, bitmap, parts[:1], scale=np.array([2.0, -0.5]), offset=np.array([3.0, 40]))
    assert found.extents().tolist() == [[7, 35.5, 19, 39.5], [43, 33.5, 57, 35], [13, 38, 19, 39.5]]
    assert instances().extents().shape == (0, 4)
    assert Instances.none().extents().shape == Instances.none().boxes.shape == (0, 4)
    assert Instances.none().labels.dtype == np.int64


@pytest.mark.parametrize(
    ("outline", "region"),
    [
        ((10.5, 20.25, 13.2, 22), (9, 19, 17, 27)),
        ((10, 20, 11, 21), (9, 19, 17, 27)),  # one pixel
        ((0.2, 0.3, 3, 3), (0, 0, 8, 8)),  # not left of the canvas
        ((39.5, 20, 44, 39.5), (38, 19, 46, 41)),  # beyond the image, into the padding
        ((49.5, 39.5, 49.9, 39.9), (48, 38, 56, 46)),
        ((10, 20, 16, 26), (9, 19, 17, 27)),  # with one to spare on each side as wide as the stored mask
        ((10, 20, 16.1, 26.1), (9, 19, 18, 28)),
        ((-20, -30, 7.5, 5), (-1, 0, 9, 8)),  # what is visible of it
        ((45, 35, 500, 500), (44, 34, 52, 42)),
        ((30, 25, 500, 500), (29, 24, 51, 41)),
    ],
)
def test_regions(outline: tuple[float, ...], region: tuple[float, ...]):
    """Of an image of 40 x 50 pixels, which is padded to 64 x 64, with stored masks of side 8."""
    found = square(*outline).regions(40, 50, 8)
    assert found.tolist() == [list(region)]
    assert found.dtype == np.float32


def test_a_region_ends_with_the_canvas():
    assert square(60, 30, 62, 31).regions(32, 64, 8).tolist() == [[56, 24, 64, 32]]
    assert square(60, 30, 62, 31).regions(33, 65, 8).tolist() == [[59, 29, 67, 37]]
    assert square(20, 10, 22, 12).regions(32, 32, 40).tolist() == [[0, 0, 40, 40]], "a canvas smaller than the mask"


def test_a_bitmap_is_stored_as_it_is_where_pixels_are_kept():
    bitmap = np.random.default_rng(0).integers(0, 2, (5, 6)).astype(np.uint8)
    found = instances(LocalMask(bitmap, 20, 10))
    regions = found.regions(40, 50, 8)
    expected = np.zeros((1, 8, 8), np.uint8)
    expected[0, 1:6, 1:7] = bitmap
    stored = found.draw(regions, 8, 40, 50)
    assert regions.tolist() == [[19, 9, 27, 17]]
    assert (stored == expected).all()
    assert stored.dtype == np.uint8


@pytest.mark.parametrize(
    ("shift", "first", "last"), [(0, 4, 6), (0.25, 4, 6), (0.5, 4, 7), (17 / 32, 5, 7), (-0.5, 3, 6), (-0.25, 4, 6)]
)
def test_half_a_pixel_of_a_moved_bitmap_counts(shift: float, first: int, last: int):
    """Bytes of 0 and 255 between pixels: 127.5 is rounded to 128, the threshold; a step less is 120."""
    for axis in (0, 1):
        offset = np.zeros(2)
        offset[axis] = shift
        found = instances(LocalMask(np.ones((3, 3), np.uint8), 4, 4), offset=offset)
        (stored,) = found.draw(np.array([[0, 0, 16, 16]], np.float32), 16, 16, 16)
        along, across = stored.any(axis=axis), stored.any(axis=1 - axis)
        assert np.flatnonzero(along).tolist() == list(range(first, last + 1))
        assert np.flatnonzero(across).tolist() == [4, 5, 6]


def test_less_than_half_a_pixel_of_a_moved_bitmap_does_not_count():
    """Of the first pixel 17 of 32 columns and 30 of 32 rows are covered: 127 of 255."""
    found = instances(LocalMask(np.ones((3, 3), np.uint8), 4, 4), offset=np.array([15, 2]) / 32)
    (stored,) = found.draw(np.array([[0, 0, 16, 16]], np.float32), 16, 16, 16)
    assert stored[4:7, 4:7].tolist() == [[0, 1, 1], [1, 1, 1], [1, 1, 1]]
    assert stored.sum() == 8


def test_one_pixel_grows_to_a_square_of_cells():
    """As polygon and as bitmap, in its region and after a zoom; each coordinate differs from the others."""
    for outline in ([corner_points(5, 3, 6, 4)], LocalMask(np.ones((1, 1), np.uint8), 5, 3)):
        found = Instances(np.array([[5.0, 3, 6, 4]]), np.zeros(1, np.int64), [outline])
        regions = found.regions(40, 50, 8)
        assert regions.tolist() == [[4, 2, 12, 10]]
        assert np.argwhere(found.draw(regions, 8, 40, 50)[0]).tolist() == [[1, 1]]
        moved = Geometry.identity(40, 50).resize(80, 100).crop(4, 3, 70, 90).instances(found)
        assert moved.boxes.tolist() == [[6, 3, 8, 5]]
        regions = moved.regions(70, 90, 8)
        assert regions.tolist() == [[5, 2, 13, 10]]
        cells = moved.draw(regions, 8, 70, 90)[0]
        assert np.argwhere(cells).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]


def test_what_lies_outside_the_image_is_not_drawn():
    """Also a cell whose centre is on the border: regions by hand, of objects that go on everywhere."""
    everywhere = [corner_points(-50, -50, 150, 150)]
    bitmap = LocalMask(np.ones((200, 200), np.uint8), -50, -50)
    regions = np.array([[-2.5, -2.5, 5.5, 5.5], [8, 16.5, 24, 32.5], [3, 4, 11, 12], [-1, 10, 7, 18]], np.float32)
    for outline in (everywhere, bitmap):
        drawn = instances(*[outline] * 4).draw(regions, 8, 20, 14)
        columns = [np.flatnonzero(mask.any(axis=0)).tolist() for mask in drawn]
        rows = [np.flatnonzero(mask.any(axis=1)).tolist() for mask in drawn]
        assert columns == [[3, 4, 5, 6, 7], [0, 1, 2], [*range(8)], [1, 2, 3, 4, 5, 6, 7]]
        assert rows == [[3, 4, 5, 6, 7], [0, 1], [*range(8)], [*range(8)]]


def test_polygons_are_drawn_as_if_each_were_moved_by_hand():
    rng = np.random.default_rng(0)
    outlines = [[rng.uniform(0, 50, (4, 2)) for _ in range(parts)] for parts in (1, 3, 2)]
    scale, offset = np.array([1.5, 0.75]), np.array([-4.0, 6])
    found = instances(*outlines, scale=scale, offset=offset)
    regions = np.array([[0, 0, 40, 40], [4, 8, 20, 16], [10, 5, 26, 37]], np.float32)
    drawn = found.draw(regions, 16, 60, 90)
    for mask, outline, region in zip(drawn, outlines, regions, strict=True):
        size = region[2:] - region[:2]
        moved = [(polygon * scale + offset - region[:2]) / size * 16 for polygon in outline]
        assert (mask == rasterise([moved], 16, 16)[0]).all()


def resampled(pixels: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Each pixel of the result by itself: where its centre was, between the four pixels around, repeated at the rim."""
    height, width = pixels.shape[:2]
    made = np.zeros((geometry.height, geometry.width, 3))
    for row, column in np.ndindex(geometry.height, geometry.width):
        x, y = (np.array([column, row]) + 0.5 - geometry.offset) / geometry.scale - 0.5
        for dx in (0, 1):
            for dy in (0, 1):
                left, top = int(np.floor(x)) + dx, int(np.floor(y)) + dy
                weight = (1 - abs(x - left)) * (1 - abs(y - top))
                made[row, column] += weight * pixels[np.clip(top, 0, height - 1), np.clip(left, 0, width - 1)]
    return made


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.identity(7, 9),
        Geometry.identity(7, 9).crop(2, 3, 4, 5),
        Geometry.identity(7, 9).flip().crop(1, 2, 5, 4),
        Geometry.identity(7, 9).resize(14, 36),
        Geometry.identity(7, 9).flip().resize(14, 36),
        Geometry.identity(7, 9).resize(14, 36).crop(0, 0, 9, 11),
        Geometry.identity(7, 9).flip().resize(28, 18).crop(7, 19, 9, 11),
        Geometry.identity(7, 9).resize(14, 18).crop(0, 5, 9, 18),
    ],
)
def test_pixels_are_resampled_between_centres(geometry: Geometry):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    made = geometry.image(pixels)
    assert made.dtype == np.uint8
    np.testing.assert_allclose(made, resampled(pixels, geometry), atol=1.01)


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


def test_evaluation_has_sides_of_its_own():
    config = AugmentationConfig(short_sides=[70], test_short_side=40, long_side=100)
    for sides, expected in (((20, 30), (40, 60)), ((30, 20), (60, 40)), ((20, 100), (20, 100))):
        geometry = EvaluationGeometry(config)(*sides, np.random.default_rng(0))
        assert (geometry.height, geometry.width) == expected
        assert geometry.scale.tolist() == [expected[1] / sides[1], expected[0] / sides[0]]
        assert geometry.offset.tolist() == [0, 0]
