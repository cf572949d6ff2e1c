"""Pasting and tracing pixel by pixel: at the threshold, above and below one half, at the border of the image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from queryinst.ops.codes import encode_all
from queryinst.ops.masks import (
    bounds,
    compressed,
    decode,
    encode,
    from_edges,
    overlaps,
    paste,
    rasterise,
    run_lengths,
)


def both(
    probabilities: list[list[float]], box: list[float], size: tuple[int, int], **options: float
) -> tuple[list[list[int]], list[list[int]]]:
    """The whole image, by `paste` and by `encode_all`."""
    mask, where = np.array(probabilities, np.float32), np.array(box, np.float32)
    pasted = paste(mask, where, size, **options).paste_into(np.zeros(size, np.uint8))
    return pasted.tolist(), coco_mask.decode(encode_all(mask[None], where[None], size, **options)[0]).tolist()


def slowly(probabilities: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The value of every pixel whose centre lies in the box, -1 elsewhere."""
    (rows, columns), (height, width) = probabilities.shape, size
    padded = np.pad(probabilities.astype(float), 1)
    values = np.full(size, -1.0)
    for i in range(height):
        for j in range(width):
            if box[0] <= j + 0.5 <= box[2] and box[1] <= i + 0.5 <= box[3]:
                x = (j + 0.5 - box[0]) / (box[2] - box[0]) * columns + 0.5
                y = (i + 0.5 - box[1]) / (box[3] - box[1]) * rows + 0.5
                c, r = min(int(x), columns), min(int(y), rows)
                across = padded[r : r + 2, c] * (c + 1 - x) + padded[r : r + 2, c + 1] * (x - c)
                values[i, j] = across @ [r + 1 - y, y - r]
    return values


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 5),
    st.integers(0, 2**31),
    st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.95]),
)
def test_pixels_are_one_where_the_mask_reaches_the_threshold(
    height: int, width: int, rows: int, columns: int, seed: int, threshold: float
):
    rng = np.random.default_rng(seed)
    size, probabilities = (height, width), rng.random((rows, columns), np.float32)
    low = rng.uniform(-6, [width + 2, height + 2])
    box = np.array([*low, *(low + rng.uniform(0.1, [width + 6, height + 6]))], np.float32)
    values = slowly(probabilities, box.astype(float), size)
    sure = np.abs(values - threshold) > 1e-4
    pasted = paste(probabilities, box, size, threshold).paste_into(np.zeros(size, np.uint8))
    traced = coco_mask.decode(encode_all(probabilities[None], box[None], size, threshold)[0])
    for found in (pasted, traced):
        assert (found == (values >= threshold))[sure].all()


@pytest.mark.parametrize("threshold", [0.25, 0.5, 0.75])
def test_a_value_equal_to_the_threshold_is_in_the_mask(threshold: float):
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    for way in both([[threshold]], [1, 2, 2, 3], (4, 3), threshold=threshold):
        assert way == [[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0]]
    for way in both([[below]], [1, 2, 2, 3], (4, 3), threshold=threshold):
        assert not np.any(way)


def test_the_threshold_is_one_half_where_none_is_given():
    for way in both([[0.5, 0.49]], [0, 0, 2, 1], (1, 2)):
        assert way == [[1, 0]]


@pytest.mark.parametrize(("threshold", "ones"), [(0.24, 3), (0.25, 3), (0.26, 2), (0.75, 2), (0.76, 0)])
def test_pixels_between_two_cells_have_the_share_of_each(threshold: float, ones: int):
    """Two cells, 1 and 0, along four pixels: 3/4, 3/4, 1/4 and 0."""
    expected = [1] * ones + [0] * (4 - ones)
    for way in both([[1], [0]], [0, 0, 1, 4], (4, 1), threshold=threshold):
        assert np.ravel(way).tolist() == expected
    for way in both([[1, 0]], [0, 0, 4, 1], (1, 4), threshold=threshold):
        assert np.ravel(way).tolist() == expected


def test_a_low_threshold_does_not_reach_beyond_the_box():
    expected = np.zeros((9, 8), int)
    expected[3:6, 2:6] = 1
    for way in both([[1, 1], [1, 1]], [2, 3, 6, 6], (9, 8), threshold=0.01):
        assert way == expected.tolist()


@pytest.mark.parametrize(
    ("box", "corner", "shape"),
    [
        ([-9, -9, -3, -2], (0, 0), (0, 0)),
        ([30, 40, 33, 44], (8, 6), (0, 0)),
        ([-2, -3, 2, 2], (0, 0), (2, 2)),
        ([5, 3, 12, 20], (5, 3), (3, 3)),
        ([2, 4, 2, 5], (0, 4), (1, 0)),
        ([4, 5, 2, 3], (0, 0), (0, 0)),
        ([0.5, 1.5, 2.5, 2.5], (0, 1), (2, 3)),  # a pixel whose centre lies on the box's side is inside
        ([0.6, 1.6, 1.4, 2.4], (1, 2), (0, 0)),
    ],
)
def test_a_pasted_bitmap_has_the_pixels_of_the_box_that_are_in_the_image(
    box: list[float], corner: tuple[int, int], shape: tuple[int, int]
):
    mask = paste(np.ones((2, 2), np.float32), np.array(box, np.float32), (6, 8))
    assert ((mask.left, mask.top), mask.bitmap.shape) == (corner, shape)
    assert mask.bitmap.dtype == np.uint8


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_ones_begin_and_end_at_the_edges(height: int, width: int, data: st.DataObject):
    pixels = height * width
    edges = data.draw(st.lists(st.integers(0, pixels), max_size=10).filter(lambda e: len(e) % 2 == 0).map(sorted))
    [rle] = from_edges(np.array(edges, np.int64), (height, width))
    ones = [sum(edge <= pixel for edge in edges) % 2 for pixel in range(pixels)]
    assert rle["size"] == [height, width]
    assert coco_mask.decode(rle).ravel(order="F").tolist() == ones
    # The one way in which pycocotools writes it, so that equal masks are equal codes.
    assert rle == coco_mask.encode(np.asfortranarray(np.array(ones, np.uint8).reshape(width, height).T))


@pytest.mark.parametrize(
    "runs",
    [
        [0, 20_000_000],
        [20_000_000],
        [15, 16, 17, 31, 32, 33, 20_000_000 - 144],
        [3, 9_000_000, 5_000_000, 1, 2, 4_999_999, 999_995],
        [1, 2, 3, 2, 1, 20_000_000 - 9],
    ],
)
def test_run_lengths_reads_long_runs_and_falling_ones(runs: list[int]):
    rle = coco_mask.frPyObjects({"size": [5000, 4000], "counts": runs}, 5000, 4000)
    for counts in (rle["counts"], rle["counts"].decode(), runs):
        found = run_lengths({"size": [5000, 4000], "counts": counts})
        assert (found.tolist(), found.dtype) == (runs, np.int64)


def test_decode_of_an_empty_mask_is_an_empty_bitmap_in_the_corner():
    for counts in ([12], [5, 0, 7], [0, 0, 12]):
        mask = decode({"size": [3, 4], "counts": counts})
        assert (mask.bitmap.shape, mask.left, mask.top, mask.bitmap.dtype) == ((0, 0), 0, 0, np.uint8)


SQUARE = {"size": [3, 4], "counts": [4, 2, 1, 2, 3]}  # the pixels (1, 1), (2, 1), (1, 2), (2, 2) of x, y


def test_compressed_and_bounds_take_what_annotation_files_have():
    polygon = [[1.0, 1, 3, 1, 3, 3, 1, 3]]
    code = compressed(SQUARE, 3, 4)
    assert isinstance(code["counts"], bytes)
    assert compressed(polygon, 3, 4) == code
    assert compressed(code, 3, 4) is code
    assert coco_mask.decode(code).tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    parts = [polygon[0], [3.0, 0, 4, 0, 4, 1, 3, 1]]
    assert coco_mask.decode(compressed(parts, 3, 4)).tolist() == [[0, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]]
    assert bounds(SQUARE) == bounds(code) == (1, 1, 3, 3)
    assert bounds({"size": [3, 4], "counts": [7, 2, 3]}) == (2, 1, 3, 3)


def test_overlaps_are_of_each_with_each():
    def row(first: int, last: int) -> dict:
        return coco_mask.encode(np.asfortranarray([[first <= x < last for x in range(10)]], dtype=np.uint8))

    found = overlaps([row(0, 4), row(2, 6), row(0, 0)], [row(0, 8), row(0, 0)])
    assert found.tolist() == [[0.5, 0], [0.5, 0], [0, 0]]
    assert overlaps([row(0, 4)], [row(2, 6)]).tolist() == [[pytest.approx(1 / 3)]]
    for a, b in ((0, 0), (0, 2), (3, 0)):
        assert overlaps([row(0, 1)] * a, [row(0, 1)] * b).shape == (a, b)


def test_encode_all_traces_each_mask_in_its_own_box():
    masks = np.array([[[1, 1]], [[1, 0]]], np.float32)
    boxes = np.array([[0, 0, 2, 1], [2, 1, 4, 2]], np.float32)
    codes = encode_all(masks, boxes, (2, 5))
    assert [coco_mask.decode(code).tolist() for code in codes] == [
        [[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]],
        [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0]],
    ]
    assert encode_all(masks[:0], boxes[:0], (2, 5)) == []
    with pytest.raises(ValueError, match="2 masks and 1 boxes"):
        encode_all(masks, boxes[:1], (2, 5))


def test_rasterise_keeps_outlines_apart_and_unites_the_polygons_of_each():
    def square(x: int, y: int) -> np.ndarray:
        return np.array([[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]], float)

    found = rasterise([[square(0, 0), square(2, 1)], [square(1, 1)], [square(1, 0), square(0, 1), square(2, 0)]], 2, 3)
    assert found.dtype == np.uint8
    assert found.tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]], [[0, 1, 1], [1, 0, 0]]]


def blobs(count: int, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks of noise, and boxes that may leave the image, be empty, or have no number."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(-20, [width, height], (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(-3, 60, (count, 2))], axis=1).astype(np.float32)
    boxes[::7] = boxes[::7].round()
    boxes[3::50] = np.nan
    masks = rng.uniform(0, 1, (count, 9, 14)).astype(np.float32)
    return masks, boxes


@pytest.mark.parametrize("columns", [1, 50, 4096])
def test_many_masks_together_have_the_pixels_of_each_alone(columns: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("queryinst.ops.codes.COLUMNS", columns)
    masks, boxes = blobs(200, 70, 90, 0)
    for threshold in (0.3, 0.5, 0.7):
        codes = encode_all(masks, boxes, (70, 90), threshold)
        alone = (paste(mask, box, (70, 90), threshold) for mask, box in zip(masks, boxes, strict=True))
        assert codes == [encode(mask, (70, 90)) for mask in alone]


def test_edges_of_several_masks_are_kept_apart():
    # 2 x 3 pixels: all, none, the last and nothing, the first, two runs that touch.
    edges = [[0, 6], [], [5, 6, 6, 6], [0, 1], [1, 3, 3, 4]]
    places = np.concatenate([np.array(one, np.int64) + k * 7 for k, one in enumerate(edges)])
    codes = from_edges(places, (2, 3), 5)
    bitmaps = [coco_mask.decode(code).ravel(order="F").tolist() for code in codes]
    assert bitmaps == [[1] * 6, [0] * 6, [0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0]]
    assert codes == [coco_mask.encode(np.asfortranarray(np.reshape(b, (3, 2)).T.astype(np.uint8))) for b in bitmaps]
    assert from_edges(places[:0], (2, 3), 0) == []


def test_a_run_that_codes_cannot_hold_is_named():
    with pytest.raises(ValueError, match="a run of 4900000000 pixels, in masks of 70000 x 70000"):
        from_edges(np.zeros(0, np.int64), (70000, 70000))
