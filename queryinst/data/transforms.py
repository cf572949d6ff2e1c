"""What happens to an image and its instances on the way to the network.

Every chain of flips, resizes and crops is one affine map per axis. The image is resampled once, as bytes; polygons
travel as vertices, and a run-length mask as the bitmap of its own box. No bitmap of the image is ever made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from queryinst.config import AugmentationConfig
from queryinst.ops.masks import LocalMask, Polygons, rasterise
from queryinst.ops.roi import STRIDES

Rng = np.random.Generator
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Instance:
    """One object to learn: its box (xyxy), its label, and its outline with the affine map that places it."""

    box: Array
    label: int
    outline: Polygons | LocalMask
    scale: Array | float = 1.0  # x, y: pixels of the frame per pixel of the outline
    offset: Array | float = 0.0

    def extent(self) -> Array:
        """(4,) xyxy of the outline in the frame."""
        if isinstance(self.outline, LocalMask):
            height, width = self.outline.bitmap.shape
            corners = np.array(
                [[self.outline.left, self.outline.top], [self.outline.left + width, self.outline.top + height]]
            )
        else:
            corners = np.concatenate(self.outline)
        corners = corners * self.scale + self.offset
        return np.concatenate([corners.min(axis=0), corners.max(axis=0)])

    def region(self, height: int, width: int, size: int) -> Array:
        """The part (4,) xyxy of a (height, width) image that a stored mask of side `size` covers.

        Whole pixels around what is visible of the outline, with one to spare. Where that is shorter than `size`, the
        stored mask has the image's own pixels, and the targets cut out of it are exactly those of a full bitmap.
        """
        x0, y0, x1, y1 = self.extent()
        left, right = _interval(x0, x1, width, size)
        top, bottom = _interval(y0, y1, height, size)
        return np.array([left, top, right, bottom])

    def draw(self, region: Array, size: int) -> NDArray[np.uint8]:
        """(size, size) uint8: the outline as seen through `region`."""
        zoom = size / (region[2:] - region[:2])
        scale, offset = self.scale * zoom, (self.offset - region[:2]) * zoom
        if isinstance(self.outline, LocalMask):
            bitmap, left, top = self.outline
            if bitmap.size == 0:
                return np.zeros((size, size), np.uint8)
            shift = scale * (np.array([left, top]) + 0.5) + offset - 0.5  # between pixel centres
            return np.asarray(_warp(bitmap * 255, scale, shift, size, size, cv2.BORDER_CONSTANT) >= 128, np.uint8)
        return rasterise([polygon * scale + offset for polygon in self.outline], size, size)


def _interval(low: float, high: float, limit: int, size: int) -> tuple[float, float]:
    canvas = -(-limit // STRIDES[-1]) * STRIDES[-1]  # as the batch will be padded
    first, last = np.floor(np.clip(low, 0, limit)) - 1, np.ceil(np.clip(high, 0, limit)) + 1
    if last - first > size:
        return first, last
    first = max(0.0, min(first, canvas - size))  # inside the canvas, so that its border is the stored mask's border
    return first, first + size


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

    def instance(self, instance: Instance) -> Instance | None:
        """The instance in the new frame, or None where none of its box is left; the box is clipped, not recomputed."""
        corners = instance.box.reshape(2, 2) * self.scale + self.offset
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).clip(0, [self.width, self.height] * 2)
        if not (box[2:] > box[:2]).all():
            return None
        return replace(
            instance, box=box, scale=instance.scale * self.scale, offset=instance.offset * self.scale + self.offset
        )


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
