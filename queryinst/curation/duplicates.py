"""Images that are nearly the same: a photograph and its copy, smaller, darker or compressed again; frames of a scene.

Each image becomes 64 bits, whether it grows brighter from one cell of a coarse grid to the next ("dHash"); two images
are near-duplicates where few bits differ. Of photographs that were halved, compressed, brightened by a third or turned
grey, at most 6 bits changed; between 191 photographs of different buildings at least 13 differ.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from queryinst.errors import UserError

BITS = 64
NEAR = 6  # bits that may differ
FURTHEST = 15  # that may be asked for: beyond, all photographs are alike
ROWS = 1024  # compared at a time
ONES = np.array([number.bit_count() for number in range(256)], np.uint8)
T = TypeVar("T")


def difference_hash(path: Path) -> NDArray[np.uint8]:
    """(8,) bytes: of 8 rows of 9 cells, whether each is brighter than its left neighbour. Raises UserError."""
    try:
        with Image.open(path) as image:
            image.draft("L", (72, 64))  # a JPEG is decoded small, which is sooner
            cells = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} cannot be read as an image: {error}; correct --images, or split without looking: --no-duplicates"
        ) from None
    return np.packbits(cells[:, 1:] > cells[:, :-1])


def hashes(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """(N, 8) bytes of N images. Raises UserError for the first that cannot be read."""
    return np.array(_of_all(difference_hash, paths), np.uint8).reshape(-1, BITS // 8)


def readable_hashes(paths: Sequence[Path]) -> tuple[list[int], NDArray[np.uint8]]:
    """The positions of those images that can be read, and (N, 8) bytes of them."""
    codes = dict(enumerate(_of_all(_hash_or_none, paths)))
    places = [place for place, code in codes.items() if code is not None]
    return places, np.array([codes[place] for place in places], np.uint8).reshape(-1, BITS // 8)


def _hash_or_none(path: Path) -> NDArray[np.uint8] | None:
    try:
        return difference_hash(path)
    except UserError:
        return None


def _of_all(function: Callable[[Path], T], paths: Sequence[Path], threads: int = 4) -> list[T]:
    """What a function makes of each image, with a bar on a terminal."""
    console = Console(stderr=True)
    with ThreadPoolExecutor(threads) as pool:
        made = pool.map(function, paths)
        return list(
            track(
                made, "comparing images", len(paths), console=console, transient=True, disable=not console.is_terminal
            )
        )


def groups(codes: NDArray[np.uint8], distance: int = NEAR) -> list[list[int]]:
    """Positions of images by group: what is near something in a group belongs to it. Most groups have one image.

    Two codes that differ in d bits agree in at least one of d + 1 blocks of bits, so that only codes that share a block
    are compared, and not all with all.

    Args:
        codes: (N, 8) bytes.
        distance: bits that may differ between near-duplicates.
    """
    different, which = np.unique(codes, axis=0, return_inverse=True)
    which = which.reshape(-1)
    leader = list(range(len(different)))

    def find(place: int) -> int:
        while leader[place] != place:
            leader[place] = leader[leader[place]]
            place = leader[place]
        return place

    for one, other in _pairs(different, distance):
        low, high = sorted((find(one), find(other)))
        leader[high] = low
    found: dict[int, list[int]] = {}
    for position, place in enumerate(which.tolist()):
        found.setdefault(find(place), []).append(position)
    return sorted(found.values())


def _pairs(codes: NDArray[np.uint8], distance: int) -> Iterable[tuple[int, int]]:
    """Pairs of codes that differ in few bits; a pair may come more than once."""
    bits = np.unpackbits(codes, axis=1)
    for block in np.array_split(np.arange(BITS), distance + 1):
        _, bucket = np.unique(bits[:, block], axis=0, return_inverse=True)
        order = np.argsort(bucket.reshape(-1), kind="stable")
        starts = np.flatnonzero(np.diff(bucket.reshape(-1)[order], prepend=-1))
        for members in np.split(order, starts[1:]):
            yield from _near(codes, members, distance)


def _near(codes: NDArray[np.uint8], members: NDArray[np.int64], distance: int) -> Iterable[tuple[int, int]]:
    for start in range(0, len(members) - 1, ROWS):
        rows = members[start : start + ROWS]
        differing = ONES[codes[rows, None] ^ codes[None, members]].sum(axis=2, dtype=np.int64)
        one, other = np.nonzero(differing <= distance)
        for a, b in zip(rows[one].tolist(), members[other].tolist(), strict=True):
            if a < b:
                yield a, b
