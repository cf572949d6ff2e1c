"""What annotation tools write in a way of their own and can mean one thing only, put as COCO has it.

What is left is checked by `queryinst.data.validation`; the doctor tells of what was put right.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

CROWD = ("regions", "objects")  # what `iscrowd: 1` means: COCO's regions of uncounted objects, or objects like others
Entry = dict[str, Any]
Note = tuple[str, str]  # the kind, a key of queryinst.data.faults.RULES, and what it concerns
NUMBERS = {int, float}
NESTED = {list}


def repair(content: Any, crowd: str = CROWD[0]) -> list[Note]:
    """Put a parsed COCO file right, in place, whatever JSON it holds.

    Args:
        content: the file.
        crowd: one of `CROWD`.

    Returns:
        What was put right, once an entry and kind.
    """
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), list) for name in ("images", "annotations", "categories")
    ):
        return []
    notes: list[Note] = []
    for name, ids, numbers in (
        ("images", ("id",), ("width", "height")),
        ("categories", ("id",), ()),
        ("annotations", ("id", "image_id", "category_id"), ("iscrowd",)),
    ):
        entries = [entry for entry in content[name] if isinstance(entry, dict)]
        notes += [("number-as-text", _where(name, entry)) for entry in entries if _whole(entry, (*ids, *numbers))]
    empty = [annotation for annotation in content["annotations"] if _is_empty(annotation)]
    if empty:
        notes += [("annotation-empty", _where("annotations", annotation)) for annotation in empty]
        content["annotations"] = [annotation for annotation in content["annotations"] if not _is_empty(annotation)]
    for annotation in content["annotations"]:
        if isinstance(annotation, dict):
            notes += [(code, _where("annotations", annotation)) for code in _of_annotation(annotation, crowd)]
    return notes + list(_namesakes(content))


def _is_empty(annotation: Any) -> bool:
    """Whether an annotation has neither a mask nor a box: none, or one of infinite sides, as of no point at all."""
    if not isinstance(annotation, dict) or annotation.get("segmentation") or "bbox" not in annotation:
        return False
    box = annotation["bbox"]
    return not box or (isinstance(box, list) and not any(isinstance(v, int | float) and math.isfinite(v) for v in box))


def _where(name: str, entry: Entry) -> str:
    return f"{'category' if name == 'categories' else name[:-1]} {str(entry.get('id'))[:30]}"


def _whole(entry: Entry, fields: tuple[str, ...]) -> bool:
    """Make whole numbers of text such as "12" and of 12.0; whether there were any."""
    changed = False
    for field in fields:
        value = entry.get(field)
        if type(value) is int or value is None:
            continue
        number = _number(value)
        if number is not None and float(number).is_integer() and abs(number) < 2**53:
            entry[field], changed = int(number), True
    return changed


def _number(value: Any) -> float | int | None:
    """A number, or text that is one; otherwise None."""
    if type(value) in NUMBERS:
        return value if math.isfinite(value) else None
    if not isinstance(value, str) or not re.fullmatch(r"\s*[-+]?\d{1,15}(\.\d*)?([eE][-+]?\d{1,2})?\s*", value, re.A):
        return None
    return float(value) if re.search("[.eE]", value) else int(value)


def _numbers(values: list[Any]) -> list[Any] | None:
    """A list of numbers or of text that is numbers, as numbers; None where something else is among them."""
    if set(map(type, values)) <= NUMBERS:
        return values
    found = [_number(value) for value in values]
    return None if None in found else found


def _of_annotation(annotation: Entry, crowd: str) -> Iterator[str]:
    """Put an annotation right; the kinds of what was not."""
    for field in ("iscrowd", "area", "ignore"):
        if field in annotation and annotation[field] is None:
            del annotation[field]  # as where nothing was written
    if isinstance(annotation.get("area"), str) and (area := _number(annotation["area"])) is not None:
        annotation["area"] = area
        yield "number-as-text"
    box = annotation.get("bbox")
    if isinstance(box, list) and str in set(map(type, box)) and (numbers := _numbers(box)):
        annotation["bbox"] = numbers
        yield "number-as-text"
    if crowd == "objects" and annotation.get("iscrowd") == 1:
        annotation["iscrowd"] = 0
    given = annotation.get("segmentation")
    if given is None and "bbox" in annotation:
        annotation["segmentation"] = []
    if isinstance(given, list) and given:
        code, annotation["segmentation"] = _segmentation(given)
        if code:
            yield code
    elif isinstance(given, dict) and isinstance(given.get("size"), list) and (size := _numbers(given["size"])):
        annotation["segmentation"] = {**given, "size": size} if size is not given["size"] else given


def _segmentation(given: list[Any]) -> tuple[str, Any]:
    """A list as COCO's polygons or RLE, with the kind of what was otherwise; as it is where it may mean several things.

    `[x, y, x, y, ...]`, `[[x, y], [x, y], ...]`, `[[[x, y], ...]]` and `[RLE]` lack brackets or have too many.
    """
    if len(given) == 1 and isinstance(given[0], dict):
        return "mask-brackets", given[0]
    if not any(isinstance(part, list) for part in given):
        flat = _numbers(given)
        return ("mask-brackets", [flat]) if flat and len(flat) >= 6 and len(flat) % 2 == 0 else ("", given)
    if len(given) >= 3 and (points := _points(given)):
        return "mask-brackets", [points]
    code, parts = "", []
    for part in given:
        if not isinstance(part, list):
            return "", given
        kinds = set(map(type, part))
        if kinds <= NUMBERS:
            parts.append(part)
        elif kinds == NESTED:
            inner = _points(part) or (part[0] if len(part) == 1 else None)
            code, flat = "mask-brackets", _numbers(inner) if inner else None
            if flat is None:
                return "", given
            parts.append(flat)
        elif (numbers := _numbers(part)) is None:
            return "", given
        else:
            code = code or "number-as-text"
            parts.append(numbers)
    whole = [part for part in parts if len(part) >= 6]
    if whole and len(whole) < len(parts) and all(len(part) in (0, 2, 4) for part in parts if len(part) < 6):
        return "mask-part", whole  # a point or a line beside polygons covers no pixel
    return code, parts if code else given


def _points(pairs: list[Any]) -> list[Any] | None:
    """`[[x, y], ...]` as `[x, y, ...]`; None where it is something else."""
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        return None
    return _numbers(list(chain.from_iterable(pairs)))


def _namesakes(content: dict[str, Any]) -> Iterator[Note]:
    """Leave out a category that has no annotations, is the parent of others, and has the name of one of them.

    Roboflow adds such a root, called as the project, beside a class that may be called so too.
    """
    entries = [entry for entry in content["categories"] if isinstance(entry, dict)]
    names = Counter(str(entry.get("name")) for entry in entries)
    if len(names) == len(entries):
        return
    used = {str(a.get("category_id")) for a in content["annotations"] if isinstance(a, dict)}
    for entry in entries:
        key, name = str(entry.get("id")), str(entry.get("name"))
        if names[name] > 1 and key not in used and is_parent(entry, entries):
            names[name] -= 1
            content["categories"] = [other for other in content["categories"] if other is not entry]
            yield "category-root", f"category {key[:30]} ({name[:60]})"


def is_parent(category: Entry, categories: list[Entry]) -> bool:
    """Whether a category only groups others: theirs is its name, and it has no group itself."""
    name, group = category.get("name"), category.get("supercategory")
    of_others = any(other is not category and other.get("supercategory") == name for other in categories)
    return of_others and group in ("none", None, "")
