"""Predicted masks to COCO run-length codes, many at once and none of them ever a bitmap.

Down a column of pixels a mask is a straight line from the centre of one of its cells to the next. So the rows in which
it crosses the threshold are computed: the cost is that of widths and outlines, not of areas.
"""

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from queryinst.ops.masks import Rle, from_edges

COLUMNS = 4096  # of masks taken together: what is made of them stays in a core's cache


def encode_all(
    probabilities: NDArray[np.float32], boxes: NDArray[np.float32], size: tuple[int, int], threshold: float = 0.5
) -> list[Rle]:
    """Predicted masks in their boxes as compressed COCO RLE: the pixels that `masks.paste` gives each.

    Args:
        probabilities: (D, h, w) in 0..1.
        boxes: (D, 4) xyxy, the regions that the masks cover; they may leave the image, or be empty.
        size: height, width of the image.
        threshold: above 0. Below one half, what a mask has outside its box is cut off.
    """
    if len(probabilities) != len(boxes):
        raise ValueError(f"{len(probabilities)} masks and {len(boxes)} boxes")
    first, end = _inside(boxes, 0, size[1])
    highest, lowest = (bound.astype(np.float64) for bound in _inside(boxes, 1, size[0]))
    group = np.cumsum(end - first) // COLUMNS
    bounds = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist(), len(boxes)]
    codes = []
    for some in itertools.starmap(slice, itertools.pairwise(bounds)):
        columns = _columns(probabilities[some], boxes[some], first[some], end[some])
        edges = _edges(columns, boxes[some], highest[some], lowest[some], size[0], size[0] * size[1] + 1, threshold)
        codes += from_edges(edges, size, len(boxes[some]))
    return codes


def _inside(boxes: NDArray[np.float32], axis: int, limit: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first of the columns (axis 0) or rows (1) whose centre lies in each box, and the one after the last."""
    some = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    low, high = (np.where(some, boxes[:, k], -1).clip(-1, limit + 1) - np.float32(0.5) for k in (axis, axis + 2))
    first, end = np.ceil(low).clip(0, limit), (np.floor(high) + 1).clip(0, limit)
    return first.astype(np.int64), np.maximum(first, end).astype(np.int64)


class _Columns(NamedTuple):
    """The columns of pixels, n of them, that masks reach, mask after mask."""

    mask: NDArray[np.int64]  # (n,) whose
    x: NDArray[np.int64]  # (n,) in the image
    values: NDArray[np.float32]  # (n, h + 2) at the centres of the cells' rows, and the zeros around them


def _columns(
    probabilities: NDArray[np.float32], boxes: NDArray[np.float32], first: NDArray[np.int64], end: NDArray[np.int64]
) -> _Columns:
    """Columns from `first` up to `end`: each lies between the centres of two columns of cells, their weighted mean."""
    count, rows, cells = probabilities.shape
    left = boxes[:, 0]
    mask = np.repeat(np.arange(count), end - first)
    x = np.arange(len(mask)) + (end - np.cumsum(end - first)).take(mask)
    wide = (boxes[:, 2] - left).take(mask)
    place = (x.astype(np.float32) + np.float32(0.5) - left.take(mask)) / wide * cells - np.float32(0.5)
    cell = np.floor(place)
    lines = np.zeros((count, cells + 2, rows + 2), np.float32)
    lines[:, 1:-1, 1:-1] = probabilities.transpose(0, 2, 1)
    line = mask * (cells + 2) + cell.astype(np.int64) + 1
    near, far = (lines.reshape(-1, rows + 2).take(line + k, axis=0, mode="clip") for k in (0, 1))
    near *= (1 - (place - cell))[:, None]
    far *= (1 - np.abs(place - (cell + 1)))[:, None]
    near += far
    return _Columns(mask, x, near)


def _edges(
    columns: _Columns,
    boxes: NDArray[np.float32],
    highest: NDArray[np.float64],
    lowest: NDArray[np.float64],
    height: int,
    span: int,
    threshold: float,
) -> NDArray[np.int64]:
    """Where ones begin and end, in turn, as `from_edges` wants them."""
    mask, x, (_, rows) = columns.mask, columns.x, columns.values.shape
    low = boxes[:, 1].astype(np.float64)
    values = columns.values.ravel()  # none crosses from one column to the next: both have a zero there
    ones = values >= threshold
    before = np.flatnonzero(ones[1:] != ones[:-1])
    column = (before.astype(np.uint32) // np.uint32(rows)).astype(np.int64)  # twice as fast as in 64 bits
    owner = mask.take(column)
    value = values.take(before).astype(np.float64)
    row = values.take(before + 1) - value
    np.divide(threshold - value, row, out=row)
    row += (before - column * rows) - 0.5
    row *= (boxes[:, 3] - low).take(owner)
    row /= rows - 2
    row += low.take(owner)
    row -= 0.5
    row[0::2] = np.ceil(row[0::2])
    row[1::2] = np.floor(row[1::2]) + 1
    # Below one half the threshold may be crossed outside the box, where `paste` has nothing.
    np.maximum(row, highest.take(owner), out=row)
    np.minimum(row, lowest.take(owner), out=row)
    edges = (x * height + mask * span).take(column)
    edges += row.astype(np.int64)
    # Where some end and others begin in one point, they may have changed places: a pixel there is in both.
    edges[2::2] = np.maximum(edges[2::2], edges[1:-1:2])
    return edges
