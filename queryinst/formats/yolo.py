"""YOLO: `data.yaml` with names and folders of images, and beside each `images` a folder `labels` with a text file an
image. A line is a class number and x, y of a polygon's points, or of a box its centre, width and height, all between
0 and 1 of the image's width and height. An image without a file has no objects."""

from pathlib import Path
from typing import Any

import yaml

from queryinst.errors import UserError
from queryinst.formats.files import SPLITS, images_below, picture_of, split_of
from queryinst.formats.found import Found, Picture, Request, progress, rectangle

NAME, WHAT = "yolo", "YOLO labels (data.yaml or images/ and labels/)"
UNLABELLED = "images have no file of labels: they count as images without objects"
LISTS = ("classes.txt", "obj.names")  # that name the classes where there is no data.yaml


def matches(source: Path) -> bool:
    """A yaml file with names, or a folder with one or with labels as text."""
    if source.is_file():
        return source.suffix in (".yaml", ".yml") and "names" in _described(source)
    described = any("names" in _described(path) for path in _yamls(source))
    return described or next(source.glob("**/labels/**/*.txt"), None) is not None


def read(request: Request) -> Found:
    """Images of all splits with their objects. Raises UserError."""
    found = Found()
    yamls = [request.source] if request.source.is_file() else _yamls(request.source)
    described = next((path for path in yamls if "names" in _described(path)), None)
    if described:
        content = _described(described)
        found.classes = list(request.classes) or _names(content["names"], described)
        places = _places(described, content)
    else:
        found.classes = list(request.classes) or _listed(request.source)
        folder = request.images or request.source
        places = [(split_of(path, folder), path) for path in images_below(folder)]
    if not places:
        raise UserError(f"{described or request.source} names no folder with images; wanted train, val or test there")
    for split, path in progress(places, "reading labels"):
        picture = picture_of(path, split=split)
        labels = label_file(path)
        if labels is None:
            found.notes[UNLABELLED] += 1
        for number, line in enumerate(_lines(labels) if labels else [], 1):
            _add(found, picture, line.split(), f"{labels}, line {number},", request)
        found.pictures.append(picture)
    if found.notes[UNLABELLED] == len(found.pictures):
        raise UserError(
            f"no image of {request.source} has a file of labels, such as {_expected(found.pictures[0].file)}"
        )
    return found


def label_file(image: Path) -> Path | None:
    """Where an image has its labels: the last folder `images` in its path is `labels`, or else below it or beside it.
    None where there are none."""
    parts = list(image.parts[:-1])
    tried = [image.parent / "labels", image.parent]
    if "images" in parts:
        place = len(parts) - 1 - parts[::-1].index("images")
        tried.insert(0, Path(*parts[:place], "labels", *parts[place + 1 :]))
    files = (folder / f"{image.stem}.txt" for folder in tried)
    return next((path for path in files if path.is_file()), None)


def _expected(image: Path) -> Path:
    return Path(*["labels" if part == "images" else part for part in image.parts]).with_suffix(".txt")


def _add(found: Found, picture: Picture, words: list[str], where: str, request: Request) -> None:
    if not words:
        return
    try:
        label, values = int(float(words[0])), [float(word) for word in words[1:]]
    except (ValueError, OverflowError):
        raise UserError(f"{where} is not all numbers: '{' '.join(words)[:60]}'; wanted a class and x, y ...") from None
    if not 0 <= label < len(found.classes):
        raise UserError(
            f"{where} has class {label}, but {len(found.classes)} classes are named, which count from 0: "
            "correct it, or name all with --classes"
        )
    name, sides = found.classes[label], (picture.width, picture.height)
    if len(values) == 4:
        x, y, width, height = (value * sides[place % 2] for place, value in enumerate(values))
        found.add_box(picture, name, rectangle(x - width / 2, y - height / 2, width, height), request)
    elif len(values) >= 6 and len(values) % 2 == 0:
        found.add(picture, name, [[value * sides[place % 2] for place, value in enumerate(values)]])
    else:
        raise UserError(
            f"{where} has {len(values)} numbers after the class; wanted 4 of a box, or x, y of 3 points or more"
        )


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from None


def _yamls(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def _described(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    return content if isinstance(content, dict) else {}


def _names(names: Any, path: Path) -> list[str]:
    """Class number to name, from a list or from numbers to names."""
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has names {str(names)[:60]}; wanted a list, or numbers from 0 with a name each")
    return [str(name) for name in names]


def _listed(folder: Path) -> list[str]:
    for name in LISTS:
        if (folder / name).is_file():
            return [line.strip() for line in _lines(folder / name) if line.strip()]
    raise UserError(f"{folder} has no data.yaml and no classes.txt: name the classes with --classes, class 0 first")


def _places(described: Path, content: dict[str, Any]) -> list[tuple[str, Path]]:
    """Split and path of every image that a data.yaml names."""
    found = []
    for key, split in SPLITS.items():
        given = content.get(key)
        for place in [given] if isinstance(given, str) else given if isinstance(given, list) else []:
            found += [(split, path) for path in _images(described, str(content.get("path") or ""), str(place))]
    return list(dict.fromkeys(found))


def _images(described: Path, base: str, place: str) -> list[Path]:
    """The images of a folder, or of a text file that lists them."""
    beside = described.parent
    # Roboflow writes ../train/images where the folder is train/images: its own tools look one folder deeper.
    bare = Path(*[part for part in Path(place).parts if part != ".."])
    tried = [beside / base / place, beside / place, beside / base / bare, beside / bare]
    path = next((path for path in tried if path.exists()), None)
    if path is None:
        raise UserError(f"{described} names {place}, which is not there; looked for {tried[0]} and {tried[-1]}")
    if path.is_dir():
        return images_below(path)
    lines = [Path(line.strip()) for line in _lines(path) if line.strip()]
    return [line if line.is_absolute() else path.parent / line for line in lines]
