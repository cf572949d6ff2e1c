"""Masks inside their boxes against bitmaps of the whole image and pycocotools."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from queryinst.ops.codes import encode_all
from queryinst.ops.masks import LocalMask, area, bounds, decode, encode, paste, rasterise, run_lengths

sides = st.integers(1, 90)


def paste_whole(probabilities: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The published way: sample the mask at every pixel of the image (reference, 1.11)."""
    y = (torch.arange(size[0]) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    x = (torch.arange(size[1]) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    where = torch.stack(torch.broadcast_tensors(x[None, :], y[:, None]), -1)[None].float()
    return (F.grid_sample(torch.from_numpy(probabilities)[None, None], where, align_corners=False)[0, 0] >= 0.5).numpy()


def canvas_of(mask: LocalMask, size: tuple[int, int]) -> np.ndarray:
    return mask.paste_into(np.zeros(size, np.uint8))


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(0, 2**31), st.booleans(), st.booleans())
def test_paste_and_encode_are_the_whole_image_way(height: int, width: int, seed: int, whole: bool, rounded: bool):
    rng = np.random.default_rng(seed)
    size = (height, width)
    probabilities = np.ones((28, 28), np.float32) if whole else rng.random((28, 28), np.float32)
    low, high = rng.uniform(-30, [width, height]), rng.uniform(0, [width + 30, height + 30])
    box = np.array([*np.minimum(low, high), *(np.maximum(low, high) + 0.3)], np.float32)
    box = box.round() + [0, 0, 1, 1] if rounded else box
    mask = paste(probabilities, box.astype(np.float32), size)
    expected = paste_whole(probabilities, box.astype(np.float32), size)
    # A pixel may flip where its value is one half to rounding.
    assert (canvas_of(mask, size) != expected).sum() <= 1
    assert encode(mask, size) == coco_mask.encode(np.asfortranarray(canvas_of(mask, size)))
    traced = coco_mask.decode(encode_all(probabilities[None], box[None].astype(np.float32), size))[..., 0]
    assert (traced != expected).sum() <= 1


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(0, 2**31), st.floats(0, 1))
def test_decode_gives_the_bitmap_back_in_its_own_box(height: int, width: int, seed: int, density: float):
    rng = np.random.default_rng(seed)
    bitmap = np.asfortranarray((rng.random((height, width)) < density) & (rng.random((height, 1)) < 0.7)).astype(
        np.uint8
    )
    rle = coco_mask.encode(bitmap)
    local = decode(rle)
    assert (canvas_of(local, (height, width)) == bitmap).all()
    assert area(rle) == bitmap.sum()
    if bitmap.any():
        assert [local.left, local.top, local.bitmap.shape[1], local.bitmap.shape[0]] == coco_mask.toBbox(rle).tolist()
    uncompressed = {"size": [height, width], "counts": run_lengths(rle).tolist()}
    assert coco_mask.frPyObjects(uncompressed, height, width) == rle
    as_text = {**rle, "counts": rle["counts"].decode()}
    assert (decode(as_text).bitmap == decode(uncompressed).bitmap).all()
    high, wide = local.bitmap.shape
    box = (local.left, local.top, local.left + wide, local.top + high) if local.bitmap.any() else (0, 0, 0, 0)
    assert bounds(as_text) == bounds(uncompressed) == box


@pytest.mark.parametrize(
    ("box", "pixels"),
    [
        ([5, 5, 5, 5], 0),
        ([9, 9, 2, 2], 0),
        ([9, 2, 2, 9], 0),
        ([2, 9, 9, 2], 0),
        ([-50, -50, -10, -10], 0),
        ([200, 200, 300, 300], 0),
        ([2, 4.5, 6, 4.5], 0),  # pixel centres lie on it
        ([4.5, 2, 4.5, 6], 0),
        ([float("nan")] * 4, 0),
        ([2, float("nan"), 6, float("nan")], 0),
        ([-1e9, 3, 1e9, 4], 30),
        ([7, -1e9, 8, 1e9], 20),
    ],
)
def test_boxes_that_hold_no_pixel_or_cannot_be(box: list[float], pixels: int):
    mask = paste(np.ones((28, 28), np.float32), np.array(box, np.float32), (20, 30))
    assert canvas_of(mask, (20, 30)).sum() == area(encode(mask, (20, 30))) == pixels
    codes = encode_all(np.ones((1, 28, 28), np.float32), np.array([box], np.float32), (20, 30))
    assert codes == [encode(mask, (20, 30))]


def test_pasting_into_a_picture_adds_ones_and_leaves_the_rest():
    canvas = np.eye(3, 4, dtype=np.uint8)
    mask = LocalMask(np.array([[1, 0], [0, 1]], np.uint8), 1, 1)
    assert mask.paste_into(canvas) is canvas
    assert canvas.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    LocalMask(np.array([[0, 1, 0]], np.uint8), 1, 1).paste_into(canvas)
    assert canvas.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]]


def test_one_pixel_box():
    mask = paste(np.ones((28, 28), np.float32), np.array([3, 4, 4, 5], np.float32), (10, 10))
    assert (mask.left, mask.top, mask.bitmap.tolist()) == (3, 4, [[1]])


def test_rasterise_unites_polygons_and_cuts_at_the_frame():
    squares = [np.array([[-5, 2], [4, 2], [4, 6], [-5, 6]], float), np.array([[3, 4], [8, 4], [8, 20], [3, 20]], float)]
    expected = np.zeros((10, 10), np.uint8)
    expected[2:6, 0:4] = 1
    expected[4:10, 3:8] = 1
    assert (rasterise([squares], 10, 10) == expected).all()
