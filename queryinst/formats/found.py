"""What is read of any format: images with objects, and notes on what was left out. In pixels, x to the right, y down.

A coordinate is a distance from the left or upper edge of the image, as in COCO: the first pixel goes from 0 to 1.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.progress import track

from queryinst.errors import UserError
from queryinst.ops import masks as mask_ops

T = TypeVar("T")
DIGITS = 3  # after the point: a thousandth of a pixel
FLATTEST = 0.05  # pixels that a polygon may be away from the ellipse that it stands for
LARGEST = 1_000_000  # pixels: no coordinate is beyond this

Part = list[float] | mask_ops.Rle  # a flat polygon x, y, x, y, ... or an RLE of the image's size


@dataclass(frozen=True)
class Request:
    """What is to be read, and how.

    Attributes:
        source: file or folder of the annotations.
        images: folder of the images; None where the format says, or else beside the annotations.
        classes: names in the order that they shall have; what a format does not name is named by it.
        attribute: of VIA, the region attribute that holds the class; None to choose.
        boxes: whether objects that are boxes only are taken, as rectangles; else they are left out.
        skip_missing: whether images that are not there are left out; else they are an error.
    """

    source: Path
    images: Path | None = None
    classes: tuple[str, ...] = ()
    attribute: str | None = None
    boxes: bool = True
    skip_missing: bool = False


@dataclass(frozen=True)
class Thing:
    """An object: name of its class, COCO segmentation, box x, y, width, height, area in pixels, and crowd or not."""

    name: str
    segmentation: list[list[float]] | mask_ops.Rle
    box: list[float]
    area: int
    crowd: bool = False


@dataclass
class Picture:
    """An image file, its size in pixels, the split it is in ("" for none), its objects, and whether they are drawn on
    the image as a camera's note has it turned, which is not how its pixels are stored."""

    file: Path
    height: int
    width: int
    split: str = ""
    things: list[Thing] = field(default_factory=list)
    turned: bool = False


@dataclass
class Found:
    """All that was read: images, names of classes as the format lists them, and notes with how often they hold."""

    pictures: list[Picture] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)  # images that are not there

    def add(self, picture: Picture, name: str, parts: Sequence[Part], crowd: bool = False) -> None:
        """Add an object to a picture, made of one or several parts; a note where there is nothing to it."""
        whole = [usable for part in parts if (usable := _usable(part)) is not None]
        if len(whole) < len(parts):
            self.notes["outlines of fewer than three points, or without finite numbers, left out"] += 1
        made = _thing(name, whole, picture.height, picture.width, crowd) if whole else None
        if made is not None:
            picture.things.append(made)
        elif whole:
            self.notes["objects without a pixel inside their image left out"] += 1

    def add_box(self, picture: Picture, name: str, outline: list[float], request: Request) -> None:
        """Add an object of which only a box is known, as its rectangle, unless the request has it left out."""
        if request.boxes:
            self.notes["objects are boxes only: their mask is the rectangle (--no-boxes leaves them out)"] += 1
            self.add(picture, name, [outline])
        else:
            self.notes["objects left out, since they are boxes only"] += 1


def _usable(part: Part) -> Part | None:
    if isinstance(part, dict):
        return part
    fine = len(part) >= 6 and len(part) % 2 == 0 and all(abs(value) <= LARGEST for value in part)
    return [round(float(value), DIGITS) for value in part] if fine else None


def _thing(name: str, parts: list[Part], height: int, width: int, crowd: bool) -> Thing | None:
    """The object, or None where no pixel of the image is its."""
    polygons = [part for part in parts if not isinstance(part, dict)]
    codes = [part if isinstance(part, dict) else mask_ops.compressed([part], height, width) for part in parts]
    code = coco_mask.merge(codes) if len(codes) > 1 else codes[0]
    area = mask_ops.area(code)
    if not area:
        return None
    if len(polygons) == len(parts) and not crowd:  # polygons stay polygons: finer than pixels
        xs = [value for polygon in polygons for value in polygon[::2]]
        ys = [value for polygon in polygons for value in polygon[1::2]]
        box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        return Thing(name, polygons, [round(value, DIGITS) for value in box], area)
    x, y, right, bottom = mask_ops.bounds(code)
    return Thing(name, text_of(code), [x, y, right - x, bottom - y], area, crowd)


def text_of(code: mask_ops.Rle) -> mask_ops.Rle:
    """A compressed RLE whose counts are text, which JSON can hold."""
    counts = code["counts"]
    return {"size": list(code["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def coded(bitmap: NDArray[Any], left: int = 0, top: int = 0, size: tuple[int, int] | None = None) -> mask_ops.Rle:
    """The RLE of a bitmap (h, w), not 0 where the object is, whose corner lies at column `left`, row `top` of an image
    of `size` (height, width; the bitmap's own by default). What leaves the image is cut off."""
    height, width = size or (bitmap.shape[0], bitmap.shape[1])
    canvas = np.zeros((height, width), np.uint8, order="F")
    rows = slice(max(top, 0), max(min(top + bitmap.shape[0], height), 0))
    columns = slice(max(left, 0), max(min(left + bitmap.shape[1], width), 0))
    inside = bitmap[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    canvas[rows, columns] = inside != 0
    return text_of(coco_mask.encode(canvas))


def rectangle(
    x: float, y: float, width: float, height: float, degrees: float = 0, centred: bool = False
) -> list[float]:
    """The flat polygon of a box that is turned clockwise about its upper left corner, or about its centre."""
    middle = (x + width / 2, y + height / 2) if centred else (x, y)
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return [value for corner in corners for value in turned(corner, middle, degrees)]


def ellipse(x: float, y: float, across: float, down: float, degrees: float = 0) -> list[float]:
    """A flat polygon for an ellipse with its centre, its two radii, and how far it is turned clockwise."""
    largest = max(abs(across), abs(down), 1e-6)
    points = 8
    if largest > FLATTEST and math.isfinite(largest):
        points = min(max(8, math.ceil(math.pi / math.acos(1 - FLATTEST / largest))), 720)
    angles = [2 * math.pi * number / points for number in range(points)]
    corners = [(x + across * math.cos(angle), y + down * math.sin(angle)) for angle in angles]
    return [value for corner in corners for value in turned(corner, (x, y), degrees)]


def turned(point: tuple[float, float], about: tuple[float, float], degrees: float) -> tuple[float, float]:
    """A point turned clockwise, as the picture is seen."""
    if not degrees:
        return point
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    x, y = point[0] - about[0], point[1] - about[1]
    return about[0] + x * cosine - y * sine, about[1] + x * sine + y * cosine


def progress(items: Sequence[T], what: str) -> Iterable[T]:
    """A bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    return track(items, what, len(items), console=console, transient=True, disable=not console.is_terminal)


def number(value: Any, where: str, what: str) -> float:
    """A number of pixels, percent or degrees of a file. Raises UserError that names the place."""
    try:
        read = float(value)
    except (TypeError, ValueError, OverflowError):
        read = math.nan
    if not abs(read) <= LARGEST:
        raise UserError(f"{where} has {what} {str(value)[:60]!r}; wanted a finite number, of at most {LARGEST}")
    return read


def points_of(value: Any, where: str) -> list[tuple[float, float]]:
    """x, y of each of a list of points. Raises UserError that names the place."""
    if not isinstance(value, list) or not all(isinstance(point, list) and len(point) == 2 for point in value):
        raise UserError(f"{where} has points {str(value)[:60]}; wanted a list with x, y of each")
    return [(number(x, where, "x"), number(y, where, "y")) for x, y in value]


def with_images(request: Request, folder: Path) -> Request:
    """The request with a folder of images, where it has none."""
    return request if request.images else dataclasses.replace(request, images=folder)
