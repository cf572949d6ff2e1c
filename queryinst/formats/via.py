"""VGG Image Annotator 1 and 2: a JSON file with images, and regions that have a shape and attributes; the class is one
of the attributes. Folders of such files are splits. VIA does not know the size of an image, which is read from it."""

from collections import Counter
from typing import Any

from queryinst.errors import UserError
from queryinst.formats.files import Gallery, folder_of, json_files, read_json, split_of
from queryinst.formats.found import Found, Picture, Request, ellipse, number, progress, rectangle

NAME, WHAT = "via", "VGG Image Annotator 1 or 2 (JSON)"
USUAL = ("label", "class", "category", "object", "name", "type")  # attributes that hold the class, most likely first
NO_AREA = ("point", "polyline", "line")
UNNAMED = "object"  # the class where there are no attributes


def is_one(content: Any) -> bool:
    """Whether JSON content is of this format: a project, or its images by key."""
    images = _images(content)
    return bool(images) and all(isinstance(image, dict) and {"filename", "regions"} <= image.keys() for image in images)


def _images(content: Any) -> list[Any]:
    if isinstance(content, dict):
        content = content.get("_via_img_metadata", content)
    return list(content.values()) if isinstance(content, dict) else []


def read(request: Request) -> Found:
    """Every JSON file of this format. Raises UserError."""
    found, root = Found(), folder_of(request.source)
    contents = [(path, read_json(path)) for path in json_files(request.source)]
    files = [(path, _images(content)) for path, content in contents if is_one(content)]
    attribute = _attribute(found, request, [image for _, images in files for image in images])
    for path, images in files:
        gallery = Gallery(request.images or path.parent, found)
        for image in progress(images, f"reading {path.name}"):
            picture = gallery.picture(str(image["filename"]), split=split_of(path, root))
            if picture:
                for place, region in enumerate(_regions(image)):
                    _add(found, picture, region, f"{path}, {image['filename']}, region {place},", attribute, request)
                found.pictures.append(picture)
    return found


def _regions(image: dict[str, Any]) -> list[Any]:
    """VIA 1 has them by number, VIA 2 as a list."""
    regions = image["regions"]
    return list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else []


def _attributes(region: Any) -> dict[str, Any]:
    given = region.get("region_attributes") if isinstance(region, dict) else None
    return given if isinstance(given, dict) else {}


def _attribute(found: Found, request: Request, images: list[dict[str, Any]]) -> str | None:
    """The attribute that holds the class; None where regions have none."""
    used: Counter[str] = Counter()
    for image in images:
        for region in _regions(image):
            used.update(key for key, value in _attributes(region).items() if isinstance(value, str) and value)
    if request.attribute is not None:
        if request.attribute not in used:
            raise UserError(f"no region has the attribute '{request.attribute}'; there are {', '.join(used) or 'none'}")
        return request.attribute
    if not used:
        return None
    lower = {key.lower(): key for key in used}
    chosen = next((lower[name] for name in USUAL if name in lower), used.most_common(1)[0][0])
    others = ", ".join(sorted(used.keys() - {chosen}))
    found.notes[
        f"regions: their class is the attribute '{chosen}'" + (f", not {others} (--attribute)" if others else "")
    ] = used[chosen]
    return chosen


def _add(found: Found, picture: Picture, region: Any, where: str, attribute: str | None, request: Request) -> None:
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict) or "name" not in shape:
        raise UserError(f"{where} has no shape_attributes with a name; is it of another format?")
    if shape["name"] in NO_AREA:
        found.notes[f"regions of the kind {shape['name']} left out: they enclose nothing"] += 1
        return
    name = request.classes[0] if request.classes else UNNAMED
    if attribute is not None:
        name = str(_attributes(region).get(attribute) or "")
        if not name:
            found.notes[f"regions without the attribute '{attribute}' left out"] += 1
            return
    outline = _outline(shape, where)
    if shape["name"] == "rect":
        found.add_box(picture, name, outline, request)
    else:
        found.add(picture, name, [outline])


def _outline(shape: dict[str, Any], where: str) -> list[float]:
    """The flat polygon of a region."""

    def value(key: str) -> float:
        return number(shape.get(key), where, key)

    kind = shape["name"]
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise UserError(f"{where} is a polygon without as many all_points_x as all_points_y")
        return [number(v, where, "a point") for point in zip(xs, ys, strict=True) for v in point]
    if kind == "rect":
        return rectangle(value("x"), value("y"), value("width"), value("height"))
    if kind == "circle":
        return ellipse(value("cx"), value("cy"), value("r"), value("r"))
    if kind == "ellipse":
        turn = number(shape.get("theta", 0), where, "theta") * 57.29577951308232  # VIA has radians
        return ellipse(value("cx"), value("cy"), value("rx"), value("ry"), turn)
    raise UserError(f"{where} is of the kind '{str(kind)[:40]}', which is not known here")
