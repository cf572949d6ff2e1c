"""A part of an annotation file: some classes, objects that are large enough, images with objects."""

from collections import Counter
from dataclasses import dataclass

from queryinst.curation.read import Content, Entry
from queryinst.errors import UserError, nearest
from queryinst.ops import masks as mask_ops


@dataclass(frozen=True)
class Choice:
    """What to keep.

    Attributes:
        classes: names of the classes to keep, all where there are none; the others are no classes any more.
        without: names of classes to leave out.
        min_area: least pixels of an object.
        min_side: least pixels of the shorter side of an object's box.
        min_image_side: least pixels of the shorter side of an image.
        crowd: whether crowd regions are kept.
        empty: whether images without objects are kept.
    """

    classes: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    min_area: float = 0
    min_side: float = 0
    min_image_side: int = 0
    crowd: bool = True
    empty: bool = True


def choose(content: Content, choice: Choice) -> tuple[Content, Counter[str]]:
    """The part of a file that is kept, ids as they were, and how much was left out for each reason.

    Raises:
        UserError: a class is not known, or none is left.
    """
    gone: Counter[str] = Counter()
    categories = _categories(content["categories"], choice)
    gone["classes"] = len(content["categories"]) - len(categories)
    images = [image for image in content["images"] if min(image["height"], image["width"]) >= choice.min_image_side]
    gone[f"images with a side below {choice.min_image_side} pixels"] = len(content["images"]) - len(images)
    known, sized = {category["id"] for category in categories}, {image["id"]: image for image in images}
    annotations = []
    for annotation in content["annotations"]:
        image = sized.get(annotation["image_id"])
        reason = "annotations of these images" if image is None else _reason(annotation, image, known, choice)
        if reason:
            gone[reason] += 1
        else:
            annotations.append(annotation)
    if not choice.empty:
        used = {a["image_id"] for a in annotations if not a.get("iscrowd")}
        gone["images without objects"] = sum(image["id"] not in used for image in images)
        images = [image for image in images if image["id"] in used]
        annotations = [annotation for annotation in annotations if annotation["image_id"] in used]
    if not images:
        raise UserError("no image is left; ask for less")
    return content | {"images": images, "annotations": annotations, "categories": categories}, +gone


def _categories(categories: list[Entry], choice: Choice) -> list[Entry]:
    names = {str(category["name"]) for category in categories}
    for name in (*choice.classes, *choice.without):
        if name not in names:
            known = ", ".join(sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
            raise UserError(f"there is no class '{name}'{nearest(name, names)}; there are {known}")
    kept = (set(choice.classes) or names) - set(choice.without)
    if not kept:
        raise UserError("no class is left; name others with --classes and --without")
    return [category for category in categories if str(category["name"]) in kept]


def _reason(annotation: Entry, image: Entry, known: set[int], choice: Choice) -> str | None:
    """Why an annotation is left out, or None."""
    if annotation["category_id"] not in known:
        return "annotations of other classes"
    if annotation.get("iscrowd"):
        return None if choice.crowd else "crowd regions"
    if min(annotation["bbox"][2:]) < choice.min_side:
        return f"objects with a side below {choice.min_side:g} pixels"
    if choice.min_area and area_of(annotation, image) < choice.min_area:
        return f"objects below {choice.min_area:g} pixels"
    return None


def area_of(annotation: Entry, image: Entry) -> float:
    """Pixels of an object: its `area`, or where there is none, those of its mask."""
    if annotation.get("area"):
        return float(annotation["area"])
    return mask_ops.area(mask_ops.compressed(annotation["segmentation"], image["height"], image["width"]))
