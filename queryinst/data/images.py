"""Image files: what the annotations say of them, and their pixels."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from queryinst.data.names import existing
from queryinst.errors import UserError

TURNED = 5  # from this EXIF orientation on, rows are columns
READING = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # Pillow's ways to say damaged


@dataclass(frozen=True)
class ImageFile:
    """One entry of `images`."""

    id: int
    path: Path
    height: int
    width: int


def check_header(image: ImageFile) -> None:
    """Raise UserError unless the file begins as an image of the annotated size. Says nothing about its end."""
    try:
        with opened(existing(image.path)) as picture:
            width, height = picture.size
            if orientation_of(picture) >= TURNED and picture.format != "TIFF" and (height, width) != _size(image):
                width, height = height, width
    except READING as error:
        raise UserError(f"image {image.id} ({image.path}) cannot be read: {error}") from None
    _require_size(image, height, width)


def _size(image: ImageFile) -> tuple[int, int]:
    return image.height, image.width


def _require_size(image: ImageFile, height: int, width: int) -> None:
    if (height, width) != _size(image):
        raise UserError(
            f"image {image.id} ({image.path}) is {width}x{height}, but its annotations say "
            f"{image.width}x{image.height}: correct one of them (a photo may lie on its side: see its EXIF orientation)"
        )


def read_image(image: ImageFile) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, upright by the EXIF note, as in prediction; as stored where only that is the annotated size.

    Raises:
        UserError: the file is missing or damaged, or its size is not what the annotations say.
    """
    path = existing(image.path)
    try:
        with opened(path) as picture:
            pixels = pixels_of(picture, path, _size(image))
    except UserError as error:
        raise UserError(f"image {image.id} ({image.path}) {error}") from None
    except FileNotFoundError:
        raise UserError(f"image {image.id} ({image.path}) does not exist") from None
    except READING as error:
        raise UserError(f"image {image.id} ({image.path}) cannot be read: {error}") from None
    _require_size(image, *pixels.shape[:2])
    return pixels


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file. Not by its name, by which Pillow maps a TIFF's pixels before it turns them, and mixes them up."""
    with path.open("rb") as file, Image.open(file) as picture:
        yield picture


def orientation_of(picture: Image.Image) -> int:
    """EXIF's 1 to 8; 1 where there is none or it is damaged. Of a PNG file only what comes before the pixels."""
    try:  # as Pillow's base class does it: that of PNG decodes the whole file, for a note that may follow the pixels
        orientation = Image.Image.getexif(picture).get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged note harms nobody
        return 1
    return orientation if orientation in range(1, 9) else 1


def pixels_of(picture: Image.Image, path: Path | None, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an opened image: one rule for training, evaluation and prediction.

    Upright by the EXIF note, unless the stored pixels alone have the height and width `size`. Of 16 bits the upper
    eight, and of values up to 4095 (12 bits) the upper eight of these. `path` is its file, where it is one.

    Raises:
        UserError: it has 32 bits a channel. The sentence goes on from the image.
    """
    note = orientation_of(picture)
    if path and note == 1 and (picture.format, picture.mode) == ("JPEG", "RGB"):
        pixels = decode_jpeg(path)
        if pixels is not None:
            return pixels
    deep = _deep_colours(picture, path) if path and note == 1 else None
    if deep is not None:
        return eight_bits(deep)
    picture.load()
    upright = _upright(picture)
    if size is not None and (upright.height, upright.width) != size == (picture.height, picture.width):
        upright = picture
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):  # as Pillow 10 calls it
        return np.repeat(eight_bits(np.asarray(upright).astype(np.uint16))[..., None], 3, axis=2)
    if picture.mode in ("I", "F"):
        raise UserError("has pixels of 32 bits, and nobody knows what is white: convert it to 8 bits a channel")
    return np.asarray(upright.convert("RGB"))


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture) or picture
    except Exception:  # a damaged note harms nobody
        return picture


def eight_bits(deep: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """The 8 bits of 16, or of 12 where no value needs more: cameras of 12 bits would be nearly black otherwise."""
    white = 4095 if deep.max(initial=0) <= 4095 else 65535
    return (deep.astype(np.uint32) * 255 // white).astype(np.uint8)


def _deep_colours(picture: Image.Image, path: Path) -> NDArray[np.uint16] | None:
    """(H, W, 3) RGB of 16 bits a channel, which Pillow would cut to 8; None where it is no PNG of that kind."""
    if picture.format != "PNG" or picture.mode not in ("RGB", "RGBA") or not stored_as(picture).endswith("16B"):
        return None
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH)
    return None if pixels is None or pixels.dtype != np.uint16 else np.asarray(pixels, np.uint16)


def stored_as(picture: Image.Image) -> str:
    """How pixels are stored, such as "RGB;16B"."""
    tile = getattr(picture, "tile", None)
    arguments = tile[0][3] if tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def decode_jpeg(path: Path) -> NDArray[np.uint8] | None:
    """The pixels that Pillow gives, a quarter sooner; None for what OpenCV cannot read, of which Pillow says why."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    return None if pixels is None else np.asarray(pixels, np.uint8)
