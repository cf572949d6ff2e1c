"""What must hold of a COCO annotation file before anything is read from it."""

import math
import unicodedata
from pathlib import Path
from typing import Any

from queryinst.errors import UserError
from queryinst.ops.masks import run_lengths

LARGEST = 1_000_000  # pixels: no side, no coordinate is beyond this
FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "segmentation"),
    "categories": ("id", "name"),
}


def check_content(content: Any, path: Path) -> None:
    """Check structure, references between the lists, boxes and masks.

    Raises:
        UserError: the first fault, with the ids of the image and annotation it concerns.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in FIELDS):
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise UserError(
            f"{path} is not a COCO annotation file: it needs the lists images, annotations and categories; "
            f"it has {found or 'nothing'}"
        )
    for name, wanted in FIELDS.items():
        for position, entry in enumerate(content[name]):
            missing = [field for field in wanted if not isinstance(entry, dict) or field not in entry]
            if missing:
                where = f"entry {position}" if not isinstance(entry, dict) or "id" not in entry else f"id {entry['id']}"
                raise UserError(
                    f"{path}: {name}, {where}, has no {' and no '.join(missing)}; COCO asks for {', '.join(wanted)}"
                )
    if not content["categories"]:
        raise UserError(f"{path} has no categories; a model needs at least one class to learn")
    if not content["images"]:
        raise UserError(f"{path} has no images")
    sizes = _unique(content["images"], "images", path)
    categories = _unique(content["categories"], "categories", path)
    names = [category["name"] for category in content["categories"]]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two categories are called '{twice}'; give each its own name")
    odd = next((name for name in names if any(unicodedata.category(c) in ("Cc", "Cs") for c in str(name))), None)
    if odd is not None:  # it could not be printed
        raise UserError(f"{path}: a category is called {odd!r}; wanted text without control characters")
    for image in content["images"]:
        if not isinstance(image["file_name"], str) or not image["file_name"]:
            raise UserError(f"{path}: image {image['id']} has file_name {image['file_name']!r}; wanted a file's name")
        if not (_positive(image["height"]) and _positive(image["width"])):
            raise UserError(
                f"{path}: image {image['id']} has width {str(image['width'])[:20]} and height "
                f"{str(image['height'])[:20]}; both must be positive whole numbers, and at most {LARGEST}"
            )
    for annotation in content["annotations"]:
        try:
            _check_annotation(annotation, sizes, categories, path)
        except (TypeError, ValueError, OverflowError, IndexError) as error:  # a value of a kind nobody thinks of
            raise UserError(f"{path}: annotation {annotation['id']} cannot be understood: {error}") from None
    if content["annotations"] and not any(annotation.get("area", 1) for annotation in content["annotations"]):
        raise UserError(f"{path}: every annotation has area 0, which means nothing to learn; correct or remove `area`")


def _unique(entries: list[Any], name: str, path: Path) -> dict[int, Any]:
    by_id: dict[int, Any] = {}
    for entry in entries:
        if type(entry["id"]) is not int or abs(entry["id"]) >= 2**63:
            raise UserError(f"{path}: {name}: an id is {entry['id']!r}; ids must be whole numbers of at most 64 bits")
        if entry["id"] in by_id:
            raise UserError(f"{path}: {name}: id {entry['id']} occurs twice")
        by_id[entry["id"]] = entry
    return by_id


def _positive(value: Any) -> bool:
    return isinstance(value, int) and 0 < value <= LARGEST


def _number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # not a NaN, and not a bool


def _check_annotation(
    annotation: dict[str, Any], images: dict[int, Any], categories: dict[int, Any], path: Path
) -> None:
    where = f"{path}: annotation {annotation['id']} of image {annotation['image_id']}"
    if annotation["image_id"] not in images:
        raise UserError(
            f"{path}: annotation {annotation['id']} names image {annotation['image_id']}, "
            f"which is not among the {len(images)} images"
        )
    if annotation["category_id"] not in categories:
        known = ", ".join(map(str, sorted(categories)[:10])) + (", ..." if len(categories) > 10 else "")
        raise UserError(
            f"{where} names category {annotation['category_id']}, which is not among the categories ({known})"
        )
    box = annotation["bbox"]
    if not (isinstance(box, list) and len(box) == 4 and all(map(_number, box))):
        raise UserError(
            f"{where} has box {str(box)[:80]}; wanted four numbers x, y, width, height, finite and at most {LARGEST}"
        )
    if box[2] < 0 or box[3] < 0:
        raise UserError(f"{where} has box {box}, whose width or height is negative; wanted x, y, width, height")
    if annotation.get("iscrowd", 0) not in (0, 1):
        raise UserError(f"{where} has iscrowd {annotation['iscrowd']!r}; wanted 0 or 1")
    if not (isinstance(annotation.get("area", 1), int | float) and math.isfinite(annotation.get("area", 1))):
        raise UserError(
            f"{where} has area {annotation['area']!r}; wanted a finite number of pixels, or no `area` at all"
        )
    fault = _mask_fault(annotation["segmentation"], images[annotation["image_id"]])
    if fault:
        raise UserError(f"{where} has {fault}")


def _mask_fault(segmentation: Any, image: dict[str, Any]) -> str | None:
    """What is wrong with a mask, in words that go on from "has", or None."""
    if isinstance(segmentation, list):
        if not segmentation:
            return "no mask (an empty segmentation); wanted polygons or RLE"
        for polygon in segmentation:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                length = len(polygon) if isinstance(polygon, list) else repr(polygon)
                return f"a polygon of {length} numbers; wanted x, y of three points or more"
            if not all(map(_number, polygon)):
                return f"a polygon with a value that is no finite number of pixels, at most {LARGEST}"
        return None
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        return f"a segmentation that is neither polygons nor RLE: {str(segmentation)[:60]}"
    if segmentation["size"] != [image["height"], image["width"]]:
        return (
            f"an RLE of size {segmentation['size']}; its image is [{image['height']}, {image['width']}] (height, width)"
        )
    counts, pixels = segmentation["counts"], image["height"] * image["width"]
    if isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts):
            return "an RLE with a run that is no whole number of pixels"
        total = sum(counts)
    elif isinstance(counts, str) and counts and counts.isascii():
        try:
            runs = run_lengths(segmentation)
        except (ValueError, IndexError):
            return "a compressed RLE that cannot be read"
        total = int(runs.sum()) if (runs >= 0).all() else -1
    else:
        return f"an RLE with counts {str(counts)[:40]!r}; wanted a list of runs, or COCO's compressed text"
    return None if total == pixels else f"an RLE whose runs do not make up the {pixels} pixels of its image"
