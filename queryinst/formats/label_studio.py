"""Label Studio's own JSON: a list of tasks with `data` and `annotations`; results are polygons, rectangles and ellipses
in percent of the image, or brush strokes as packed run lengths."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from queryinst.errors import UserError
from queryinst.formats.files import Gallery, folder_of, json_files, names_in, read_json
from queryinst.formats.found import (
    Found,
    Part,
    Picture,
    Request,
    coded,
    ellipse,
    number,
    points_of,
    progress,
    rectangle,
)

NAME, WHAT = "label_studio", "Label Studio (JSON, not JSON-MIN)"
LABELS = ("polygonlabels", "rectanglelabels", "brushlabels", "ellipselabels", "labels")


def is_one(content: Any) -> bool:
    """Whether JSON content is of this format."""
    tasks = content if isinstance(content, list) else []
    return bool(tasks) and all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) and isinstance(task.get("annotations"), list)
        for task in tasks
    )


def read(request: Request) -> Found:
    """Every task with its annotation. Raises UserError."""
    found = Found()
    gallery = Gallery(request.images or folder_of(request.source), found)
    for path in json_files(request.source):
        content = read_json(path)
        if not is_one(content):
            found.notes["JSON files that are not Label Studio's passed over"] += 1
            continue
        for task in progress(content, f"reading {path.name}"):
            _add_task(found, gallery, task, f"{path}, task {task.get('id')},", request)
    return found


def _add_task(found: Found, gallery: Gallery, task: dict[str, Any], where: str, request: Request) -> None:
    results = _results(found, task)
    size = next((_size(result) for result in results if _size(result)), None)
    picture = gallery.picture(_names(task, results), size)
    if picture is None:
        return
    labels = {str(result.get("id")): label for result in results if (label := _label(result))}
    seen = set()
    for place, result in enumerate(results):
        value, key = result.get("value"), str(result.get("id") or place)
        # Where shapes and labels are two tags, one object is two results of one id, with the shape in both.
        if not isinstance(value, dict) or key in seen or not _has_shape(value):
            continue
        seen.add(key)
        label = _label(result) or labels.get(key)
        if label is None:
            found.notes["shapes without a label left out"] += 1
        elif result.get("image_rotation"):
            found.notes["objects on an image that was turned while it was annotated left out"] += 1
        elif "width" in value:
            found.add_box(picture, label, _outline(value, picture, where), request)
        else:
            found.add(picture, label, [_part(value, picture, where)])
    found.pictures.append(picture)


def _results(found: Found, task: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the one annotation that counts: the ground truth, or else the first that was not cancelled."""
    made = [made for made in task["annotations"] if isinstance(made, dict) and not made.get("was_cancelled")]
    if len(made) > 1:
        found.notes["tasks with several annotations: the ground truth is taken, or else the first"] += 1
    made.sort(key=lambda annotation: not annotation.get("ground_truth"))
    results = made[0].get("result") if made else None
    return [result for result in results or [] if isinstance(result, dict)]


def _size(result: dict[str, Any]) -> tuple[int, int] | None:
    height, width = result.get("original_height"), result.get("original_width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and height and width else None


def _names(task: dict[str, Any], results: list[dict[str, Any]]) -> list[str]:
    """What the image of a task may be called, most likely first."""
    keys = [str(result.get("to_name")) for result in results]
    data = task["data"]
    told = [data[key] for key in (*keys, "image", *data) if isinstance(data.get(key), str)]
    uploaded = task.get("file_upload")
    return [name for address in [*([uploaded] if uploaded else []), *told] for name in names_in(str(address))]


def _label(result: dict[str, Any]) -> str | None:
    value = result.get("value")
    given = next((value[key] for key in LABELS if value.get(key)), None) if isinstance(value, dict) else None
    return str(given[0]) if isinstance(given, list) and given else None


def _has_shape(value: dict[str, Any]) -> bool:
    return "points" in value or "rle" in value or "radiusX" in value or {"x", "y", "width", "height"} <= value.keys()


def _part(value: dict[str, Any], picture: Picture, where: str) -> Part:
    if "rle" in value:
        return coded(unpack(value["rle"], picture.height, picture.width, where))
    return _outline(value, picture, where)


def _outline(value: dict[str, Any], picture: Picture, where: str) -> list[float]:
    """The flat polygon of a shape in percent."""

    def pixels(key: str, side: int) -> float:
        return number(value.get(key), where, key) * side / 100

    width, height, turn = picture.width, picture.height, number(value.get("rotation") or 0, where, "rotation")
    if "points" in value:
        points = points_of(value["points"], where)
        return [percent * side / 100 for point in points for percent, side in zip(point, (width, height), strict=True)]
    if "radiusX" in value:
        radii = pixels("radiusX", width), pixels("radiusY", height)
        return ellipse(pixels("x", width), pixels("y", height), *radii, turn)
    left, top = pixels("x", width), pixels("y", height)
    return rectangle(left, top, pixels("width", width), pixels("height", height), turn)


def unpack(packed: Any, height: int, width: int, where: str) -> NDArray[np.uint8]:
    """The bitmap (height, width), not 0 where the brush was, of a list of bytes.

    They are a stream of bits: how many values (32 bits), bits of a value less 1 (5), four lengths of a count less 1 (4
    each), and then blocks: a bit for a repeated value, which of the four lengths (2), the count less 1, and one value,
    or as many as were counted. The values are those of an RGBA image, row by row; the last of four says how opaque.

    Raises UserError where the bytes are not of an image of this size.
    """
    wanted = f"wanted {height * width * 4} values in packed bytes, of an image of {width}x{height}"
    if not isinstance(packed, list):  # of a number, `bytes` would make as many
        raise UserError(f"{where} has a brush that is no list of bytes; {wanted}")
    try:
        bits = "".join(f"{byte:08b}" for byte in bytes(packed))
        total = int(bits[:32], 2)
        if total != height * width * 4:
            raise UserError(f"{where} has a brush of {total} values; {wanted}")
        return _values(bits, total).reshape(height, width, 4)[..., 3]
    except (ValueError, TypeError) as error:
        raise UserError(f"{where} has a brush that cannot be unpacked ({error}); {wanted}") from None


def _values(bits: str, total: int) -> NDArray[np.uint8]:
    word = int(bits[32:37], 2) + 1
    lengths = [int(bits[37 + 4 * place : 41 + 4 * place], 2) + 1 for place in range(4)]
    values, at, done = np.zeros(total, np.uint8), 53, 0
    while done < total:
        length = lengths[int(bits[at + 1 : at + 3], 2)]
        repeated, end = bits[at] == "1", at + 3 + length
        count = int(bits[at + 3 : end], 2) + 1
        times = 1 if repeated else count
        read = [int(bits[end + word * place : end + word * (place + 1)], 2) for place in range(times)]
        values[done : done + count] = read[0] if repeated else read[: total - done]
        at, done = end + word * times, done + count
    return values
