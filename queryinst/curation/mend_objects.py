"""Mending boxes, masks and areas of single annotations. The mask is believed, and box and area follow from it."""

import math
from itertools import pairwise
from typing import Any

from queryinst.curation.changes import Changes, named
from queryinst.curation.read import Entry
from queryinst.data import validation
from queryinst.data.doctor_annotations import NEAR, object_faults
from queryinst.ops import masks as mask_ops

Polygon = list[float]
OF_THE_BOX = ("box-values", "box-negative", "box-xyxy", "box-outside", "box-overhangs", "mask-far-from-box")
OF_THE_MASK = "mask-changed"  # no fault: what follows from a mask that was mended
OF_THE_AREA = ("area-value", "area-not-positive", "area-above-box")


def mend_object(annotation: Entry, image: Entry, boxes: bool, changes: Changes) -> Entry | None:
    """The annotation as it should be, or None where nothing can be made of it.

    Args:
        annotation: of an image and a category that are there.
        image: with a usable size.
        boxes: whether an object without a mask gets the rectangle of its box.
        changes: what is done is added here.
    """
    height, width, where = image["height"], image["width"], named("annotation", annotation)
    made = dict(annotation)
    if made.get("iscrowd", 0) not in (0, 1):
        made["iscrowd"] = 1 if str(made["iscrowd"]).strip().lower() in ("1", "1.0", "true") else 0
        changes.add("iscrowd-value", where, f"has iscrowd {made['iscrowd']}")
    _mend_numbers(made, where, changes)
    before = len(changes.all)
    mask, code = _mask(made.get("segmentation"), height, width, where, changes)
    if mask is None and boxes and _is_box(made.get("bbox")) and not isinstance(made.get("segmentation"), dict):
        x, y, w, h = made["bbox"]
        inside = _clipped([x, y, x + w, y, x + w, y + h, x, y + h], height, width)
        mask = [inside] if inside else None
        if mask:
            changes.add(code, where, "has no mask, and gets the rectangle of its box")
    if mask is None:
        lost = changes.all[-1].code if len(changes.all) > before else code  # why the last part of it went
        changes.add(lost, where, "removed: it has no mask")
        return None
    if made.get("iscrowd") and isinstance(mask, list):
        mask = _as_text(mask_ops.compressed(mask, height, width))
        changes.add("crowd-without-rle", where, "is an RLE")
    made["segmentation"] = mask
    if _mend_box_and_area(made, height, width, where, len(changes.all) > before, changes):
        return made
    changes.add("mask-flat", where, "removed: it has no pixel inside the image")
    return None


def _mend_box_and_area(made: Entry, height: int, width: int, where: str, mask_changed: bool, changes: Changes) -> bool:
    """Box and area from the mask, where they are wrong or the mask is another now; False where it has no pixel."""
    box, area = _box(made["segmentation"], height, width), _area(made["segmentation"], height, width)
    if min(box[2:]) <= 0 or area <= 0:
        return False
    for key, value, codes in (("bbox", box, OF_THE_BOX), ("area", area, OF_THE_AREA)):  # the area is held to the box
        found = _found(made, box, area, height, width)
        code = next((code for code in codes if code in found), None)
        if key == "bbox" and key not in made:
            code = "missing-field"
        if code is None and mask_changed and made.get(key, value) != value:
            code = OF_THE_MASK
        if code:
            changes.add(code, where, f"has {key} {value}")
            made[key] = value
    return True


def _found(made: Entry, box: list[float], area: float, height: int, width: int) -> set[str]:
    """The kinds of fault of an annotation; where a box or area cannot be read, the doctor looks at the right one."""
    unusable = {code for code, _ in validation.object_faults({"bbox": None, **made}, None)}
    readable = dict(made)
    if unusable & {"box-values", "box-negative"}:
        readable["bbox"] = box
    if "area-value" in unusable:
        readable["area"] = area
    return unusable | set(object_faults(readable, height, width))


def _mend_numbers(made: Entry, where: str, changes: Changes) -> None:
    """Numbers that are text."""
    for key, code in (("bbox", "box-values"), ("area", "area-value")):
        value = made.get(key)
        many = value if isinstance(value, list) else [value]
        if any(isinstance(number, str) for number in many):
            numbers = [_number(number) for number in many]
            if all(number is not None for number in numbers):
                made[key] = numbers if isinstance(value, list) else numbers[0]
                changes.add(code, where, f"has {key} as numbers, not text")


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) <= validation.LARGEST else None


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(_number(v) is not None for v in box) and min(box[2:]) > 0


def _mask(
    given: Any, height: int, width: int, where: str, changes: Changes
) -> tuple[list[Polygon] | mask_ops.Rle | None, str]:
    """The usable part of a mask, or None and the kind of fault."""
    if isinstance(given, list):
        polygons = _polygons(given, height, width, where, changes)
        return (polygons, "") if polygons else (None, "mask-empty" if not given else "polygon-points")
    image = {"height": height, "width": width}
    fault = [code for code, _ in validation.object_faults({"bbox": None, "segmentation": given}, image)][1:]
    return (None, fault[0]) if fault else (given, "")


def _polygons(given: list[Any], height: int, width: int, where: str, changes: Changes) -> list[Polygon]:
    """Polygons with three points or more, as flat lists of finite numbers, inside the image but for rounding."""
    shaped = _shaped(given)
    if shaped != given:
        changes.add("polygon-brackets", where, "has its points as COCO has them: a list x, y, x, y, ... a polygon")
    found = []
    for polygon in shaped:
        numbers = [_number(value) for value in polygon] if isinstance(polygon, list) else []
        flat = [number for number in numbers if number is not None]
        if len(flat) < 6 or len(flat) % 2 or len(flat) < len(numbers):
            code = "polygon-values" if len(flat) < len(numbers) else "polygon-points"
            changes.add(code, where, f"loses a polygon of {len(flat)} usable numbers")
            continue
        if any(isinstance(value, str) for value in polygon):
            changes.add("polygon-values", where, "has numbers, not text")
            polygon = flat
        if _leaves(flat, height, width):
            polygon = _clipped(flat, height, width)
            did = "is cut off at the edge of its image" if polygon else "loses a polygon outside its image"
            changes.add("polygon-outside", where, did)
        if polygon:
            found.append(polygon)
    return found


def _shaped(given: list[Any]) -> list[Any]:
    """Polygons that were written as one flat list, or as lists of points, as lists of flat lists."""
    if given and all(isinstance(value, int | float) for value in given):
        return [given]
    if given and all(_is_point(point) for point in given):
        return [[value for point in given for value in point]]
    return [
        [value for point in polygon for value in point]
        if isinstance(polygon, list) and polygon and all(_is_point(point) for point in polygon)
        else polygon
        for polygon in given
    ]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value)


def _leaves(flat: Polygon, height: int, width: int) -> bool:
    """Whether a polygon leaves its image by more than the doctor minds."""
    return max(-min(flat[::2]), -min(flat[1::2]), max(flat[::2]) - width, max(flat[1::2]) - height) > NEAR


def _clipped(flat: Polygon, height: int, width: int) -> Polygon:
    """The polygon inside the image (Sutherland and Hodgman), or an empty list."""
    points = list(zip(flat[::2], flat[1::2], strict=True))
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        kept: list[tuple[float, float]] = []
        for one, other in pairwise([*points, *points[:1]]):
            inside = [sign * (point[axis] - limit) >= 0 for point in (one, other)]
            if inside[0]:
                kept.append(one)
            if inside[0] != inside[1]:
                part = (limit - one[axis]) / (other[axis] - one[axis])
                cut = [a + part * (b - a) for a, b in zip(one, other, strict=True)]
                cut[axis] = limit
                kept.append((cut[0], cut[1]))
        points = kept
    flat = [round(value, 3) for point in points for value in point]
    wide = len(flat) >= 6 and max(flat[::2]) > min(flat[::2]) and max(flat[1::2]) > min(flat[1::2])
    return flat if wide else []


def _box(mask: list[Polygon] | mask_ops.Rle, height: int, width: int) -> list[float]:
    """x, y, width, height around a mask, inside the image."""
    if isinstance(mask, dict):
        x1, y1, x2, y2 = mask_ops.bounds(mask)
    else:
        xs, ys = [v for polygon in mask for v in polygon[::2]], [v for polygon in mask for v in polygon[1::2]]
        x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
    return [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]


def _area(mask: list[Polygon] | mask_ops.Rle, height: int, width: int) -> float:
    """Pixels of a mask; of one that is between all pixels' centres, what its polygons enclose."""
    pixels = mask_ops.area(mask_ops.compressed(mask, height, width))
    if pixels or isinstance(mask, dict):
        return pixels
    return round(sum(map(_enclosed, mask)), 3)


def _enclosed(flat: Polygon) -> float:
    points = list(zip(flat[::2], flat[1::2], strict=True))
    return abs(math.fsum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise([*points, points[0]]))) / 2


def _as_text(code: mask_ops.Rle) -> mask_ops.Rle:
    counts = code["counts"]
    return {"size": list(code["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}
