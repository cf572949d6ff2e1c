"""What the page accepts: an image file of a known format, of so many pixels at most."""

from pathlib import Path

from PIL import Image

from queryinst.errors import UserError
from queryinst.inference.pictures import Picture, read

# Pillow knows many more, some of which start other programs: a file is what its content says, not what it is called.
FORMATS = {
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
SUFFIXES = [suffix for suffixes in FORMATS.values() for suffix in suffixes]


def read_upload(path: Path, megapixels: int) -> Picture:
    """The pixels of an uploaded file. Raises UserError: it is no image, damaged, or larger than `megapixels`."""
    try:
        with Image.open(path, formats=list(FORMATS)) as picture:
            width, height = picture.size
    except Image.DecompressionBombError:
        raise UserError(f"{path.name} has far more than {megapixels} million pixels, the most that is taken") from None
    except (OSError, SyntaxError, ValueError):  # Pillow's ways to say that it is none
        raise UserError(f"{path.name} is not an image that can be read; give one of {', '.join(FORMATS)}") from None
    if width * height > megapixels * 1_000_000:
        raise UserError(
            f"{path.name} has {width} x {height} pixels, more than the {megapixels} million that are taken; "
            "make it smaller, or start the page with a larger megapixels=NUMBER"
        )
    try:
        return read(path)
    except UserError as error:  # the folder of uploads is nobody's concern
        raise UserError(str(error).replace(str(path), path.name)) from None
