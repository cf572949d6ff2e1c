"""What the doctor finds in image files, and images that two splits share."""

import hashlib
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from PIL import Image
from rich.console import Console
from rich.progress import track

from queryinst.data.doctor_annotations import Listed
from queryinst.data.faults import Findings
from queryinst.data.images import TURNED, opened, orientation_of, stored_as
from queryinst.data.names import existing

T = TypeVar("T")
BATCH = 1024  # images given to the threads at a time, so that an interruption is heard


def examine(images: list[Listed], split: str, findings: Findings, decode: bool, threads: int) -> None:
    """Collect the faults of image files, whatever bytes they hold.

    Args:
        images: what the annotation file lists.
        split: "train" or "val".
        findings: where faults are added.
        decode: read every pixel; otherwise headers only, which says nothing about a file's end.
        threads: files at a time.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")  # Pillow's, on sizes and EXIF notes
        batches = (images[start : start + BATCH] for start in range(0, len(images), BATCH))
        found = (result for batch in batches for result in pool.map(lambda image: faults(image, decode), batch))
        for image, codes in zip(images, _progress(found, f"reading {split} images", len(images)), strict=True):
            for code in codes:
                findings.add(split, code, image.where)


def faults(image: Listed, decode: bool) -> list[str]:
    """The kinds of fault of one image file."""
    found: list[str] = []
    begun = False
    try:
        path = existing(image.path)
        if path != image.path:
            found.append("file-name-other")
        with opened(path) as picture:
            begun = True
            found += _header_faults(picture, image)
            if decode:
                picture.load()
    except FileNotFoundError:
        return ["image-missing"]
    except Exception:  # damaged bytes bring a decoder to any exception
        found.append("image-truncated" if begun else "image-unreadable")
    return found


def _header_faults(picture: Image.Image, image: Listed) -> Iterator[str]:
    orientation = orientation_of(picture)
    on_side = orientation >= TURNED and picture.format != "TIFF"  # of which Pillow gives the size as turned
    upright = picture.size[::-1] if on_side else picture.size
    if image.height is None or upright == (image.width, image.height):
        if orientation != 1:
            yield "image-turned"
    else:
        yield "image-rotated" if picture.size == (image.width, image.height) else "image-size"
    if picture.mode in ("I", "F") and picture.format != "PNG":
        yield "image-32-bit"
    elif picture.mode.startswith(("I", "F")):
        yield "image-16-bit"
    elif stored_as(picture).partition(";")[2].startswith("16"):
        yield "image-reduced"
    if picture.mode == "CMYK":
        yield "image-cmyk"
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        yield "image-alpha"
    if getattr(picture, "n_frames", 1) > 1:
        yield "image-frames"


def shared(train: list[Listed], val: list[Listed]) -> Iterator[str]:
    """The validation images whose very bytes are also a training image. Reads only files of equal length."""
    by_length: dict[int, list[Listed]] = {}
    for image in train:
        by_length.setdefault(_length(image), []).append(image)
    digests: dict[int, dict[bytes, Listed]] = {}
    for image in _progress(val, "comparing splits", len(val)):
        length = _length(image)
        if length <= 0 or length not in by_length:
            continue
        if length not in digests:
            digests[length] = {_digest(other): other for other in by_length[length]}
        twin = digests[length].get(_digest(image))
        if twin:
            yield f"{image.where} is {twin.where}"


def _progress(items: Iterable[T], description: str, total: int) -> Iterable[T]:
    """A bar on a terminal, and nothing elsewhere; never on standard output, which may be JSON."""
    console = Console(stderr=True)
    return track(items, description, total, console=console, transient=True, disable=not console.is_terminal)


def _length(image: Listed) -> int:
    try:
        return existing(image.path).stat().st_size
    except (OSError, ValueError):  # not there, or no possible name: said elsewhere
        return 0


def _digest(image: Listed) -> bytes:
    try:
        return hashlib.blake2b(existing(image.path).read_bytes(), digest_size=16).digest()
    except OSError:
        return image.where.encode()  # like no other
