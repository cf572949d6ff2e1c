"""Masks without bitmaps of the image: pasting inside the box, COCO run-length codes, small regions.

A COCO RLE is `{"size": [height, width], "counts": ...}`, runs of 0 and 1 in turn, down the columns. A local mask is a
small bitmap with the column and row of its corner.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

Rle = dict[str, Any]
Polygons = list[NDArray[np.float64]]  # each (vertices, 2) x, y


class LocalMask(NamedTuple):
    """A bitmap (h, w) uint8 of 0 and 1, and where its top left pixel lies in the image."""

    bitmap: NDArray[np.uint8]
    left: int
    top: int

    def paste_into(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Write the ones into an image-sized array and return it."""
        height, width = self.bitmap.shape
        canvas[self.top : self.top + height, self.left : self.left + width] |= self.bitmap
        return canvas


def paste(
    probabilities: NDArray[np.float32], box: NDArray[np.float32], size: tuple[int, int], threshold: float = 0.5
) -> LocalMask:
    """Resample a predicted mask to image pixels, inside its box only.

    Bilinear at pixel centres with zeros around the mask, then `>= threshold`: the same pixels as pasting into the whole
    image (reference, 1.11), because outside its box a mask stays below one half.

    Args:
        probabilities: (s, s) in 0..1.
        box: (4,) xyxy, the region that the mask covers; it may leave the image, or be empty.
        size: height, width of the image.
        threshold: above 0. Below one half, what a mask has outside its box is cut off.
    """
    x, left = _weights(box[0], box[2], size[1], probabilities.shape[1])
    y, top = _weights(box[1], box[3], size[0], probabilities.shape[0])
    # Made column by column, as `encode` reads it.
    return LocalMask((x @ probabilities.T @ y.T >= threshold).view(np.uint8).T, left, top)


def _weights(low: float, high: float, limit: int, cells: int) -> tuple[NDArray[np.float32], int]:
    """Bilinear weights (pixels, cells) of the pixels whose centre lies between low and high, and the first of them."""
    if not high > low:
        return np.zeros((0, cells), np.float32), 0
    first = max(0, int(np.ceil(max(low, -1.0) - 0.5)))
    last = min(limit - 1, int(np.floor(min(high, limit + 1.0) - 0.5)))
    centres = np.arange(first, last + 1, dtype=np.float32) + np.float32(0.5)
    position = (centres - low) / (high - low) * cells - np.float32(0.5)
    weights = 1 - np.abs(position[:, None] - np.arange(cells, dtype=np.float32))
    return np.maximum(weights, 0, dtype=np.float32), min(first, limit)


def encode(mask: LocalMask, size: tuple[int, int]) -> Rle:
    """A local mask as compressed COCO RLE of an image of `size`, without making the image."""
    height, width = mask.bitmap.shape
    padded = np.zeros(width * (height + 1) + 1, np.bool_)  # a zero above every column, and one after the last
    padded[:-1].reshape(width, height + 1)[:, 1:] = mask.bitmap.T
    # Where a run of ones begins, and where it ends, in turn.
    column, row = np.divmod(np.flatnonzero(padded[1:] != padded[:-1]), height + 1)
    return from_edges((column + mask.left) * size[0] + row + mask.top, size)[0]


def from_edges(edges: NDArray[np.int64], size: tuple[int, int], count: int = 1) -> list[Rle]:
    """The compressed RLE of masks of an image of `size` from the pixels where their ones begin and end, in turn.

    Where ones begin and end at once there is no edge: a run that reaches the bottom goes on at the top of the next
    column.

    Args:
        edges: pixels counted down the columns, those of mask k greater by k * (height * width + 1). They do not fall.
        count: of masks.

    Raises:
        ValueError: a run is longer than COCO's codes may say.
    """
    pixels = size[0] * size[1]
    edges = edges[np.repeat(edges[0::2] != edges[1::2], 2)]
    keep = np.ones(len(edges), np.bool_)
    keep[1:-1] = np.repeat(edges[1:-1:2] != edges[2::2], 2)
    edges = edges[keep]
    last = np.arange(count) * (pixels + 1) + pixels
    ends = np.searchsorted(edges, last, side="right")
    places = np.insert(edges, ends, last)  # the zeros behind the ones of each mask end there
    ends += np.arange(1, count + 1)
    begins = np.append(0, ends)[:-1]
    runs = places.copy()
    runs[1:] -= places[:-1]
    runs[begins[1:]] -= 1  # from the last pixel of the mask before
    if runs.max(initial=0) >= 2**32:
        raise ValueError(
            f"a run of {runs.max()} pixels, in masks of {size[0]} x {size[1]}: at most {2**32 - 1} is wanted"
        )
    ends -= runs[ends - 1] == 0
    runs = runs.astype(np.uint32)
    parts = (runs[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True))
    codes = [{"size": list(size), "counts": part} for part in parts]
    return coco_mask.frPyObjects(codes, *size) if codes else []


def overlaps(a: Sequence[Rle], b: Sequence[Rle]) -> NDArray[np.float64]:
    """(A, B) IoU of masks of one image, as compressed RLE; 0 where both are empty."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    return coco_mask.iou(list(a), list(b), [0] * len(b))


def run_lengths(rle: Rle) -> NDArray[np.int64]:
    """The runs of an RLE, compressed or not.

    Compressed counts are numbers of 5 bits a character, lowest first, bit 5 saying "more follows"; from the fourth run
    on a number is the difference to the run two before (pycocotools reads them, but gives only whole bitmaps).
    """
    counts = rle["counts"]
    if isinstance(counts, list):
        return np.asarray(counts, np.int64)
    code = np.frombuffer(counts.encode() if isinstance(counts, str) else counts, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((code & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    shift = 5 * (np.arange(len(code)) - np.repeat(starts, ends - starts + 1))
    runs = np.add.reduceat((code & 31) << shift, starts)
    runs -= ((code[ends] & 16) > 0) * (np.int64(1) << (shift[ends] + 5))
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def decode(rle: Rle) -> LocalMask:
    """The ones of an RLE as a bitmap of their own bounding box; an empty RLE gives an empty bitmap."""
    height, _ = rle["size"]
    edges = np.cumsum(run_lengths(rle))
    edges = edges[: len(edges) // 2 * 2].reshape(-1, 2)  # begin and end of every run of ones
    edges = edges[edges[:, 1] > edges[:, 0]]
    if len(edges) == 0:
        return LocalMask(np.zeros((0, 0), np.uint8), 0, 0)
    left, right = edges[0, 0] // height, (edges[-1, 1] - 1) // height + 1
    flat = np.zeros((right - left) * height + 1, np.int8)
    np.add.at(flat, edges[:, 0] - left * height, 1)
    np.add.at(flat, edges[:, 1] - left * height, -1)
    bitmap = np.cumsum(flat[:-1], dtype=np.int8).reshape(right - left, height).T
    rows = np.flatnonzero(bitmap.any(axis=1))
    return LocalMask(bitmap[rows[0] : rows[-1] + 1].astype(np.uint8), int(left), int(rows[0]))


def compressed(mask: Any, height: int, width: int) -> Rle:
    """A mask as annotation files have it as compressed RLE: flat polygons, or RLE, compressed or not."""
    if isinstance(mask, list):
        return coco_mask.merge(coco_mask.frPyObjects(mask, height, width))
    return coco_mask.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask


def bounds(rle: Rle) -> tuple[float, float, float, float]:
    """x1, y1, x2, y2 of the ones of an RLE, compressed or not; all 0 where there are none."""
    code = coco_mask.frPyObjects(rle, *rle["size"]) if isinstance(rle["counts"], list) else rle
    x, y, width, height = coco_mask.toBbox(code).tolist()
    return x, y, x + width, y + height


def rasterise(outlines: Sequence[Polygons], height: int, width: int) -> NDArray[np.uint8]:
    """The bitmap (n, height, width) of each of n outlines in pixels of that frame; they may leave the frame.

    The pixels are those of COCO's own tools. One call for many outlines costs a third of a call each.
    """
    codes = coco_mask.frPyObjects([polygon.ravel() for polygons in outlines for polygon in polygons], height, width)
    pieces = iter(codes)
    merged = [coco_mask.merge(list(itertools.islice(pieces, len(polygons)))) for polygons in outlines]
    return coco_mask.decode(merged).transpose(2, 0, 1)


def area(rle: Rle) -> int:
    """Pixels of a compressed RLE."""
    return int(coco_mask.area(rle))
