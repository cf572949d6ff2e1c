"""What happens to an image and its instances on the way to the network.

Every chain of flips, resizes and crops is one affine map per axis. The image is resampled once, as bytes; polygons
travel as vertices, and a run-length mask as the bitmap of its own box. No bitmap of the image is ever made.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from queryinst.config import AugmentationConfig
from queryinst.ops.masks import LocalMask, Polygons, rasterise
from queryinst.ops.roi import STRIDES
from queryinst.structures import UNKNOWN

Rng = np.random.Generator
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Instances:
    """The G objects to learn of an image, and the affine map that places their outlines: x becomes scale * x + offset.

    All of them are moved and drawn at once: sixty small calls an image would take longer than its decoding.
    """

    boxes: Array  # (G, 4) xyxy
    labels: NDArray[np.int64]  # (G,)
    outlines: list[Polygons | LocalMask]  # G of them; no polygons where an object has a box only
    scale: Array = field(default_factory=lambda: np.ones(2))  # x, y: pixels of the frame per pixel of an outline
    offset: Array = field(default_factory=lambda: np.zeros(2))  # both (2,), or (G, 2) where each has a map of its own
    tracks: NDArray[np.int64] | None = None  # (G,) in video: equal for the same object of the same video

    @classmethod
    def none(cls) -> Instances:
        return cls(np.zeros((0, 4)), np.zeros(0, np.int64), [])

    def __len__(self) -> int:
        return len(self.outlines)

    def take(self, which: NDArray[np.int64] | NDArray[np.bool_]) -> Instances:
        """The objects at these positions, or where it is true."""
        positions = np.flatnonzero(which) if which.dtype == bool else which
        return replace(
            self,
            boxes=self.boxes[positions],
            labels=self.labels[positions],
            outlines=[self.outlines[position] for position in positions],
            scale=self.scale if self.scale.ndim == 1 else self.scale[positions],
            offset=self.offset if self.offset.ndim == 1 else self.offset[positions],
            tracks=None if self.tracks is None else self.tracks[positions],
        )

    def extents(self) -> Array:
        """(G, 4) xyxy of the outlines in the frame."""
        if not self.outlines:
            return np.zeros((0, 4))
        corners = [_corners(outline) for outline in self.outlines]
        lengths = [sum(map(len, pieces)) for pieces in corners]
        points = np.concatenate([piece for pieces in corners for piece in pieces])
        scale, offset = (np.broadcast_to(part, (len(self), 2)) for part in (self.scale, self.offset))
        points = points * np.repeat(scale, lengths, axis=0) + np.repeat(offset, lengths, axis=0)
        begins = np.cumsum([0, *lengths[:-1]])
        return np.hstack([np.minimum.reduceat(points, begins), np.maximum.reduceat(points, begins)])

    def regions(self, height: int, width: int, size: int) -> NDArray[np.float32]:
        """The part (G, 4) xyxy of a (height, width) image that each stored mask of side `size` covers.

        Whole pixels around what is visible of the outline, with one to spare. Where that is shorter than `size`, the
        stored mask has the image's own pixels, and the targets cut out of it are exactly those of a full bitmap.
        """
        extents, limit = self.extents(), np.array([width, height])
        first = np.floor(np.clip(extents[:, :2], 0, limit)) - 1
        last = np.ceil(np.clip(extents[:, 2:], 0, limit)) + 1
        canvas = -(-limit // STRIDES[-1]) * STRIDES[-1]  # as the batch will be padded
        inside = np.clip(first, 0, np.maximum(canvas - size, 0))  # so that its border is the stored mask's border
        large = last - first > size
        regions = np.hstack([np.where(large, first, inside), np.where(large, last, inside + size)])
        return regions.astype(np.float32)

    def draw(self, regions: NDArray[np.float32], size: int, height: int, width: int) -> NDArray[np.uint8]:
        """(G, size, size) uint8 of 0 and 1: each outline as seen through its region, nothing outside the image.

        Where an object has no mask it is `UNKNOWN` throughout.
        """
        masks = np.zeros((len(self), size, size), np.uint8)
        zoom = size / (regions[:, 2:] - regions[:, :2])
        scale, offset = self.scale * zoom, (self.offset - regions[:, :2]) * zoom
        drawn, polygons = [], []
        for index, outline in enumerate(self.outlines):
            if not isinstance(outline, LocalMask):
                if not outline:
                    continue
                drawn.append(index)
                polygons.append(outline)
            elif outline.bitmap.size:
                masks[index] = draw_outline(outline, scale[index], offset[index], size, size)
        if drawn:
            masks[drawn] = rasterise(_placed(polygons, scale[drawn], offset[drawn]), size, size)
        over = np.flatnonzero((regions[:, :2] < 0).any(axis=1) | (regions[:, 2:] > [width, height]).any(axis=1))
        if len(over):  # an object that a crop has cut does not go on in the padding of the batch
            x, y = (_inside(regions[over, axis::2], size, limit) for axis, limit in enumerate((width, height)))
            masks[over] &= y[:, :, None] & x[:, None, :]
        unknown = [not isinstance(outline, LocalMask) and not outline for outline in self.outlines]
        masks[np.array(unknown, bool)] = UNKNOWN
        return masks


def draw_outline(
    outline: Polygons | LocalMask, scale: Array, offset: Array, height: int, width: int
) -> NDArray[np.uint8]:
    """(height, width) of 0 and 1: one outline, moved by a map of its own. It is not empty."""
    if not isinstance(outline, LocalMask):
        return rasterise([[polygon * scale + offset for polygon in outline]], height, width)[0]
    shift = scale * (np.array([outline.left, outline.top]) + 0.5) + offset - 0.5  # between pixel centres
    seen = _warp(outline.bitmap * 255, scale, shift, height, width, cv2.BORDER_CONSTANT)
    return (seen >= 128).view(np.uint8)


def _inside(spans: NDArray[np.float32], size: int, limit: int) -> NDArray[np.bool_]:
    """(n, size) of n spans (n, 2) low, high that are cut into cells: whether a cell's centre is within 0 and limit."""
    centres = spans[:, :1] + (np.arange(size) + 0.5) * (spans[:, 1:] - spans[:, :1]) / size
    return (centres > 0) & (centres < limit)


def _corners(mask: Polygons | LocalMask) -> list[Array]:
    """Points that have the same box around them."""
    if not isinstance(mask, LocalMask):
        return mask or [np.zeros((1, 2))]
    height, width = mask.bitmap.shape
    return [np.array([[mask.left, mask.top], [mask.left + width, mask.top + height]], np.float64)]


def _placed(outlines: list[Polygons], scale: Array, offset: Array) -> list[Polygons]:
    """The outlines, each moved by its own map."""
    lengths = [sum(map(len, polygons)) for polygons in outlines]
    points = np.concatenate([polygon for polygons in outlines for polygon in polygons])
    points = points * np.repeat(scale, lengths, axis=0) + np.repeat(offset, lengths, axis=0)
    ends = itertools.accumulate((len(polygon) for polygons in outlines for polygon in polygons), initial=0)
    pieces = (points[begin:end] for begin, end in itertools.pairwise(ends))
    return [list(itertools.islice(pieces, len(polygons))) for polygons in outlines]


@dataclass(frozen=True)
class Geometry:
    """A composed map from the image file to the network's input: x becomes scale * x + offset, likewise y.

    Start from `Geometry.identity` and chain `flip`, `resize` and `crop`; each gives the next geometry.
    """

    scale: Array  # x, y; negative where mirrored
    offset: Array
    height: int  # of the result
    width: int

    @classmethod
    def identity(cls, height: int, width: int) -> Geometry:
        return cls(np.ones(2), np.zeros(2), height, width)

    def flip(self) -> Geometry:
        """Mirror left to right."""
        return replace(self, scale=self.scale * [-1, 1], offset=self.offset * [-1, 1] + [self.width, 0])

    def resize(self, height: int, width: int) -> Geometry:
        factor = np.array([width / self.width, height / self.height])
        return Geometry(self.scale * factor, self.offset * factor, height, width)

    def crop(self, left: int, top: int, height: int, width: int) -> Geometry:
        return Geometry(self.scale, self.offset - [left, top], height, width)

    def image(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resample (H, W, 3) to (height, width, 3), bilinear without antialiasing, as the published models saw it."""
        span = np.abs(self.scale) * [pixels.shape[1], pixels.shape[0]]
        if np.allclose(span, [self.width, self.height]):  # nothing is cropped
            if pixels.shape[:2] != (self.height, self.width):
                pixels = np.asarray(
                    cv2.resize(pixels, (self.width, self.height), interpolation=cv2.INTER_LINEAR), np.uint8
                )
            return np.asarray(cv2.flip(pixels, 1), np.uint8) if self.scale[0] < 0 else pixels
        shift = self.scale * 0.5 + self.offset - 0.5  # between pixel centres
        return _warp(pixels, self.scale, shift, self.height, self.width, cv2.BORDER_REPLICATE)

    def instances(self, instances: Instances) -> Instances:
        """Those that are left in the new frame; boxes are clipped, not computed anew."""
        corners = instances.boxes.reshape(-1, 2, 2) * self.scale + self.offset
        boxes = np.hstack([corners.min(axis=1), corners.max(axis=1)]).clip(0, [self.width, self.height] * 2)
        scale, offset = instances.scale * self.scale, instances.offset * self.scale + self.offset
        moved = replace(instances, boxes=boxes, scale=scale, offset=offset)
        return moved.take(np.flatnonzero((boxes[:, 2:] > boxes[:, :2]).all(axis=1)))


GeometryOf = Callable[[int, int, Rng], Geometry]  # height, width, randomness to what happens to an image


def _warp(
    pixels: NDArray[np.uint8], scale: Array, shift: Array, height: int, width: int, border: int
) -> NDArray[np.uint8]:
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    return np.asarray(
        cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=border), np.uint8
    )


def fit(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width with the ratio kept: the largest that keeps within both sides (reference, 3.3)."""
    scale = min(short_side / min(height, width), long_side / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


class TrainGeometry:
    """Draws flip, then with probability `crop` resize, crop and resize, else one resize (reference, 3.4).

    With `scale_jitter`, flip, then resize by a factor and crop (Ghiasi et al., Simple Copy-Paste, "LSJ").
    """

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config

    def __call__(self, height: int, width: int, rng: Rng) -> Geometry:
        config = self.config
        geometry = Geometry.identity(height, width)
        if rng.random() < config.flip:
            geometry = geometry.flip()
        if config.scale_jitter:
            return self._jitter(geometry, rng)
        if rng.random() < config.crop:
            geometry = self._crop(
                geometry.resize(*fit(height, width, rng.choice(config.crop_short_sides), config.long_side)), rng
            )
        low, high = min(config.short_sides), max(config.short_sides)
        short_side = rng.integers(low, high, endpoint=True) if config.between else rng.choice(config.short_sides)
        return geometry.resize(*fit(geometry.height, geometry.width, int(short_side), config.long_side))

    def _jitter(self, geometry: Geometry, rng: Rng) -> Geometry:
        side = self.config.jitter_side
        smallest, largest = self.config.scale_jitter
        longest = round(side * rng.uniform(smallest, largest))
        geometry = geometry.resize(*fit(geometry.height, geometry.width, longest, longest))
        height, width = min(geometry.height, side), min(geometry.width, side)
        top = int(rng.integers(0, geometry.height - height, endpoint=True))
        left = int(rng.integers(0, geometry.width - width, endpoint=True))
        return geometry.crop(left, top, height, width)

    def _crop(self, geometry: Geometry, rng: Rng) -> Geometry:
        smallest, largest = self.config.crop_sides
        height = rng.integers(min(geometry.height, smallest), min(geometry.height, largest), endpoint=True)
        width = rng.integers(min(geometry.width, smallest), min(geometry.width, largest), endpoint=True)
        top = rng.integers(0, geometry.height - height, endpoint=True)
        left = rng.integers(0, geometry.width - width, endpoint=True)
        return geometry.crop(int(left), int(top), int(height), int(width))


class EvaluationGeometry:
    """One resize, nothing random (reference, 3.3)."""

    def __init__(self, config: AugmentationConfig) -> None:
        self.config = config

    def __call__(self, height: int, width: int, rng: Rng) -> Geometry:
        return Geometry.identity(height, width).resize(
            *fit(height, width, self.config.test_short_side, self.config.long_side)
        )
