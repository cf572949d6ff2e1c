"""What must hold of a COCO annotation file before anything is read from it.

Training stops at the first fault; the doctor counts them all.
"""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from queryinst.data.formats import format_of
from queryinst.errors import UserError
from queryinst.ops.masks import run_lengths

LARGEST = 1_000_000  # pixels: no side, no coordinate is beyond this
TINY = 8  # pixels: in an image larger than this, coordinates between 0 and 1 are no pixels
FIELDS = {
    "categories": ("id", "name"),
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "segmentation"),
}


class Fault(NamedTuple):
    """One thing that is wrong."""

    code: str  # the kind, a key of queryinst.data.faults.RULES
    where: str  # what it concerns, such as "image 5"
    sentence: str  # goes on from the file's name
    entry: Any = None  # the entry of the file, where it is one


def check_content(content: Any, path: Path) -> None:
    """Check structure, references between the lists, boxes and masks.

    Raises:
        UserError: the first fault, with the ids of the image and annotation it concerns.
    """
    fault = next(faults(content), None)
    if fault:
        raise UserError(f"{path}{fault.sentence}")


def faults(content: Any) -> Iterator[Fault]:
    """All that makes a file unusable, whatever JSON it holds. An entry with a fault may have more of them."""
    own = format_of(content)
    if own:
        what_next = "`python -m queryinst.dataset import` makes COCO of it" if "COCO" not in own else "give annotations"
        yield Fault("other-format", own, f" is in {own}, and COCO is wanted: {what_next}")
        return
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in FIELDS):
        yield Fault(
            "not-coco",
            "the file",
            " is not a COCO annotation file: it needs the lists images, annotations and categories; "
            f"it has {held(content)}",
        )
        return
    whole: dict[str, list[dict[str, Any]]] = {}
    yield from list_faults(content, FIELDS, "COCO", whole)
    yield from _fraction_fault(whole)
    if not content["images"]:
        yield Fault("no-images", "the file", " has no images")
    yield from id_faults(whole["images"], "images")
    unusable = set()
    for fault in _image_faults(whole["images"]):
        unusable.add(id(fault.entry))
        yield fault
    # An entry that lacks something is there all the same: its annotations are not to blame.
    sized = {id(image) for image in whole["images"]} - unusable
    images = {key: image if id(image) in sized else None for key, image in by_id(content["images"]).items()}
    categories = by_id(content["categories"])
    for annotation in whole["annotations"]:
        try:
            yield from _annotation_faults(annotation, images, categories)
        except (TypeError, ValueError, OverflowError, IndexError) as error:  # a value of a kind nobody thinks of
            where, sentence = f"annotation {short(annotation['id'])}", f"cannot be understood: {error}"
            yield Fault("not-understood", where, f": {where} {sentence}", annotation)
    annotations = whole["annotations"]
    if annotations and not any(annotation.get("area", 1) for annotation in annotations):
        nothing = ": every annotation has area 0, which means nothing to learn; correct or remove `area`"
        yield Fault("area-all-zero", "the file", nothing)


def _fraction_fault(whole: dict[str, list[dict[str, Any]]]) -> Iterator[Fault]:
    """Boxes or polygons that all lie between 0 and 1, in images that are larger than that."""
    if not any(positive(image["width"]) and image["width"] > TINY for image in whole["images"]):
        return
    boxes = (a["bbox"] for a in whole["annotations"] if isinstance(a["bbox"], list))
    masks = (a["segmentation"] for a in whole["annotations"] if isinstance(a["segmentation"], list))
    polygons = (polygon for mask in masks for polygon in mask if isinstance(polygon, list))
    for what, lists in (("boxes", boxes), ("polygons", polygons)):
        if _are_fractions(lists):
            wrong = (
                f": all {what} lie between 0 and 1, which is fractions of the image; wanted pixels: multiply x and "
                "width by the image's width, y and height by its height"
            )
            yield Fault("coordinates-fractions", f"all {what}", wrong)


def _are_fractions(lists: Iterator[list[Any]]) -> bool:
    """Whether there are numbers, and all of them from 0 to 1."""
    some = False
    for values in lists:
        numbers = [value for value in values if type(value) in (int, float)]
        if not all(-0.01 <= value <= 1.01 for value in numbers):
            return False
        some = some or any(0 < value < 1 for value in numbers)
    return some


def held(content: Any) -> str:
    """What a file has that is of another format."""
    found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
    return found[:200] or "nothing"


def list_faults(
    content: dict[str, list[Any]],
    fields: dict[str, tuple[str, ...]],
    asker: str,
    whole: dict[str, list[dict[str, Any]]],
) -> Iterator[Fault]:
    """Of the lists: entries that lack a field that `asker` asks for (the others go to `whole`), and categories."""
    for name, wanted in fields.items():
        whole[name] = []
        for position, entry in enumerate(content[name]):
            missing = [field for field in wanted if not isinstance(entry, dict) or field not in entry]
            if missing:
                where = f"entry {position}" if not isinstance(entry, dict) or "id" not in entry else _id(entry)
                lacks = f": {name}, {where}, has no {' and no '.join(missing)}; {asker} asks for {', '.join(wanted)}"
                yield Fault("missing-field", f"{name} {where}", lacks, entry)
            else:
                whole[name].append(entry)
    if not content["categories"]:
        yield Fault("no-categories", "the file", " has no categories; a model needs at least one class to learn")
    yield from id_faults(whole["categories"], "categories")
    yield from _name_faults(whole["categories"])


def whole_number(value: Any) -> bool:
    """Whether a value can be an id: an integer of at most 64 bits, and not true or false."""
    return type(value) is int and abs(value) < 2**63


def short(value: Any) -> str:
    """A value of a file as part of a sentence."""
    try:
        return str(value)[:60]
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list of a thousand depths
        return f"a {type(value).__name__} too large to write"


def _id(entry: dict[str, Any]) -> str:
    return f"id {short(entry['id'])}"


def by_id(entries: list[Any]) -> dict[int, Any]:
    """The entries that have a usable id, by it."""
    return {entry["id"]: entry for entry in entries if isinstance(entry, dict) and whole_number(entry.get("id"))}


def id_faults(entries: list[Any], name: str) -> Iterator[Fault]:
    """Ids of a list that are no numbers or occur twice."""
    seen: set[int] = set()
    for entry in entries:
        if not whole_number(entry["id"]):
            wrong = f": {name}: an id is {short(repr(entry['id']))}; ids must be whole numbers of at most 64 bits"
            yield Fault("id-kind", f"{name} {_id(entry)}", wrong, entry)
        elif entry["id"] in seen:
            twice = f": {name}: {_id(entry)} occurs twice"
            yield Fault(f"duplicate-{name}-id", f"{name} {_id(entry)}", twice, entry)
        else:
            seen.add(entry["id"])


def _name_faults(categories: list[Any]) -> Iterator[Fault]:
    seen: set[str] = set()
    for category in categories:
        name = category["name"] if isinstance(category["name"], str) else short(category["name"])
        if name in seen:
            sentence = f": two categories are called '{short(name)}'; give each its own name"
            yield Fault("duplicate-category-name", f"category {short(category['id'])}", sentence, category)
        seen.add(name)
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            sentence = f": a category is called {short(repr(name))}; wanted text without control characters"
            yield Fault("unprintable-category-name", f"category {short(category['id'])}", sentence, category)


def _image_faults(images: list[Any]) -> Iterator[Fault]:
    for image in images:
        where, name = f"image {short(image['id'])}", image["file_name"]
        if not isinstance(name, str) or not name:
            yield Fault("file-name", where, f": {where} has file_name {short(name)}; wanted a file's name", image)
        if not (positive(image["height"]) and positive(image["width"])):
            sizes = f"width {short(image['width'])[:20]} and height {short(image['height'])[:20]}"
            wanted = f"both must be positive whole numbers, and at most {LARGEST}"
            yield Fault("size-field", where, f": {where} has {sizes}; {wanted}", image)


def positive(value: Any) -> bool:
    """Whether a value can be the side of an image."""
    return isinstance(value, int) and 0 < value <= LARGEST


def _number(value: Any) -> bool:
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # not a NaN, and not a bool


def _annotation_faults(
    annotation: dict[str, Any], images: dict[int, Any], categories: dict[int, Any]
) -> Iterator[Fault]:
    """Of one annotation; `images` has None where an image has no usable size."""
    image = images.get(annotation["image_id"])
    if annotation["image_id"] not in images:
        wrong = f"names image {short(annotation['image_id'])}, which is not among the {len(images)} images"
        yield _fault(annotation, "dangling-image", wrong)
    unknown = category_fault(annotation, categories)
    for code, wrong in ([unknown] if unknown else []) + [*object_faults(annotation, image)]:
        yield _fault(annotation, code, wrong)


def category_fault(annotation: dict[str, Any], categories: dict[int, Any]) -> tuple[str, str] | None:
    """The kind of what is wrong with an annotation's category, and words that go on from the annotation; or None."""
    if annotation["category_id"] in categories:
        return None
    known = ", ".join(map(str, sorted(categories)[:10])) + (", ..." if len(categories) > 10 else "")
    named = short(annotation["category_id"])
    return "unknown-category", f"names category {named}, which is not among the categories ({known})"


def object_faults(annotation: dict[str, Any], image: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    """The kinds of what is wrong with a box, area and mask, each with words that go on from the annotation."""
    box = annotation["bbox"]
    if not (isinstance(box, list) and len(box) == 4 and all(map(_number, box))):
        wanted = f"wanted four numbers x, y, width, height, finite and at most {LARGEST}"
        yield "box-values", f"has box {short(box)}; {wanted}"
    elif box[2] < 0 or box[3] < 0:
        yield "box-negative", f"has box {box}, whose width or height is negative; wanted x, y, width, height"
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield "iscrowd-value", f"has iscrowd {short(annotation['iscrowd'])}; wanted 0 or 1"
    area = annotation.get("area", 1)
    if not (isinstance(area, int | float) and abs(area) < float("inf")):
        wanted = "wanted a finite number of pixels, or no `area` at all"
        yield "area-value", f"has area {short(annotation['area'])}; {wanted}"
    mask = _mask_fault(annotation["segmentation"], image)
    if mask:
        yield mask[0], f"has {mask[1]}"


def _fault(annotation: dict[str, Any], code: str, wrong: str) -> Fault:
    where = f"annotation {short(annotation['id'])}"
    of_image = "" if code == "dangling-image" else f" of image {short(annotation['image_id'])}"
    return Fault(code, where, f": {where}{of_image} {wrong}", annotation)


def _mask_fault(segmentation: Any, image: dict[str, Any] | None) -> tuple[str, str] | None:
    """The kind of what is wrong with a mask, and words that go on from "has"; or None. There may be none: `[]`."""
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if not isinstance(polygon, list) or any(isinstance(value, list | dict) for value in polygon):
                return "polygon-brackets", f"the segmentation {short(segmentation)}; wanted [[x, y, x, y, ...], ...]"
            if len(polygon) < 6 or len(polygon) % 2:
                return "polygon-points", f"a polygon of {len(polygon)} numbers; wanted x, y of three points or more"
            if not all(map(_number, polygon)):
                return (
                    "polygon-values",
                    f"a polygon with a value that is no finite number of pixels, at most {LARGEST}",
                )
        return None
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        return "mask-kind", f"a segmentation that is neither polygons nor RLE: {short(segmentation)}"
    if image is None:
        return None  # without its image there is no telling
    height, width = image["height"], image["width"]
    if segmentation["size"] != [height, width]:
        return (
            "rle-size",
            f"an RLE of size {short(segmentation['size'])}; its image is [{height}, {width}] (height, width)",
        )
    wrong = _runs_fault(segmentation, height * width)
    return ("rle-counts", wrong) if wrong else None


def _runs_fault(rle: dict[str, Any], pixels: int) -> str | None:
    counts = rle["counts"]
    if isinstance(counts, list):
        if not (set(map(type, counts)) <= {int} and min(counts, default=0) >= 0):
            return "an RLE with a run that is no whole number of pixels"
        total = sum(counts)
    elif isinstance(counts, str) and counts and counts.isascii():
        try:
            runs = run_lengths(rle)
        except (ValueError, IndexError):
            return "a compressed RLE that cannot be read"
        total = int(runs.sum()) if (runs >= 0).all() else -1
    else:
        return f"an RLE with counts {short(counts)[:40]!r}; wanted a list of runs, or COCO's compressed text"
    return None if total == pixels else f"an RLE whose runs do not make up the {pixels} pixels of its image"
