"""An annotation file as it is, for what goes on with it."""

from collections import Counter
from pathlib import Path
from typing import Any

from queryinst.data import validation
from queryinst.data.coco import read_json
from queryinst.errors import UserError

Entry = dict[str, Any]
Content = dict[str, Any]


def read(path: Path) -> Content:
    """The content of a COCO file that training could read. Raises UserError at the first fault."""
    content = read_json(path)
    fault = next(validation.faults(content), None)
    if fault:
        raise UserError(f"{path}{fault.sentence}; python -m queryinst.dataset fix mends what can be mended")
    return content


def part_of(content: Content, images: list[Entry]) -> Content:
    """The same file with some of its images and their annotations, in the order of the file; all else is kept."""
    kept = {image["id"] for image in images}
    return content | {
        "images": [image for image in content["images"] if image["id"] in kept],
        "annotations": [a for a in content["annotations"] if a["image_id"] in kept],
    }


def described(content: Content) -> str:
    """How much there is in a file, in a few words."""
    objects = sum(not annotation.get("iscrowd") for annotation in content["annotations"])
    crowd = len(content["annotations"]) - objects
    used = len({annotation["category_id"] for annotation in content["annotations"]})
    regions = f" and {crowd} crowd regions" if crowd else ""
    return (
        f"{len(content['images'])} images, {objects} objects{regions}, "
        f"{used} of {len(content['categories'])} classes have objects"
    )


def first(names: list[str], most: int = 3) -> str:
    """The first few of several names."""
    return ", ".join(f"'{name[:100]}'" for name in names[:most]) + (", ..." if len(names) > most else "")


def twice(names: list[str]) -> list[str]:
    """Names that occur more than once."""
    return [name for name, times in Counter(names).items() if times > 1]
