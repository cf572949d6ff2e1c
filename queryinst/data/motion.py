"""How the objects of `shapes_video` move: on their own, or so that they exchange places unseen.

Lengths are shares of the longer side of a frame, until a way is made: that is in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Array = NDArray[np.float64]

# What may hide others, and how much larger than a disc it has to be for that: a square holds one in its middle.
SCREENS = {"circle": 1.0, "square": 1.4}


@dataclass(frozen=True)
class Way:
    """Where an object is in each of T frames."""

    centres: Array  # (T, 2) x, y, pixels
    radii: Array  # (T,) pixels
    angles: Array  # (T,) radians

    def grown(self, factor: float) -> Way:
        return replace(self, radii=self.radii * factor)


def roam(rng: Rng, size: Array, frames: int, largest: float = 0.24) -> Way:
    """A gentle curve through a spot inside the frame; fast objects enter and leave.

    Args:
        size: width and height of a frame, pixels.
        largest: radius.
    """
    time, side = np.arange(frames), size.max()
    since = time - rng.uniform(0, frames)
    speed = side * rng.uniform(0.004, 0.045)
    along = _direction(rng.uniform(0, 2 * np.pi))
    sway = side * rng.uniform(0, 0.06) * np.sin(2 * np.pi * since / rng.uniform(8, 24))
    centres = rng.uniform(0.15, 0.85, 2) * size + since[:, None] * speed * along + sway[:, None] * along[::-1] * [1, -1]
    radius = side * np.exp(rng.uniform(np.log(0.11), np.log(largest)))
    breath = rng.uniform(0, 0.25) * np.sin(2 * np.pi * since / rng.uniform(16, 32))
    return Way(centres, radius * np.exp(breath), _turning(rng, frames))


def _turning(rng: Rng, frames: int) -> Array:
    return rng.uniform(0, 2 * np.pi) + rng.uniform(-0.15, 0.15) * np.arange(frames, dtype=np.float64)


def _direction(angle: float) -> Array:
    return np.array([np.cos(angle), np.sin(angle)])


def _rivals(rng: Rng, centres: list[Array], radius: float) -> list[Way]:
    """Paths of objects of one size."""
    frames = len(centres[0])
    return [Way(of, np.full(frames, radius), _turning(rng, frames)) for of in centres]


def _across(rng: Rng, size: Array, frames: int) -> tuple[Array, Array]:
    """The middle of the stage (2,), and the way (T, 2) from there of an object that crosses it at half time.

    It lingers at either end, where all of it is in the frame, along the longer side.
    """
    half = 0.375 * size.max()
    lean = rng.uniform(-0.35, 0.35)
    along = _direction(lean if size[0] >= size[1] else lean + np.pi / 2)
    time = np.arange(frames) - (frames - 1) / 2 + rng.uniform(-1, 1)
    way = half * np.sin(np.clip(np.pi * time / frames, -np.pi / 2, np.pi / 2))
    return size / 2, way[:, None] * along * rng.choice([-1, 1])


Occlusion = tuple[list[Way], Way | None]  # the rivals, and what hides them, for a disc


def behind(rng: Rng, size: Array, frames: int) -> Occlusion:
    """Two objects from opposite sides pass behind a larger one at the same time, and come out exchanged.

    Where one has vanished the other appears: the last boxes overlap the wrong ones.
    """
    middle, way = _across(rng, size, frames)
    side = size.max()
    rivals = _rivals(rng, [middle + way, middle - way], side * rng.uniform(0.1, 0.12))
    still = np.tile(middle + rng.uniform(-0.01, 0.01, 2) * side, (frames, 1))
    screen = Way(still, np.full(frames, side * rng.uniform(0.21, 0.24)), np.full(frames, rng.uniform(0, 2 * np.pi)))
    return rivals, screen


def leap(rng: Rng, size: Array, frames: int) -> Occlusion:
    """Two to four objects on a circle, filmed at a low frame rate: from one frame to another each has come to about
    where its neighbour was, further than it is wide.
    """
    count = int(rng.integers(2, 5))
    step = 2 * np.pi / count + rng.uniform(-0.2, 0.2)
    hold = int(rng.integers(1, 4))  # frames from leap to leap
    time = np.arange(frames)
    turned = step * (time // hold) + rng.uniform(-0.08, 0.08) * time + rng.uniform(0, 2 * np.pi)
    middle, side = size / 2, size.max()
    reach = np.minimum(size * 0.34, side * rng.uniform(0.26, 0.32))
    places = [turned + 2 * np.pi * number / count for number in range(count)]
    centres = [middle + np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach for angle in places]
    return _rivals(rng, centres, side * rng.uniform(0.11, 0.14)), None


def cross(rng: Rng, size: Array, frames: int) -> Occlusion:
    """Two objects meet, the one in front covers the other, and pass: the boxes are the same where it matters."""
    middle, way = _across(rng, size, frames)
    radius = size.max() * rng.uniform(0.12, 0.16)
    turning = _turning(rng, frames)  # the same for both, so that one covers the other whatever its outline
    hidden = Way(middle - way, np.full(frames, radius * 0.85), turning)
    return [hidden, Way(middle + way, np.full(frames, radius), turning)], None


OCCLUSIONS: list[Callable[[Rng, Array, int], Occlusion]] = [behind, leap, cross]
SHARES = [0.4, 0.4, 0.2]
