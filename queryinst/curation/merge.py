"""Several annotation files as one: categories joined by name, everything numbered anew."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queryinst.curation.read import Content, Entry, first, read, twice
from queryinst.data.coco import require_folder
from queryinst.errors import UserError


@dataclass(frozen=True)
class Source:
    """A file to join: its path, its content, and the folder of its images below that of all images."""

    path: Path
    content: Content
    below: str = ""


def sources(paths: Sequence[Path], images: Sequence[Path] | None) -> tuple[list[Source], Path | None]:
    """The files to join, and the folder that all of their images are in where the folder of each is given.

    Raises UserError where a file cannot be read, or there are not as many folders as files.
    """
    if len(paths) < 2:
        raise UserError("there is one file to join; give two or more")
    if images is None:
        return [Source(path, read(path)) for path in paths], None
    if len(images) != len(paths):
        raise UserError(f"--images has {len(images)} folders for {len(paths)} files; give the folder of each")
    for folder, path in zip(images, paths, strict=True):
        require_folder(folder, path)
    common = Path(os.path.commonpath([folder.absolute() for folder in images]))
    below = [folder.absolute().relative_to(common).as_posix() for folder in images]
    pairs = zip(paths, ["" if place == "." else place for place in below], strict=True)
    return [Source(path, read(path), place) for path, place in pairs], common


def merge(sources: Sequence[Source], join: bool) -> tuple[Content, list[str]]:
    """One file with all images and annotations, and notes on what people may want to know.

    Categories keep the ids that the first file has for them; what other files have besides follows after the largest.
    Ids of images and annotations are 1, 2, ...; other fields stay as they are.

    Args:
        sources: files without faults.
        join: whether images of one name are one image, with the annotations of all files; else that is an error.

    Raises:
        UserError: two images have one name, unless they are to be joined, or have two sizes.
    """
    categories = _categories(sources)
    ids = {str(category["name"]): category["id"] for category in categories}
    images: list[Entry] = []
    annotations: list[Entry] = []
    by_name: dict[str, Entry] = {}
    licences = Licences()
    named = [_name(source, image) for source in sources for image in source.content["images"]]
    clashes = twice(named)
    if clashes and not join:
        raise UserError(
            f"{len(clashes)} file names are of more than one image: {first(clashes)}; if they are different pictures, "
            "give the folder of each file's images with --images; if they are the same, --join puts their annotations "
            "together"
        )
    for source in sources:
        old_names = {category["id"]: str(category["name"]) for category in source.content["categories"]}
        place: dict[int, int] = {}
        for image in source.content["images"]:
            name = _name(source, image)
            if name not in by_name:
                by_name[name] = image | {"id": len(images) + 1, "file_name": name} | licences.of(source, image)
                images.append(by_name[name])
            _require_one_size(by_name[name], image, source.path)
            place[image["id"]] = by_name[name]["id"]
        for annotation in source.content["annotations"]:
            new = {"id": len(annotations) + 1, "image_id": place[annotation["image_id"]]}
            annotations.append(annotation | new | {"category_id": ids[old_names[annotation["category_id"]]]})
    content = {"images": images, "annotations": annotations, "categories": categories}
    content |= {"licenses": licences.all} if licences.all else {}
    return content, _notes(sources, categories, clashes)


def _name(source: Source, image: Entry) -> str:
    return f"{source.below}/{image['file_name']}" if source.below else str(image["file_name"])


def _require_one_size(one: Entry, other: Entry, path: Path) -> None:
    sizes = [f"{image['width']}x{image['height']}" for image in (one, other)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"'{one['file_name']}' is {sizes[0]} in one file and {sizes[1]} in {path}: they are two pictures; give the "
            "folder of each file's images with --images"
        )


def _categories(sources: Sequence[Source]) -> list[Entry]:
    """One category a name, in the order in which they are first seen."""
    found: dict[str, Entry] = {str(c["name"]): c for c in sources[0].content["categories"]}
    free = max((category["id"] for category in found.values()), default=0) + 1
    for source in sources[1:]:
        for category in source.content["categories"]:
            name = str(category["name"])
            if name not in found:
                found[name] = category | {"id": free}
                free += 1
    return list(found.values())


def _notes(sources: Sequence[Source], categories: list[Entry], clashes: list[str]) -> list[str]:
    notes = [f"{len(clashes)} images of one name were joined: {first(clashes)}"] if clashes else []
    lower = Counter(str(category["name"]).strip().lower() for category in categories)
    alike = [str(c["name"]) for c in categories if lower[str(c["name"]).strip().lower()] > 1]
    if alike:
        notes.append(f"classes stay apart whose names differ only in capitals or spaces: {first(alike, 6)}")
    for source in sources:
        missing = {str(c["name"]) for c in categories} - {str(c["name"]) for c in source.content["categories"]}
        if missing:
            known = f"{source.path} does not know {first(sorted(missing))}"
            notes.append(f"{known}: if its images show them, they count as background")
    return notes


class Licences:
    """The licences of all files, each once, numbered anew."""

    def __init__(self) -> None:
        self.all: list[dict[str, Any]] = []

    def of(self, source: Source, image: Entry) -> dict[str, Any]:
        """The field `license` of an image, where it names one that its file lists."""
        listed = source.content.get("licenses")
        entries = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        own = next((one for one in entries if "license" in image and one.get("id") == image["license"]), None)
        if own is None:
            return {}
        bare = {key: value for key, value in own.items() if key != "id"}
        known = next((one for one in self.all if one | {"id": None} == bare | {"id": None}), None)
        if known is None:
            known = {"id": len(self.all) + 1, **bare}
            self.all.append(known)
        return {"license": known["id"]}
