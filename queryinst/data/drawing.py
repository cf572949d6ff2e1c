"""Textures and outlines that the images of `shapes` and the clips of `shapes_video` are made of."""

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Points = NDArray[np.float64]  # (corners, 2) x, y
Colours = tuple[NDArray[np.float64], NDArray[np.float64]]  # two, RGB in 0..255


def background(rng: Rng, width: int, height: int) -> NDArray[np.float32]:
    """A texture in muted colours, and up to three borders behind which another lies: edges that are no objects."""
    picture = texture(rng, width, height, muted(rng))
    for _ in range(rng.integers(0, 4)):
        along = _along(rng, width, height)
        behind = along > rng.uniform(along.min(), along.max())
        picture[behind] = texture(rng, width, height, muted(rng))[behind]
    return picture


def _along(rng: Rng, width: int, height: int) -> NDArray[np.float32]:
    """How far each pixel lies in some direction, (height, width)."""
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    return x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))


def muted(rng: Rng) -> Colours:
    """Two colours near one shade of grey."""
    first = rng.uniform(50, 205) + rng.uniform(-45, 45, 3)
    return first, first + rng.uniform(-30, 30, 3)


def typical(rng: Rng, number: int, of: int, stray: float = 0.1) -> Colours:
    """Two colours of a hue near the `number`-th of `of` round the circle, and with probability `stray` of any hue."""
    hue = rng.random() if rng.random() < stray else rng.normal(number / of, 0.03) % 1
    first, second = (np.array(colorsys.hsv_to_rgb(hue, *rng.uniform(0.45, 1.0, 2))) * 255 for _ in range(2))
    return first, second


def texture(rng: Rng, width: int, height: int, colours: Colours) -> NDArray[np.float32]:
    """Two colours mixed by stripes, by blurred noise, or by a gradient: (height, width, 3) float32."""
    kind, along = rng.integers(3), _along(rng, width, height)
    if kind == 0:
        mix = 0.5 + 0.5 * np.sin(along * rng.uniform(0.3, 1.2) + rng.uniform(0, 6))
    elif kind == 1:
        coarse = rng.random((height // 6 + 2, width // 6 + 2)).astype(np.float32)
        mix = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    else:
        mix = (along - along.min()) / (np.ptp(along) + 1)
    first, second = (colour.astype(np.float32) for colour in colours)
    return first + (second - first) * mix[..., None]


def place(outline: list[Points], centre: Points, radius: float, rng: Rng) -> list[Points]:
    """Stretch a unit outline a little, turn it, scale it and move it."""
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.0)
    return pose([points * [1, stretch] for points in outline], centre, radius, angle)


def pose(outline: list[Points], centre: Points, radius: float, angle: float) -> list[Points]:
    """Turn an outline (radians, from x to y), scale it and move it."""
    return [points @ _turn(angle) * radius + centre for points in outline]


def _turn(angle: float) -> Points:
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def posed_texture(
    pixels: NDArray[np.float32], centre: Points, radius: float, angle: float, width: int, height: int
) -> NDArray[np.float32]:
    """A square texture that spans a unit outline (-1 to 1, both ways), turned, scaled and moved as `pose` does it."""
    matrix = _turn(angle).T * radius * 2 / len(pixels)  # a pixel of the texture in pixels of the image
    shift = centre - matrix @ np.full(2, len(pixels) / 2 - 0.5) - 0.5  # between pixel centres
    warped = cv2.warpAffine(
        pixels, np.hstack([matrix, shift[:, None]]), (width, height), borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.float32)


def silhouette(outline: list[Points], height: int, width: int, fine: int) -> NDArray[np.bool_]:
    """What an outline covers of an image, (height * fine, width * fine)."""
    mask = np.zeros((height * fine, width * fine), np.uint8)
    cv2.fillPoly(mask, [np.round(points * fine * 16 - 8).astype(np.int32) for points in outline], 1, shift=4)
    return mask.view(np.bool_)


def paint(
    picture: NDArray[np.float32],
    mask: NDArray[np.bool_],
    surface: NDArray[np.float32],
    shadow: tuple[float, float, float],
) -> None:
    """Put an object into a picture, with its shadow.

    Args:
        picture: (height, width, 3), changed in place.
        mask: what the object covers, several times as large.
        surface: (height, width, 3).
        shadow: how far to the right and down it lies, in pixels, and how dark it is, 0 to 1.
    """
    height, width = picture.shape[:2]
    alpha = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)[..., None]
    right, down, strength = shadow
    moved = cv2.warpAffine(alpha, np.array([[1, 0, right], [0, 1, down]]), (width, height))
    picture *= 1 - strength * cv2.GaussianBlur(moved, (0, 0), 1.5)[..., None]
    picture += alpha * (surface - picture)


def _regular(corners: int) -> Points:
    angle = np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _circle(rng: Rng) -> list[Points]:
    return [_regular(40)]


def _square(rng: Rng) -> list[Points]:
    return [_regular(4)]


def _triangle(rng: Rng) -> list[Points]:
    return [_regular(3)]


def _star(rng: Rng) -> list[Points]:
    points = _regular(10)
    points[1::2] *= rng.uniform(0.38, 0.5)
    return [points]


def _ring(rng: Rng) -> list[Points]:
    return [_regular(40), _regular(40) * rng.uniform(0.45, 0.65)]


def _cross(rng: Rng) -> list[Points]:
    arm = rng.uniform(0.24, 0.36)
    corner = np.array([[1, arm], [arm, arm], [arm, 1]])
    turn = np.array([[0, 1], [-1, 0]])
    return [np.concatenate([corner @ np.linalg.matrix_power(turn, quarter) for quarter in range(4)])]


def _crescent(rng: Rng) -> list[Points]:
    angle = np.linspace(0.25 * np.pi, 1.75 * np.pi, 28)
    outer = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    bulge = rng.uniform(-0.35, 0.0)  # where the inner arc crosses the axis
    inner = np.stack(
        [
            bulge + (outer[0, 0] - bulge) * (1 - np.sin(np.linspace(0, np.pi, 28))),
            np.linspace(outer[-1, 1], outer[0, 1], 28),
        ],
        axis=1,
    )
    return [np.concatenate([outer, inner])]


OUTLINES: dict[str, Callable[[Rng], list[Points]]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "crescent": _crescent,
}
