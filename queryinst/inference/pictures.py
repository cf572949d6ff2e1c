"""Whatever somebody calls an image, as (H, W, 3) uint8 RGB, or one sentence that says why not."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from queryinst.data.images import eight_bits, opened, pixels_of
from queryinst.errors import UserError

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Source = str | Path | NDArray[Any] | Image.Image | Tensor
LARGEST = 178_956_970  # pixels: where Pillow takes a file for an attack


def to_picture(source: Source) -> Picture:
    """The pixels of a file, an array (H, W, 3) or (H, W), a Pillow image or a tensor (3, H, W), upright and in RGB.

    Of 16 bits the upper eight are taken, of values up to 4095 the upper eight of 12; transparency is dropped, and of
    several frames the first is taken.

    Raises:
        UserError: it is none of these, or cannot be read.
    """
    if isinstance(source, str | Path):
        return read(Path(source))
    if isinstance(source, Image.Image):
        try:
            return pixels_of(source, None)
        except UserError as error:
            raise UserError(f"the image {error}") from None
    if isinstance(source, Tensor):
        return _of_array(source.permute(1, 2, 0).cpu().numpy() if source.ndim == 3 else source.cpu().numpy())
    return _of_array(np.asarray(source))


def read(path: Path) -> Picture:
    """The pixels of an image file. Raises UserError."""
    try:
        with opened(path) as picture:
            return pixels_of(picture, path)
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give an image file") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path} has more than {LARGEST // 10**6} million pixels: make it smaller, or cut it") from None
    except MemoryError:
        raise UserError(f"{path} does not fit into memory: make it smaller, or cut it") from None
    except Exception as error:  # a broken file makes Pillow's readers fail in any way there is
        raise UserError(f"{path} cannot be read as an image: {error}") from None


def _of_array(array: NDArray[Any]) -> Picture:
    if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or not array.size:
        shape = "x".join(map(str, array.shape)) or "one value"
        raise UserError(
            f"an image must be a file, a Pillow image, an array (H, W, 3) or (H, W) of uint8 or a tensor (3, H, W) of "
            f"uint8; got {shape} of {array.dtype}"
        )
    if array.dtype == np.uint16:
        array = eight_bits(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.shape[2] not in (1, 3, 4):
        raise UserError(f"an image must have 1, 3 or 4 channels; got {array.shape[2]}: {array.shape}, height first")
    return np.ascontiguousarray(array.repeat(3, 2) if array.shape[2] == 1 else array[..., :3])
