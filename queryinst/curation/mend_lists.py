"""Mending ids, names and references of an annotation file: what does not need a look at boxes and masks."""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from queryinst.curation.changes import Changes, named
from queryinst.curation.read import Content, Entry
from queryinst.data import validation
from queryinst.data.doctor_annotations import category_faults, is_path

REFERENCES = {"images": "image_id", "categories": "category_id"}  # what annotations call an entry of a list
ONE = {"images": "image", "categories": "category", "annotations": "annotation"}  # of a list


def whole(value: Any) -> int | None:
    """A number that a value of a file stands for, such as "12" or 12.0; None where there is none."""
    if validation.whole_number(value):
        return int(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,18}\s*", value):
        return int(value)
    return None


def mend_ids(content: Content, changes: Changes) -> None:
    """Ids that are no whole numbers become numbers, also where annotations name them; entries that lack one get one."""
    for name, reference in REFERENCES.items():
        entries = content[name]
        taken = {number for entry in entries if (number := whole(entry.get("id"))) is not None}
        new: dict[str, int] = {}
        for entry in entries:
            old = entry.get("id")
            if validation.whole_number(old) or old is None:
                continue
            number = whole(old)
            if number is None:
                number = new.setdefault(repr(old), max(taken, default=0) + 1)
                taken.add(number)
            changes.add("id-kind", f"{name} {str(old)[:30]}", f"is number {number}")
            entry["id"] = number
        for annotation in content["annotations"]:
            old = annotation.get(reference)
            if not validation.whole_number(old) and old is not None:
                annotation[reference] = new.get(repr(old), whole(old))
    _drop(content, "images", lambda e: e.get("id") is None, "missing-field", changes, "without an id removed")
    _drop(content, "categories", lambda e: e.get("id") is None, "missing-field", changes, "without an id removed")


def number_annotations(content: Content, changes: Changes) -> None:
    """Annotations without an id, with one that another has, or with 0, get the next one that is free."""
    seen: set[int] = set()
    free = max((n for a in content["annotations"] if (n := whole(a.get("id"))) is not None), default=0) + 1
    for annotation in content["annotations"]:
        old = annotation.get("id")
        number = whole(old)
        if number is None or number in seen or number == 0:
            code = "missing-field" if old is None else "id-kind" if number is None else "duplicate-annotation-id"
            code = "annotation-id-0" if number == 0 else code
            changes.add(code, named("annotation", annotation), f"has the id {max(free, 1)}")
            annotation["id"] = number = max(free, 1)
            free = number + 1
        elif not validation.whole_number(old):
            changes.add("id-kind", named("annotation", annotation), f"has the id {number}")
            annotation["id"] = number
        seen.add(number)


def _drop(
    content: Content, name: str, wrong: Callable[[Entry], bool], code: str, changes: Changes, did: str = "removed"
) -> None:
    stay = []
    for entry in content[name]:
        if wrong(entry):
            changes.add(code, named(ONE[name], entry), did)
        else:
            stay.append(entry)
    content[name] = stay


def mend_categories(content: Content, changes: Changes) -> None:
    """Names that are no text or have control characters; categories of one name or twice the same; ids one beside."""
    for category in content["categories"]:
        name = category.get("name")
        text = name if isinstance(name, str) else "" if name is None else str(name)
        clean = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cs")).strip()
        clean = clean or f"class {category['id']}"
        if clean != name and (not isinstance(name, str) or clean != name.strip()):
            code = "unprintable-category-name" if isinstance(name, str) and name.strip() else "category-name"
            code = "missing-field" if name is None else code
            changes.add(code, named("category", category), f"is called '{clean}'")
            category["name"] = clean
    _once(content, "categories", "duplicate-categories-id", changes)
    _shift(content, changes)
    _join(content, "categories", lambda c: c["name"], "duplicate-category-name", "of that name", changes)


def _join(content: Content, name: str, same: Callable[[Entry], object], code: str, why: str, changes: Changes) -> None:
    """Entries of which `same` gives one value become the first of them, for their annotations too."""
    first: dict[object, int] = {}
    joined: dict[int, int] = {}
    for entry in content[name]:
        to = first.setdefault(same(entry), entry["id"])
        if to != entry["id"]:
            joined[entry["id"]] = to
            changes.add(code, named(ONE[name], entry), f"joined with {to} {why}")
    content[name] = [entry for entry in content[name] if entry["id"] not in joined]
    key = REFERENCES[name]
    for annotation in content["annotations"]:
        annotation[key] = joined.get(annotation.get(key), annotation.get(key))


def _once(content: Content, name: str, code: str, changes: Changes) -> None:
    """Of entries that are the same in all, keep the first. Those of one id that differ are left as they are."""
    seen: dict[int, Entry] = {}
    stay = []
    for entry in content[name]:
        if seen.get(entry["id"]) == entry:
            changes.add(
                code,
                named(ONE[name], entry),
                "was there twice, the same in all, and is once",
            )
        else:
            seen.setdefault(entry["id"], entry)
            stay.append(entry)
    content[name] = stay


def _shift(content: Content, changes: Changes) -> None:
    """Category ids of annotations that are all one beside those of the list. One class would be too weak a sign."""
    annotations = [a for a in content["annotations"] if validation.whole_number(a.get("category_id"))]
    known, used = {c["id"] for c in content["categories"]}, {a["category_id"] for a in annotations}
    faults = [where for code, where in category_faults(content["categories"], annotations) if code == "labels-shifted"]
    if len(faults) != 1 or len(used) < 2:
        return
    shift = next(shift for shift in (1, -1) if all(key + shift in known for key in used))
    for annotation in annotations:
        annotation["category_id"] += shift
    changes.add("labels-shifted", "all annotations", f"have their category_id changed by {shift:+d}: {faults[0]}")


def mend_images(content: Content, folder: Path | None, changes: Changes) -> None:
    """Names, sizes, images that are listed twice; what has no name or no size is removed."""
    _once(content, "images", "duplicate-images-id", changes)
    for image in content["images"]:
        _mend_name(image, folder, changes)
        _mend_size(image, folder, changes)
    _drop(
        content, "images", lambda i: not (isinstance(i.get("file_name"), str) and i["file_name"]), "file-name", changes
    )
    sized = ("height", "width")
    _drop(content, "images", lambda i: not all(validation.positive(i.get(key)) for key in sized), "size-field", changes)
    _join(content, "images", lambda i: (i["file_name"], *map(i.get, sized)), "duplicate-file", "of that file", changes)


def _mend_name(image: Entry, folder: Path | None, changes: Changes) -> None:
    name = image.get("file_name")
    if not isinstance(name, str) or not is_path(name):
        return
    path = PurePosixPath(name.replace("\\", "/"))
    new = str(path)
    if is_path(new) and folder:  # absolute: the end of it that is a file below the folder
        ends = ("/".join(path.parts[start:]) for start in range(1, len(path.parts)))
        new = next((end for end in ends if (folder / end).is_file()), new)
    if new != name and not is_path(new):
        changes.add("file-name-path", named("image", image), f"is {new}")
        image["file_name"] = new


def _mend_size(image: Entry, folder: Path | None, changes: Changes) -> None:
    for key in ("height", "width"):
        number = whole(image.get(key))
        if not validation.positive(image.get(key)) and number is not None and validation.positive(number):
            changes.add("size-field", named("image", image), f"has {key} {number}")
            image[key] = number
    if all(validation.positive(image.get(key)) for key in ("height", "width")) or folder is None:
        return
    try:
        with Image.open(folder / str(image.get("file_name"))) as picture:
            image["width"], image["height"] = picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return  # it is removed
    changes.add("size-field", named("image", image), f"is {image['width']}x{image['height']}, as the file is")


def remove_dangling(content: Content, changes: Changes) -> None:
    """Annotations of images or categories that are not there."""
    for name, code in (("images", "dangling-image"), ("categories", "unknown-category")):
        known, reference = {entry["id"] for entry in content[name]}, REFERENCES[name]
        wrong = lambda a, known=known, reference=reference: a.get(reference) not in known  # noqa: E731
        _drop(content, "annotations", wrong, code, changes)
