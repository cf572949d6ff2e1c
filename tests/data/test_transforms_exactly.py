"""Geometry in exact numbers: maps, regions, stored masks and pixels."""

import cv2
import numpy as np
import pytest

from queryinst.data.transforms import Geometry, Instances
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


def test_a_crop_is_mirrored_about_its_own_middle():
    geometry = Geometry.identity(60, 80).resize(90, 160).crop(10, 20, 30, 50).flip()
    assert geometry.scale.tolist() == [-2, 1.5]
    assert geometry.offset.tolist() == [60, -20]
    assert (geometry.height, geometry.width) == (30, 50)


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


def test_each_object_may_have_a_map_of_its_own():
    outlines = [[corner_points(5, 1, 8, 4), corner_points(2, 3, 4, 9)], LocalMask(np.ones((3, 7), np.uint8), 20, 10)]
    scale, offset = np.array([[2.0, -0.5], [1, 3]]), np.array([[3.0, 40], [-20, -30]])
    found = instances(*outlines, scale=scale, offset=offset)
    assert found.extents().tolist() == [[7, 35.5, 19, 39.5], [0, 0, 7, 9]]
    assert found.take(np.array([1])).extents().tolist() == [[0, 0, 7, 9]]
    (mask,) = found.take(np.array([1])).draw(np.array([[0, 0, 12, 12]], np.float32), 12, 20, 20)
    assert np.argwhere(mask).min(axis=0).tolist() == [0, 0]
    assert np.argwhere(mask).max(axis=0).tolist() == [8, 6]
    assert mask.sum() == 63
    assert instances().extents().shape == (0, 4)
    assert Instances.none().extents().shape == Instances.none().boxes.shape == (0, 4)
    assert Instances.none().labels.dtype == np.int64
    assert len(Instances.none()) == len(Instances.none().labels) == 0


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
        ((-20, 20, 6, 21), (0, 19, 8, 27)),
        ((-20, -30, 7.5, 5), (-1, 0, 9, 8)),  # what is visible of it
        ((45, 35, 500, 500), (44, 34, 52, 42)),
        ((30, 25, 500, 500), (29, 24, 51, 41)),
        ((60, 45, 70, 50), (49, 39, 57, 47)),  # nothing is
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
    assert square(-20, -20, -5, -5).regions(40, 50, 1).tolist() == [[-1, -1, 1, 1]]
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
    """Also a cell whose centre is on the border: regions by hand in 20 x 14 pixels, of objects that go on below 4."""
    below = [corner_points(-50, 4, 150, 150)]
    bitmap = LocalMask(np.ones((200, 200), np.uint8), -50, 4)
    regions = [[-2.5, -2, 5.5, 6], [7, 15, 23, 31], [3, 1, 11, 9], [-1, 10, 7, 18], [8, 2, 16, 10], [2, 14, 10, 22]]
    for outline in (below, bitmap):
        drawn = instances(*[outline] * 6).draw(np.array(regions, np.float32), 8, 20, 14)
        columns = [np.flatnonzero(mask.any(axis=0)).tolist() for mask in drawn]
        rows = [np.flatnonzero(mask.any(axis=1)).tolist() for mask in drawn]
        assert columns == [[3, 4, 5, 6, 7], [0, 1, 2], [*range(8)], [1, 2, 3, 4, 5, 6, 7], [*range(6)], [*range(8)]]
        assert rows == [[6, 7], [0, 1], [3, 4, 5, 6, 7], [*range(8)], [2, 3, 4, 5, 6, 7], [*range(6)]]


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


@pytest.mark.parametrize("sides", [(23, 31), (4, 5)])
def test_a_whole_image_is_resized_as_by_opencv(sides: tuple[int, int]):
    """To the last bit, as the published models saw it; a crop is sampled at fractions of 1/32, which differs."""
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3)).astype(np.uint8)
    expected = cv2.resize(pixels, sides[::-1], interpolation=cv2.INTER_LINEAR)
    geometry = Geometry.identity(7, 9).resize(*sides)
    assert (geometry.image(pixels) == expected).all()
    assert (Geometry.identity(7, 9).flip().resize(*sides).image(pixels) == expected[:, ::-1]).all()
    assert (geometry.crop(0, 0, sides[0], 4).image(pixels) != expected[:, :4]).any(), "else this test could not fail"
