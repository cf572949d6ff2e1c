"""labelme: a JSON file an image, with `shapes`. Shapes with one label and one group_id are one object."""

import base64
import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from queryinst.errors import UserError
from queryinst.formats.files import Gallery, folder_of, json_files, read_json, split_of
from queryinst.formats.found import Found, Part, Picture, Request, coded, ellipse, points_of, progress, rectangle

NAME, WHAT = "labelme", "labelme (a JSON file an image)"
NO_AREA = ("line", "linestrip", "point", "points")  # shapes that enclose nothing
NO_OBJECTS = ("__ignore__", "_background_")  # labels that labelme's own tools make no objects of
OUTLINES = ("polygon", "oriented_rectangle", "ai_polygon")


def is_one(content: Any) -> bool:
    """Whether JSON content is of this format."""
    return isinstance(content, dict) and isinstance(content.get("shapes"), list) and "imagePath" in content


def read(request: Request) -> Found:
    """Every JSON file of this format, with its image. Raises UserError."""
    found, root = Found(), folder_of(request.source)
    gallery = Gallery(request.images or root, found)
    for path in progress(json_files(request.source), "reading labelme"):
        content = read_json(path)
        if not is_one(content):
            found.notes["JSON files that are not labelme's passed over"] += 1
            continue
        picture = _picture(gallery, path, content, split_of(path, root))
        if picture:
            _add_all(found, picture, content["shapes"], path, request)
            found.pictures.append(picture)
    return found


def _picture(gallery: Gallery, path: Path, content: dict[str, Any], split: str) -> Picture | None:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    size = (int(height), int(width)) if isinstance(height, int) and isinstance(width, int) else None
    named = str(content["imagePath"]).replace("\\", "/")
    names = [named]
    with contextlib.suppress(OSError, ValueError):  # no possible name of a file, or not below the folder of the images
        beside = (path.parent / named).resolve()  # imagePath counts from the JSON file
        names.insert(0, str(beside.relative_to(gallery.folder.resolve())))
    return gallery.picture(names, size, split)


def _add_all(found: Found, picture: Picture, shapes: list[Any], path: Path, request: Request) -> None:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for place, shape in enumerate(shapes):
        where = f"{path}, shape {place},"
        if not isinstance(shape, dict) or not isinstance(shape.get("points"), list) or "label" not in shape:
            raise UserError(f"{where} has no label and points; wanted both")
        kind = str(shape.get("shape_type") or "polygon")
        if kind in NO_AREA:
            found.notes[f"shapes of the kind {kind} left out: they enclose nothing"] += 1
            continue
        if shape["label"] in NO_OBJECTS:
            found.notes[f"shapes of the label {shape['label']} left out: they are no objects"] += 1
            continue
        group = shape.get("group_id")
        key = str(shape["label"]), f"alone {place}" if group is None else f"group {group}"
        groups.setdefault(key, []).append({**shape, "shape_type": kind, "where": where})
    for (label, _), members in groups.items():
        if len(members) == 1 and members[0]["shape_type"] == "rectangle":
            found.add_box(picture, label, _outline(members[0]), request)
        else:
            found.add(picture, label, [_part(shape, picture) for shape in members])


def _part(shape: dict[str, Any], picture: Picture) -> Part:
    return _mask(shape, picture) if shape["shape_type"] == "mask" else _outline(shape)


def _points(shape: dict[str, Any], wanted: int) -> list[tuple[float, float]]:
    points = points_of(shape["points"], shape["where"])
    if len(points) < wanted:
        kind = shape["shape_type"][:40]
        raise UserError(f"{shape['where']} has {len(points)} points; a shape of the kind '{kind}' needs {wanted}")
    return points


def _outline(shape: dict[str, Any]) -> list[float]:
    """The flat polygon of a shape that has an outline."""
    kind = shape["shape_type"]
    points = _points(shape, {"rectangle": 2, "circle": 2}.get(kind, 0))
    if kind == "rectangle" and len(points) == 2:
        (x1, y1), (x2, y2) = points
        return rectangle(min(x1, x2), min(y1, y2), abs(x2 - x1), abs(y2 - y1))
    if kind == "circle":  # the centre and a point on it
        (x, y), (x2, y2) = points[:2]
        radius = float(np.hypot(x2 - x, y2 - y))
        return ellipse(x, y, radius, radius)
    if kind not in (*OUTLINES, "rectangle"):
        raise UserError(f"{shape['where']} is of the kind '{kind[:40]}', which is not known here")
    return [value for point in points for value in point]


def _mask(shape: dict[str, Any], picture: Picture) -> Part:
    """A bitmap as PNG, in base64, and the first and the last pixel of the box that it fills."""
    (left, top), _ = _points(shape, 2)[:2]
    try:
        with Image.open(io.BytesIO(base64.b64decode(shape.get("mask") or "", validate=True))) as image:
            bitmap = np.asarray(image.convert("L") if image.mode not in ("1", "L", "P") else image)
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise UserError(f"{shape['where']} is a mask that cannot be decoded: {error}") from None
    return coded(bitmap, int(left), int(top), (picture.height, picture.width))
