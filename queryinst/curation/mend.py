"""What the doctor finds in an annotation file, mended as far as there is one right way; the rest is left and said.

Image files are not touched. Where two things contradict, the mask is believed rather than the box, and nothing is made
up: an annotation without a usable mask, image or category is removed.
"""

import copy
from pathlib import Path
from typing import Any

from queryinst.curation.changes import Changes, named
from queryinst.curation.mend_lists import mend_categories, mend_ids, mend_images, number_annotations, remove_dangling
from queryinst.curation.mend_objects import mend_object
from queryinst.curation.read import Content
from queryinst.data import validation
from queryinst.data.doctor_annotations import examine
from queryinst.data.faults import Finding, Findings
from queryinst.errors import UserError


def mend(
    content: Any, path: Path, images: Path | None = None, boxes: bool = False, crowd: bool = True
) -> tuple[Content, Changes]:
    """A mended copy of a file, and all changes.

    Args:
        content: whatever JSON the file holds.
        path: of the file, for messages.
        images: folder of the images, for sizes and names that the file has wrong; None to do without.
        boxes: whether objects without a mask get the rectangle of their box; else they are removed.
        crowd: whether crowd regions are such; else they are objects.

    Raises:
        UserError: the file is not COCO's at all.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in validation.FIELDS):
        raise UserError(
            f"{path} is not a COCO annotation file: it needs the lists images, annotations and categories; it has "
            f"{validation.held(content)}. Files of other tools: python -m queryinst.dataset import"
        )
    made, changes = copy.deepcopy(content), Changes()
    for name in validation.FIELDS:
        entries = [entry for entry in made[name] if isinstance(entry, dict)]
        for _ in range(len(made[name]) - len(entries)):
            changes.add("missing-field", name, "loses an entry that has no fields")
        made[name] = entries
    if not crowd:
        _no_crowd(made, changes)
    mend_ids(made, changes)
    mend_categories(made, changes)
    mend_images(made, images, changes)
    remove_dangling(made, changes)
    _mend_objects(made, boxes, changes)
    number_annotations(made, changes)
    return made, changes


def _no_crowd(made: Content, changes: Changes) -> None:
    for annotation in made["annotations"]:
        if annotation.get("iscrowd"):
            changes.add("no-objects", named("annotation", annotation), "is an object, not a crowd region")
            annotation["iscrowd"] = 0


def _mend_objects(made: Content, boxes: bool, changes: Changes) -> None:
    images = {image["id"]: image for image in made["images"]}
    annotations, seen = [], set()
    for annotation in made["annotations"]:
        mended = mend_object(annotation, images[annotation["image_id"]], boxes, changes)
        if mended is None:
            continue
        same = tuple(repr(mended.get(key)) for key in ("image_id", "category_id", "bbox", "segmentation", "iscrowd"))
        if same in seen:
            changes.add("duplicate-object", named("annotation", annotation), "removed: another is the same in all")
            continue
        seen.add(same)
        annotations.append(mended)
    made["annotations"] = annotations


def left(content: Content, folder: Path) -> list[Finding]:
    """The faults that the doctor still finds in a file by itself, but for images without objects and unused classes."""
    findings = Findings()
    examine(content, folder, "left", findings, min_side=0, keep_empty=True)
    return [finding for finding in findings if finding.code != "category-unused"]
