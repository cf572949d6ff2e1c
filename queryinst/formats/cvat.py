"""CVAT's own XML, "CVAT for images 1.1": images with polygons, boxes, ellipses and masks. Shapes of one label and one
group are one object."""

from pathlib import Path
from xml.etree import ElementTree  # expat since 2.4.1 refuses entities that grow, and no other file is read

import numpy as np

from queryinst.errors import UserError
from queryinst.formats.files import SPLITS, Gallery, folder_of
from queryinst.formats.found import Found, Part, Picture, Request, coded, ellipse, number, progress, rectangle

NAME, WHAT = "cvat", 'CVAT XML ("CVAT for images 1.1")'
SHAPES = ("polygon", "box", "ellipse", "mask")
NO_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")


def matches(source: Path) -> bool:
    """An XML file, or a folder with one."""
    return bool(_files(source))


def _files(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.suffix.lower() == ".xml" else []
    return sorted(source.glob("*.xml"))


def read(request: Request) -> Found:
    """All images with their objects. Raises UserError."""
    found = Found()
    gallery = Gallery(request.images or folder_of(request.source), found)
    for path in _files(request.source):
        root = _parsed(path)
        found.classes += [name for label in root.iter("label") if (name := label.findtext("name") or "").strip()]
        for image in progress(root.findall("image"), f"reading {path.name}"):
            where = f"{path}, image {image.get('name')},"
            size = _whole(image, "height", where), _whole(image, "width", where)
            name, subset = image.get("name") or "", image.get("subset") or ""
            within = [f"images/{subset}/{name}", f"{subset}/{name}"] if subset else []  # how a project is exported
            picture = gallery.picture([*within, f"images/{name}", name], size, SPLITS.get(subset.lower(), ""))
            if picture:
                _add_all(found, picture, image, where, request)
                found.pictures.append(picture)
    found.classes = list(dict.fromkeys(found.classes))
    return found


def _parsed(path: Path) -> "ElementTree.Element":
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UserError(f"{path} cannot be read as XML: {error}; export it again") from None
    if root.tag != "annotations":
        raise UserError(f"{path} is XML of '{root.tag[:40]}'; wanted CVAT's 'annotations'")
    if root.find("track") is not None:
        raise UserError(f'{path} has tracks of a video; export it from CVAT as "CVAT for images 1.1"')
    return root


def _add_all(found: Found, picture: Picture, image: "ElementTree.Element", where: str, request: Request) -> None:
    groups: dict[tuple[str, str], list[ElementTree.Element]] = {}
    for place, shape in enumerate(image):
        if shape.tag in NO_AREA:
            found.notes[f"shapes of the kind {shape.tag} left out: they enclose nothing"] += 1
        elif shape.tag in SHAPES:
            group = shape.get("group_id") or "0"
            key = shape.get("label") or "", f"group {group}" if group != "0" else f"alone {place}"
            groups.setdefault(key, []).append(shape)
    for (label, _), shapes in groups.items():
        if len(shapes) == 1 and shapes[0].tag == "box":
            found.add_box(picture, label, _outline(shapes[0], where), request)
        else:
            found.add(picture, label, [_part(shape, picture, where) for shape in shapes])


def _part(shape: "ElementTree.Element", picture: Picture, where: str) -> Part:
    return _mask(shape, picture, where) if shape.tag == "mask" else _outline(shape, where)


def _outline(shape: "ElementTree.Element", where: str) -> list[float]:
    """The flat polygon of a shape."""

    def value(key: str) -> float:
        return number(shape.get(key), where, f"{shape.tag} {key}")

    turn = number(shape.get("rotation") or 0, where, "rotation")
    if shape.tag == "box":
        left, top = value("xtl"), value("ytl")
        return rectangle(left, top, value("xbr") - left, value("ybr") - top, turn, centred=True)
    if shape.tag == "ellipse":
        return ellipse(value("cx"), value("cy"), value("rx"), value("ry"), turn)
    points = [point.split(",") for point in (shape.get("points") or "").split(";") if point]
    if any(len(point) != 2 for point in points):
        raise UserError(f"{where} has points {str(shape.get('points'))[:60]!r}; wanted x,y;x,y;...")
    return [number(v, where, "a point") for point in points for v in point]


def _mask(shape: "ElementTree.Element", picture: Picture, where: str) -> Part:
    """Run lengths of 0 and 1 in turn, row by row, of the bitmap that fills a box."""
    left, top, width, height = (_whole(shape, key, where) for key in ("left", "top", "width", "height"))
    if not (0 < width <= picture.width and 0 < height <= picture.height):
        raise UserError(f"{where} has a mask of {width}x{height}; its image is {picture.width}x{picture.height}")
    try:
        runs = np.array([int(run) for run in (shape.get("rle") or "").split(",")])
    except ValueError:
        runs = np.array([-1])
    if runs.min() < 0 or runs.sum() != width * height:
        raise UserError(f"{where} has a mask whose rle does not make up its {width}x{height} pixels; export it again")
    bitmap = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    return coded(bitmap, left, top, (picture.height, picture.width))


def _whole(element: "ElementTree.Element", key: str, where: str) -> int:
    return round(number(element.get(key), where, key))
