"""Geometry: one affine map for image, boxes and masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queryinst.data.transforms import Geometry, Instances, fit
from queryinst.ops.masks import LocalMask, rasterise

SIDE = 112
DIAMOND = [np.array([[30.2, 10.1], [49.7, 29.6], [30.4, 49.8], [10.3, 30.7]])]


def diamond(as_bitmap: bool) -> Instances:
    outline = LocalMask(rasterise([DIAMOND], 60, 80)[0, 10:50, 10:50], 10, 10) if as_bitmap else DIAMOND
    return Instances(np.array([[10.0, 10, 50, 50]]), np.zeros(1, np.int64), [outline])


def whole(instance: Instances, geometry: Geometry) -> np.ndarray:
    """The stored mask of one object as a bitmap of the frame."""
    regions = instance.regions(geometry.height, geometry.width, SIDE)
    (region,), (stored,) = regions, instance.draw(regions, SIDE, geometry.height, geometry.width)
    y, x = np.mgrid[: geometry.height, : geometry.width] + 0.5
    column = ((x - region[0]) / (region[2] - region[0]) * SIDE).astype(int)
    row = ((y - region[1]) / (region[3] - region[1]) * SIDE).astype(int)
    inside = (column >= 0) & (column < SIDE) & (row >= 0) & (row < SIDE) & (x > region[0]) & (y > region[1])
    return np.where(inside, stored[row.clip(0, SIDE - 1), column.clip(0, SIDE - 1)], 0)


def enlarged(bitmap: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A bitmap of the image file seen in the frame: at least one half between the centres of its pixels."""
    padded = np.pad(bitmap, 1).astype(float)
    rows, columns = np.arange(geometry.height) + 0.5, np.arange(geometry.width) + 0.5
    weights = []
    for axis, places in ((1, rows), (0, columns)):
        at = (places - geometry.offset[axis]) / geometry.scale[axis] + 0.5
        cells = np.arange(padded.shape[1 - axis])
        weights.append(np.maximum(0, 1 - np.abs(at[:, None] - cells)))
    return (weights[0] @ padded @ weights[1].T >= 0.5).astype(np.uint8)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / max(1, (a | b).sum())


chains = st.lists(
    st.one_of(
        st.just(("flip",)),
        st.tuples(st.just("resize"), st.integers(30, 300), st.integers(30, 300)),
        st.tuples(st.just("crop"), st.floats(0, 0.4), st.floats(0, 0.4), st.floats(0.5, 1), st.floats(0.5, 1)),
    ),
    max_size=4,
)


def build(chain: list[tuple], height: int = 60, width: int = 80) -> Geometry:
    geometry = Geometry.identity(height, width)
    for name, *numbers in chain:
        if name == "flip":
            geometry = geometry.flip()
        elif name == "resize":
            geometry = geometry.resize(*numbers)
        else:
            left, top, tall, wide = numbers
            crop_height, crop_width = max(1, int(geometry.height * tall)), max(1, int(geometry.width * wide))
            left, top = int((geometry.width - crop_width) * left), int((geometry.height - crop_height) * top)
            geometry = geometry.crop(left, top, crop_height, crop_width)
    return geometry


def test_flip_twice_is_nothing():
    twice, pixels = (
        Geometry.identity(60, 80).flip().flip(),
        np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8),
    )
    assert (twice.image(pixels) == pixels).all()
    moved = twice.instances(diamond(False))
    assert (moved.boxes == [10, 10, 50, 50]).all()
    assert (Geometry.identity(60, 80).flip().image(pixels) == pixels[:, ::-1]).all()


@settings(max_examples=150, deadline=None)
@given(chains, st.booleans())
def test_box_and_mask_agree_after_every_chain(chain: list[tuple], as_bitmap: bool):
    """The moved mask is the moved outline drawn afresh, and no pixel of it lies outside the moved box."""
    geometry = build(chain)
    moved = geometry.instances(diamond(as_bitmap))
    if as_bitmap:
        expected = enlarged(rasterise([DIAMOND], 60, 80)[0], geometry)
    else:
        polygons = [polygon * geometry.scale + geometry.offset for polygon in DIAMOND]
        (expected,) = rasterise([polygons], geometry.height, geometry.width)
    if not len(moved):
        assert expected.sum() <= geometry.height + geometry.width
        return
    drawn = whole(moved, geometry)
    border = geometry.height + geometry.width + 8 * SIDE  # a rim of half a pixel may differ
    assert overlap(drawn, expected) > 0.85 or (drawn != expected).sum() < 0.02 * border
    y, x = np.nonzero(drawn)
    slack = 1.5 + 1.5 * np.abs(geometry.scale).max() * as_bitmap
    if len(x):
        assert x.min() >= moved.boxes[0][0] - slack
        assert x.max() + 1 <= moved.boxes[0][2] + slack
        assert y.min() >= moved.boxes[0][1] - slack
        assert y.max() + 1 <= moved.boxes[0][3] + slack


def test_a_crop_is_the_crop_of_the_rendered_mask():
    geometry = Geometry.identity(60, 80).crop(20, 15, 30, 40)
    for as_bitmap in (False, True):
        moved = geometry.instances(diamond(as_bitmap))
        differs = (whole(moved, geometry) != rasterise([DIAMOND], 60, 80)[0, 15:45, 20:60]).sum()
        assert differs <= (0 if as_bitmap else 6)  # pycocotools rounds vertices left of the frame the other way


@pytest.mark.parametrize("as_bitmap", [False, True])
@pytest.mark.parametrize("zoom", [1, 5])
def test_a_cut_object_ends_with_the_image(as_bitmap: bool, zoom: int):
    """Not in the padding of the batch: there the published targets are zero."""
    geometry = Geometry.identity(60, 80).resize(60 * zoom, 80 * zoom).crop(20 * zoom, 15 * zoom, 20 * zoom, 15 * zoom)
    moved = geometry.instances(diamond(as_bitmap))
    regions = moved.regions(geometry.height, geometry.width, SIDE)
    (region,), (stored,) = regions, moved.draw(regions, SIDE, geometry.height, geometry.width)
    assert (region[2:] > [geometry.width, geometry.height]).all(), "the region goes on outside"
    y, x = ((np.flatnonzero(stored.any(1 - axis)) + 0.5) / SIDE for axis in (0, 1))
    right, bottom = region[:2] + np.array([x.max(), y.max()]) * (region[2:] - region[:2])
    assert geometry.width - 1 - zoom / 2 < right < geometry.width
    assert geometry.height - 1 - zoom / 2 < bottom < geometry.height


def test_image_and_box_move_together():
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[10:50, 10:50] = 255
    for chain in (
        [("flip",)],
        [("resize", 120, 240)],
        [("flip",), ("resize", 90, 100), ("crop", 0.2, 0.2, 0.8, 0.8), ("resize", 140, 130)],
    ):
        geometry = build(chain)
        moved = geometry.instances(diamond(False))
        y, x = np.nonzero(geometry.image(pixels)[..., 0] > 127)
        np.testing.assert_allclose([x.min(), y.min(), x.max() + 1, y.max() + 1], moved.boxes[0], atol=1.01)


def test_an_object_outside_the_crop_is_gone():
    assert len(Geometry.identity(60, 80).crop(60, 0, 60, 20).instances(diamond(False))) == 0


def test_small_objects_keep_the_images_pixels():
    (region,) = diamond(False).regions(60, 80, SIDE)
    assert (region[2:] - region[:2] == SIDE).all()
    outline = [np.array([[0.0, 0], [500, 0], [500, 300], [0, 300]])]
    large = Instances(np.array([[0.0, 0, 500, 300]]), np.zeros(1, np.int64), [outline])
    assert (large.regions(640, 640, SIDE) == [[-1, -1, 501, 301]]).all()


def test_many_objects_at_once_are_each_alone():
    """Polygons, bitmaps and objects of several parts, moved and drawn together, in an order that mixes them."""
    two = [DIAMOND[0] * 0.4, DIAMOND[0] * 0.5 + 30]
    empty = LocalMask(np.zeros((0, 0), np.uint8), 40, 20)
    bitmap = diamond(True).outlines[0]
    outlines = [two, bitmap, DIAMOND, empty, two[1:], bitmap]
    boxes = np.array(
        [[4.0, 4, 56, 56], [10, 10, 50, 50], [70, 10, 79, 50], [10, 10, 50, 50], [34, 34, 56, 56], [1, 2, 3, 4]]
    )
    labels = np.arange(6)
    geometry = build([("flip",), ("resize", 90, 100), ("crop", 0.2, 0.2, 0.8, 0.8)])
    together = geometry.instances(Instances(boxes, labels, outlines))
    assert together.labels.tolist() == [0, 1, 2, 3, 4]  # the last leaves the frame
    regions = together.regions(geometry.height, geometry.width, SIDE)
    drawn = together.draw(regions, SIDE, geometry.height, geometry.width)
    assert drawn.any(axis=(1, 2)).tolist() == [True, True, True, False, True]
    for index, label in enumerate(together.labels):
        alone = geometry.instances(Instances(boxes[[label]], labels[[label]], [outlines[label]]))
        assert (alone.boxes == together.boxes[[index]]).all()
        assert (alone.regions(geometry.height, geometry.width, SIDE) == regions[[index]]).all()
        assert (alone.draw(regions[[index]], SIDE, geometry.height, geometry.width) == drawn[[index]]).all()


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (800, 1067)),
        (640, 480, (1067, 800)),
        (427, 640, (800, 1199)),
        (200, 1000, (267, 1333)),
        (1, 5000, (1, 1333)),
    ],
)
def test_fit_rounds_as_the_references(height: int, width: int, expected: tuple[int, int]):
    assert fit(height, width, 800, 1333) == expected


def test_an_image_of_40_000_pixels_is_cropped_as_any_other():
    """OpenCV 4 refuses it."""
    pixels = np.zeros((8, 40_000, 3), np.uint8)
    pixels[:, 39_000:] = 200
    geometry = Geometry.identity(8, 40_000).resize(16, 80_000).crop(77_000, 0, 16, 2000)
    moved = geometry.image(pixels)
    assert moved.shape == (16, 2000, 3)
    assert (moved[:, 1002:] == 200).all()
    assert (moved[:, :998] == 0).all()
