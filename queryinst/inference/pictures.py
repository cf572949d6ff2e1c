"""Whatever somebody calls an image, as (H, W, 3) uint8 RGB, or one sentence that says why not."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from queryinst.data.images import decode_jpeg
from queryinst.errors import UserError

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Source = str | Path | NDArray[Any] | Image.Image | Tensor
LARGEST = 178_956_970  # pixels: where Pillow takes a file for an attack


def to_picture(source: Source) -> Picture:
    """The pixels of a file, an array (H, W, 3) or (H, W), a Pillow image or a tensor (3, H, W), upright and in RGB.

    Pixels of 16 bits are divided by 257, transparency is dropped, and of several frames the first is taken.

    Raises:
        UserError: it is none of these, or cannot be read.
    """
    if isinstance(source, str | Path):
        return read(Path(source))
    if isinstance(source, Image.Image):
        return _of_pillow(source, "the image")
    if isinstance(source, Tensor):
        return _of_array(source.permute(1, 2, 0).cpu().numpy() if source.ndim == 3 else source.cpu().numpy())
    return _of_array(np.asarray(source))


def read(path: Path) -> Picture:
    """The pixels of an image file. Raises UserError."""
    try:
        with Image.open(path) as picture:
            upright = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
            pixels = decode_jpeg(path) if upright and (picture.format, picture.mode) == ("JPEG", "RGB") else None
            return _of_pillow(picture, str(path)) if pixels is None else pixels
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give an image file") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path} has more than {LARGEST // 10**6} million pixels: make it smaller, or cut it") from None
    except MemoryError:
        raise UserError(f"{path} does not fit into memory: make it smaller, or cut it") from None
    except Exception as error:  # a broken file makes Pillow's readers fail in any way there is
        raise UserError(f"{path} cannot be read as an image: {error}") from None


def _of_pillow(picture: Image.Image, name: str) -> Picture:
    upright = ImageOps.exif_transpose(picture) or picture
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format == "PNG"):  # as Pillow 10 calls it
        return _of_array(np.asarray(upright).astype(np.uint16))
    if picture.mode in ("I", "F"):
        raise UserError(f"{name} has pixels of 32 bits, and nobody knows what is white: convert it to 8 bits a channel")
    return np.asarray(upright.convert("RGB"))


def _of_array(array: NDArray[Any]) -> Picture:
    if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or not array.size:
        shape = "x".join(map(str, array.shape)) or "one value"
        raise UserError(
            f"an image must be a file, a Pillow image, an array (H, W, 3) or (H, W) of uint8 or a tensor (3, H, W) of "
            f"uint8; got {shape} of {array.dtype}"
        )
    if array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] not in (1, 3, 4):
        raise UserError(f"an image must have 1, 3 or 4 channels; got {array.shape[2]}: {array.shape}, height first")
    return np.ascontiguousarray(array.repeat(3, 2) if array.shape[2] == 1 else array[..., :3])
