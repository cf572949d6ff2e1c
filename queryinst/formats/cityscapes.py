"""Cityscapes: `gtFine/SPLIT/CITY/*_instanceIds.png`, or `*_polygons.json` where there are none, and `leftImg8bit`.

Objects hide each other: the polygons are painted in their order, as the data set's own tools do, and an object is what
can still be seen of it. A region of uncounted objects ("cargroup") becomes a crowd region.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from queryinst.errors import UserError
from queryinst.formats.files import Gallery, folder_of, read_json, split_of
from queryinst.formats.found import Found, Request, coded, number, points_of, progress
from queryinst.formats.instance_maps import read_map

NAME, WHAT = "cityscapes", "Cityscapes (*_polygons.json or *_instanceIds.png)"
# Classes that have instances, by their id in the maps.
IDS = {24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"}
MAPS, POLYGONS = "_instanceIds.png", "_polygons.json"
EACH = 1000  # a map's value is EACH * class + number of the object; below EACH it is the class alone, a group


def matches(source: Path) -> bool:
    """A folder or file with names that Cityscapes has."""
    if source.is_file():
        return source.name.endswith((MAPS, POLYGONS))
    return any(next(source.glob(f"**/*{ending}"), None) is not None for ending in (MAPS, POLYGONS))


def read(request: Request) -> Found:
    """Every annotated image. Raises UserError."""
    found, root = Found(classes=list(IDS.values())), folder_of(request.source)
    gallery = Gallery(request.images or _images(root), found)
    for stem, path in progress(sorted(_annotations(request.source).items()), "reading Cityscapes"):
        image = gallery.of_stem(f"{stem}_leftImg8bit") or gallery.of_stem(stem)
        if image is None:
            found.missing.append(f"{stem}_leftImg8bit.png")
            continue
        content = None if path.suffix == ".png" else read_json(path)
        size = None if content is None else _size(content, path)
        picture = gallery.picture(str(image.relative_to(gallery.folder)), size, split_of(path, root))
        if picture is None:
            continue
        ids = read_map(path, picture) if content is None else paint(content, path)
        for value in np.unique(ids).tolist():
            name = IDS.get(value // EACH if value >= EACH else value)
            if name:
                found.add(picture, name, [coded(ids == value)], crowd=value < EACH)
        found.pictures.append(picture)
    return found


def _images(root: Path) -> Path:
    """The folder of the images: leftImg8bit in the folder or beside it, or else the folder itself."""
    beside = [root / "leftImg8bit", root.parent / "leftImg8bit"]
    return next((path for path in beside if path.is_dir()), root)


def _annotations(source: Path) -> dict[str, Path]:
    """The annotation of each image, by city, sequence and frame; maps before polygons."""
    files = [source] if source.is_file() else [*source.glob(f"**/*{POLYGONS}"), *source.glob(f"**/*{MAPS}")]
    found = {}
    for path in files:
        stem = path.name.removesuffix(POLYGONS).removesuffix(MAPS)
        found[stem.removesuffix("_gtFine").removesuffix("_gtCoarse")] = path
    return found


def _size(content: Any, path: Path) -> tuple[int, int]:
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise UserError(f"{path} has no list of objects; wanted Cityscapes' polygons")
    height, width = (round(number(content.get(key), str(path), key)) for key in ("imgHeight", "imgWidth"))
    return height, width


def paint(content: dict[str, Any], path: Path) -> NDArray[np.int64]:
    """(H, W) values as in the maps, of which those of things without instances are 0."""
    height, width = _size(content, path)
    canvas = Image.new("I", (width, height), 0)
    brush, counts = ImageDraw.Draw(canvas), dict.fromkeys(IDS, 0)
    classes = {name: key for key, name in IDS.items()}
    for place, thing in enumerate(content["objects"]):
        where = f"{path}, object {place},"
        if not isinstance(thing, dict):
            raise UserError(f"{where} is {str(thing)[:60]}; wanted a label and a polygon")
        if thing.get("deleted"):
            continue
        label = str(thing.get("label"))
        key = classes.get(label)
        value = classes.get(label.removesuffix("group"), 0)
        if key is not None:
            value = key * EACH + counts[key]
            counts[key] += 1
        points = points_of(thing.get("polygon") or [], where)
        if len(points) > 1:
            brush.polygon(points, fill=value)
    return np.asarray(canvas).astype(np.int64)
