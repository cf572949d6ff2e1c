"""Image files: what the annotations say of them, and their pixels."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from queryinst.data.names import existing
from queryinst.errors import UserError


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
        with Image.open(existing(image.path)) as picture:
            width, height = picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image {image.id} ({image.path}) cannot be read: {error}") from None
    _require_size(image, height, width)


def _require_size(image: ImageFile, height: int, width: int) -> None:
    if (height, width) != (image.height, image.width):
        raise UserError(
            f"image {image.id} ({image.path}) is {width}x{height}, but its annotations say "
            f"{image.width}x{image.height}: correct one of them (a photo may lie on its side: see its EXIF orientation)"
        )


def read_image(image: ImageFile) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB, as they are stored: COCO's files do not mind what a camera notes of how to turn them.

    Raises:
        UserError: the file is missing or damaged, or its size is not what the annotations say.
    """
    path = existing(image.path)
    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise UserError(
                    f"image {image.id} ({image.path}) has {picture.mode} pixels; convert it to 8 bits a channel"
                )
            pixels = None
            if picture.format == "JPEG" and picture.mode == "RGB":
                pixels = decode_jpeg(path)
            if pixels is None:
                pixels = np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"image {image.id} ({image.path}) does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's ways to say damaged
        raise UserError(f"image {image.id} ({image.path}) cannot be read: {error}") from None
    _require_size(image, *pixels.shape[:2])
    return pixels


def decode_jpeg(path: Path) -> NDArray[np.uint8] | None:
    """The pixels that Pillow gives, a quarter sooner; None for what OpenCV cannot read, of which Pillow says why."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    return None if pixels is None else np.asarray(pixels, np.uint8)
