"""What the doctor finds in an annotation file that can be read: what would teach the wrong thing, or nothing."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from queryinst.data import validation
from queryinst.data.coco import is_learnable
from queryinst.data.faults import Findings, plain
from queryinst.data.notes import MANY_CROWDS
from queryinst.data.repair import is_parent
from queryinst.ops import masks as mask_ops
from queryinst.structures import COUNTED

NEAR = 2  # pixels that a box or polygon may be off by: rounding, and half a pixel either side
CLEARLY = 4  # pixels that are no rounding any more

Entry = dict[str, Any]
Extent = tuple[float, float, float, float]  # x1, y1, x2, y2


@dataclass(frozen=True)
class Listed:
    """An image as its file lists it; without a size where that is unusable."""

    where: str
    path: Path
    height: int | None
    width: int | None


@dataclass
class Survey:
    """What is in one split, for the report, the picture and the comparison of the splits."""

    images: list[Listed] = field(default_factory=list)
    videos: list[Listed] | None = None  # the first frame of each, where the data is video
    annotations: int = 0
    crowds: int = 0  # regions of uncounted objects
    categories: dict[int, str] = field(default_factory=dict)  # names by id
    used: Counter[int] = field(default_factory=Counter)  # objects by category id
    sizes: list[tuple[int, int]] = field(default_factory=list)  # height, width
    objects: list[int] = field(default_factory=list)  # of each image
    aspects: list[float] = field(default_factory=list)  # width over height, of each object
    areas: list[float] = field(default_factory=list)  # box over image, of each object


def examine(content: Any, folder: Path, split: str, findings: Findings, min_side: int, keep_empty: bool) -> Survey:
    """Collect the faults of an annotation file, whatever JSON it holds.

    Args:
        content: the parsed file.
        folder: of its images; they are not opened here.
        split: "train" or "val".
        findings: where faults are added.
        min_side, keep_empty: which images training takes, see DataConfig.
    """
    survey, broken = Survey(), set()
    for fault in validation.faults(content):
        findings.add(split, fault.code, fault.where)
        if fault.code in ("not-coco", "other-format"):
            return survey
        broken.add(id(fault.entry))
    entries = {name: [e for e in content[name] if isinstance(e, dict)] for name in validation.FIELDS}
    sound = {name: [e for e in found if id(e) not in broken] for name, found in entries.items()}
    survey.annotations = len(entries["annotations"])
    survey.categories = {category["id"]: plain(str(category["name"])) for category in sound["categories"]}
    survey.images = list(_listed(entries["images"], broken, folder))
    of_image: dict[int, list[Entry]] = {image["id"]: [] for image in sound["images"]}
    for annotation in sound["annotations"]:
        if annotation["image_id"] in of_image:  # not of an image that is broken itself
            of_image[annotation["image_id"]].append(annotation)
    found = [
        *category_faults(sound["categories"], entries["annotations"]),
        *id_faults(entries["annotations"]),
        *_file_faults(entries["images"]),
    ]
    for image in sound["images"]:
        found += _image_faults(image, of_image[image["id"]], survey, split, 0 if split == "val" else min_side)
    if split == "train" and not keep_empty:
        pairs = zip(sound["images"], survey.objects, strict=True)
        found += [("image-without-objects", f"image {image['id']}") for image, objects in pairs if not objects]
    parents = {category["id"] for category in sound["categories"] if is_parent(category, sound["categories"])}
    found += [
        ("category-parent" if key in parents else "category-unused", f"category {key} ({name})")
        for key, name in survey.categories.items()
        if not survey.used[key]
    ]
    if survey.crowds > MANY_CROWDS * survey.annotations:
        found.append(("crowd-many", f"{survey.crowds} of {survey.annotations} annotations"))
    if not survey.used:
        found.append(("no-objects", "the file"))
    for code, where in found:
        findings.add(split, code, where)
    return survey


def _listed(images: list[Entry], broken: set[int], folder: Path) -> Iterator[Listed]:
    for image in images:
        name = image.get("file_name")
        if isinstance(name, str) and name:
            where = f"image {str(image.get('id'))[:30]} ({name[:100]})"
            whole = id(image) not in broken
            yield Listed(where, folder / name, image["height"] if whole else None, image["width"] if whole else None)


def category_faults(categories: list[Entry], annotations: list[Entry]) -> Iterator[tuple[str, str]]:
    """Kind and place of what is wrong with category ids and names."""
    known = {category["id"] for category in categories}
    named: set[int] = {a["category_id"] for a in annotations if validation.whole_number(a.get("category_id"))}
    if known and named - known:
        for shift, start in ((1, 0), (-1, 1)):
            if all(key + shift in known for key in named):
                yield "labels-shifted", f"annotations seem to count from {start}, categories from {1 - start}"
    for category in categories:
        if not isinstance(category["name"], str) or not category["name"].strip():
            yield "category-name", f"category {category['id']}"


def id_faults(annotations: list[Entry]) -> Iterator[tuple[str, str]]:
    """Kind and place of what is wrong with annotation ids."""
    seen: set[int] = set()
    for annotation in annotations:
        key = annotation.get("id")
        if not isinstance(key, int):
            continue
        if key in seen:
            yield "duplicate-annotation-id", f"annotation {key}"
        elif key == 0:
            yield "annotation-id-0", "annotation 0"
        seen.add(key)


def _file_faults(images: list[Entry]) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for image in images:
        name = image.get("file_name")
        if not isinstance(name, str) or not name:
            continue
        where = f"image {str(image.get('id'))[:30]} ({name[:100]})"
        if is_path(name):
            yield "file-name-path", where
        if name in seen:
            yield "duplicate-file", where
        seen.add(name)


def is_path(name: str) -> bool:
    """Whether a file name is absolute or has backslashes."""
    return "\\" in name or name.startswith("/") or bool(re.match("[A-Za-z]:", name))


def _image_faults(
    image: Entry, annotations: list[Entry], survey: Survey, split: str, min_side: int
) -> Iterator[tuple[str, str]]:
    """The faults of an image's objects, which are counted into the survey at the same time."""
    height, width = image["height"], image["width"]
    if min(height, width) < min_side:
        yield "image-small", f"image {image['id']} ({width}x{height})"
    objects, seen = Counter[int](), set()
    for annotation in annotations:
        where = f"annotation {str(annotation['id'])[:30]}"
        for code in object_faults(annotation, height, width):
            yield code, where
        box = annotation["bbox"]
        key = annotation["category_id"], *box
        if key in seen:
            yield "duplicate-object", where
        seen.add(key)
        survey.crowds += annotation.get("iscrowd") == 1
        # Training learns less than evaluation looks for: see CocoFile.learnable and COCO's crowd regions.
        counts = is_learnable(annotation, height, width) if split == "train" else not annotation.get("iscrowd")
        if counts:
            objects[annotation["category_id"]] += 1
            survey.used[annotation["category_id"]] += 1
            if min(box[2:]) > 0:
                survey.aspects.append(box[2] / box[3])
                survey.areas.append(box[2] * box[3] / (height * width))
    survey.sizes.append((height, width))
    survey.objects.append(objects.total())
    if max(objects.values(), default=0) > COUNTED:
        yield "many-objects", f"image {image['id']} ({max(objects.values())})"


def object_faults(annotation: Entry, height: int, width: int) -> Iterator[str]:
    """The kinds of what is wrong with a box, mask and area in an image of this size."""
    x, y, w, h = annotation["bbox"]
    segmentation, area = annotation["segmentation"], annotation.get("area", 1)
    if not segmentation:
        yield "mask-empty"
    extent = _extent(segmentation) if segmentation else (x, y, x + w, y + h)
    flat = bool(segmentation) and (extent[0] >= extent[2] or extent[1] >= extent[3])
    if flat:
        yield "mask-flat"
    if annotation.get("iscrowd") and isinstance(segmentation, list):
        yield "crowd-without-rle"
    if max(-extent[0], -extent[1], extent[2] - width, extent[3] - height) > NEAR:
        yield "polygon-outside"
    if not area > 0:  # nor where it is no number at all
        yield "area-not-positive"
    if not flat and _off((x, y, w, h), extent) <= NEAR and _off((x, y, x + w, y + h), extent) > CLEARLY:
        yield "box-xyxy"
        return  # the rest would blame the box again
    if x >= width or y >= height or x < 0 >= x + w or y < 0 >= y + h:
        yield "box-outside"
        return
    if max(-x, -y, x + w - width, y + h - height) > NEAR:
        yield "box-overhangs"
    if min(w, h) < 1:
        yield "box-degenerate"
    elif area > 1.05 * (w + NEAR) * (h + NEAR):
        yield "area-above-box"
    if not flat and _overlap((x, y, x + w, y + h), extent) < 0.5:
        yield "mask-far-from-box"


def _extent(segmentation: Any) -> Extent:
    """The box around a mask."""
    if isinstance(segmentation, dict):
        return mask_ops.bounds(segmentation)
    xs = [value for polygon in segmentation for value in polygon[::2]]
    ys = [value for polygon in segmentation for value in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _off(box: Extent, extent: Extent) -> float:
    """Pixels by which two boxes differ, at the side where they differ most."""
    return max(abs(a - b) for a, b in zip(box, extent, strict=True))


def _overlap(box: Extent, extent: Extent) -> float:
    """Intersection over union of two boxes, each a pixel larger all around, so that tiny ones may be a pixel off."""
    wide = min(box[2], extent[2]) - max(box[0], extent[0]) + 2
    high = min(box[3], extent[3]) - max(box[1], extent[1]) + 2
    if wide <= 0 or high <= 0:
        return 0.0
    both = (box[2] - box[0] + 2) * (box[3] - box[1] + 2) + (extent[2] - extent[0] + 2) * (extent[3] - extent[1] + 2)
    return wide * high / (both - wide * high)
