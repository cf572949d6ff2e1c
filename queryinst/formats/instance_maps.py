"""Images of ids: `images/`, beside it `instances/` with a PNG of the same name and size, where 0 is nothing and every
other value one object. The class is the value that a second map, in `classes/`, has there most often; or there is one.

Ids are grey values of 8 or 16 bits, indices of a palette, or colours.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from queryinst.errors import UserError
from queryinst.formats.files import Gallery, images_below, picture_of, split_of
from queryinst.formats.found import Found, Picture, Request, coded, progress

NAME, WHAT = "instance_maps", "PNG maps of ids (images/, instances/ and perhaps classes/)"
INSTANCES, CLASSES, NAMES = "instances", "classes", "classes.txt"
UNNAMED = "object"  # the class where there is one


def matches(source: Path) -> bool:
    """A folder with maps."""
    return (source / INSTANCES).is_dir()


def read(request: Request) -> Found:
    """Every map with its image. Raises UserError."""
    found, root = Found(), request.source / INSTANCES
    if not root.is_dir():
        raise UserError(f"{request.source} has no folder '{INSTANCES}'; wanted the maps of ids there")
    images = request.images or request.source / "images"
    gallery, kinds = Gallery(images, found), request.source / CLASSES
    found.classes = _names(request)
    for path in progress(images_below(root), "reading maps"):
        inside = path.relative_to(root)
        image = next((p for p in _beside(images, inside) if p.is_file()), None) or gallery.of_stem(path.stem)
        if image is None:
            found.missing.append(str(inside.with_suffix("")))
            continue
        ids = read_values(path)
        picture = picture_of(image, (ids.shape[0], ids.shape[1]), split_of(path, root))
        classes = read_map(kinds / inside, picture) if kinds.is_dir() else None
        for key in np.unique(ids[ids > 0]).tolist():
            bitmap = ids == key
            value = 1 if classes is None else int(np.bincount(classes[bitmap]).argmax())
            found.add(picture, _name(found, value, path), [coded(bitmap)])
        found.pictures.append(picture)
    if not found.pictures and not found.missing:
        raise UserError(f"{root} has no images; wanted a map of ids for every image")
    return found


def _beside(images: Path, inside: Path) -> list[Path]:
    return [images / inside.with_suffix(suffix) for suffix in (".jpg", ".png", ".jpeg", ".JPG", ".tif", ".bmp")]


def _names(request: Request) -> list[str]:
    """Names of the values 1, 2, ... of class maps."""
    listed = request.source / NAMES
    if request.classes:
        return list(request.classes)
    if listed.is_file():
        return [line.strip() for line in listed.read_text("utf-8").splitlines() if line.strip()]
    return [] if (request.source / CLASSES).is_dir() else [UNNAMED]


def _name(found: Found, value: int, path: Path) -> str:
    if not found.classes:
        return f"class {value}"
    if not 1 <= value <= len(found.classes):
        raise UserError(
            f"an object of {path} has class {value}, but {len(found.classes)} classes are named, which count from 1: "
            f"name all with --classes or in {NAMES}, or none"
        )
    return found.classes[value - 1]


def read_map(path: Path, picture: Picture) -> NDArray[np.int64]:
    """`read_values` of a map that is as large as its image. Raises UserError."""
    values = read_values(path)
    if values.shape != (picture.height, picture.width):
        raise UserError(
            f"{path} is {values.shape[1]}x{values.shape[0]}, but {picture.file} is {picture.width}x{picture.height}; "
            "make the map as large as its image"
        )
    return values


def read_values(path: Path) -> NDArray[np.int64]:
    """(H, W) whole numbers of a map; of a colour its red + 256 green + 65536 blue. Raises UserError."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "CMYK") else image)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; wanted a map of classes for every map of ids") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from None
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise UserError(f"{path} is a JPEG, which changes values; wanted a PNG")
    numbers = values.astype(np.int64)
    return numbers if numbers.ndim == 2 else numbers[..., :3] @ np.array([1, 1 << 8, 1 << 16])
