"""What was read as COCO annotation files, one a split, and its images left where they are, linked or copied."""

import os
import shlex
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from queryinst.data.locate import doctor_command
from queryinst.data.validation import check_content
from queryinst.errors import UserError
from queryinst.formats.found import Found, Picture, progress

LEAVE, LINK, COPY = "leave", "link", "copy"
WHOLE = "all"  # the file of a data set that has no splits


@dataclass(frozen=True)
class Written:
    """One split: its annotation file and content, and the folder of its images."""

    split: str
    annotations: Path
    images: Path
    content: dict[str, Any]


def convert(found: Found, to: Path, files: str, named: tuple[str, ...] = ()) -> list[Written]:
    """COCO content of every split; nothing is written yet.

    Category ids are 1, 2, ... in the order of `named`, of the format's own list, and of names that neither has, sorted.
    They are the same in all splits. Image and annotation ids count from 1 in each file.

    Args:
        found: what was read.
        to: the new data folder.
        files: "leave", "link" or "copy" images.
        named: names that come first.

    Raises:
        UserError: an image comes more than once, or is turned and not copied, or the result is not what training reads.
    """
    _require_clear(found.pictures, files)
    used = sorted({thing.name for picture in found.pictures for thing in picture.things})
    ids = {name: number for number, name in enumerate(dict.fromkeys([*named, *found.classes, *used]), 1)}
    result = []
    for split in sorted({picture.split for picture in found.pictures}):
        pictures = [picture for picture in found.pictures if picture.split == split]
        name = split or WHOLE
        common = Path(os.path.commonpath([picture.file.absolute().parent for picture in pictures]))
        folder = common if files == LEAVE else to / "images" / name
        path = to / "annotations" / f"{name}.json"
        content = _content(pictures, common, ids)
        check_content(content, path)
        result.append(Written(name, path, folder, content))
    return result


def _require_clear(pictures: list[Picture], files: str) -> None:
    times_of = Counter(picture.file.absolute() for picture in pictures)
    several = [path for path, times in times_of.items() if times > 1]
    if several:
        raise UserError(
            f"{len(several)} images are annotated more than once, such as {several[0]}: give the one file of "
            "annotations that counts, not the folder of all"
        )
    turned = [picture.file for picture in pictures if picture.turned]
    if turned and files != COPY:
        raise UserError(
            f"{len(turned)} images, such as {turned[0]}, have an EXIF note to turn them, which annotation tools follow "
            "and training does not: --files copy stores them upright"
        )


def _content(pictures: list[Picture], common: Path, ids: dict[str, int]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, picture in enumerate(pictures, 1):
        name = picture.file.absolute().relative_to(common).as_posix()
        images.append({"id": number, "file_name": name, "height": picture.height, "width": picture.width})
        for thing in picture.things:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": ids[thing.name],
                    "bbox": thing.box,
                    "area": thing.area,
                    "iscrowd": int(thing.crowd),
                    "segmentation": thing.segmentation,
                }
            )
    categories = [{"id": number, "name": name, "supercategory": ""} for name, number in ids.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def bring(found: Found, written: list[Written], files: str) -> None:
    """Link or copy the images to where the annotations have them. Copies are upright. Raises UserError."""
    if files == LEAVE:
        return
    for one in written:
        pictures = [picture for picture in found.pictures if (picture.split or WHOLE) == one.split]
        pairs = list(zip(pictures, one.content["images"], strict=True))
        for picture, entry in progress(pairs, f"{files} {one.split} images"):
            target = one.images / entry["file_name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_symlink() or target.exists():
                raise UserError(f"{target} exists already; give another folder with --to, or delete it")
            if files == LINK:
                target.symlink_to(picture.file.resolve())
            else:
                _copy(picture, target)


def _copy(picture: Picture, target: Path) -> None:
    if not picture.turned:
        shutil.copyfile(picture.file, target)
        return
    with Image.open(picture.file) as image:
        upright = ImageOps.exif_transpose(image)
        assert upright is not None
        upright.save(target, quality=95)


def summary(found: Found, written: list[Written]) -> list[str]:
    """Lines that say what there is, what was left out, and how to go on."""
    lines = []
    for one in written:
        objects = Counter(annotation["category_id"] for annotation in one.content["annotations"])
        names = {category["id"]: category["name"] for category in one.content["categories"]}
        most = ", ".join(f"{names[key]} {times}" for key, times in objects.most_common(5))
        lines.append(
            f"{one.annotations}: {len(one.content['images'])} images, {objects.total()} objects, "
            f"{len(objects)} of {len(names)} classes have objects" + (f" ({most})" if most else "")
        )
    return lines + [f"{times} x {note}" for note, times in sorted(found.notes.items())]


def next_command(to: Path, written: list[Written]) -> str:
    """The command that goes on from here: the doctor where there are both splits, or else `split`."""
    splits = {one.split: one for one in written}
    if {"train", "val"} <= splits.keys():
        return doctor_command(
            to, {split: (splits[split].annotations, splits[split].images) for split in ("train", "val")}
        )
    first = splits.get("train", written[0])
    words = ["--images", shlex.quote(str(first.images)), "--parts", "train=0.8", "val=0.2"]
    return " ".join(["now: python -m queryinst.dataset split", shlex.quote(str(first.annotations)), *words])
