"""The image files that annotations speak of: where they are, and their size."""

import contextlib
import json
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from PIL import Image, UnidentifiedImageError

from queryinst.errors import UserError
from queryinst.formats.found import Found, Picture, Request

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jfif", ".mpo")
ORIENTATION = 0x0112  # EXIF
SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
PREFIX = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file


class Gallery:
    """Finds images below a folder by the names that annotations have, and says which are not there.

    Args:
        folder: of the images; searched in all depths, once.
        found: where images that are missing, and notes, are kept.
    """

    def __init__(self, folder: Path, found: Found) -> None:
        if not folder.is_dir():
            raise UserError(
                f"{folder} is not a folder; expected the images there (--images FOLDER says where they are)"
            )
        self.folder, self._found = folder, found
        self._by_name: dict[str, list[Path]] = {}
        self._by_stem: dict[str, list[Path]] = {}
        for path in images_below(folder):
            self._by_name.setdefault(path.name, []).append(path)
            self._by_stem.setdefault(path.stem, []).append(path)

    def picture(self, names: str | list[str], size: tuple[int, int] | None = None, split: str = "") -> Picture | None:
        """The image of the first name that there is one of, or None, which is remembered as missing.

        Args:
            names: as the annotations have them: file, path or URL.
            size: height and width as the annotations have them; None to read them from the file.
            split: that it is in.
        """
        names = [names] if isinstance(names, str) else names
        path = next((path for name in names for path in [self._path(name)] if path), None)
        if path is None:
            self._found.missing.append(names[0] if names else "an image without a name")
            return None
        return picture_of(path, size, split)

    def _path(self, name: str) -> Path | None:
        parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("..", ".", "/")]
        # The end of the path says most: `a/b/c.jpg` is looked for as that, as `b/c.jpg`, and as `c.jpg` anywhere.
        for start in range(len(parts)):
            path = self.folder.joinpath(*parts[start:])
            with contextlib.suppress(OSError, ValueError):  # no possible name of a file
                if path.is_file():
                    return path
        return self._only(self._by_name, parts[-1]) if parts else None

    def of_stem(self, stem: str) -> Path | None:
        """The one image of this name without its ending, or None."""
        return self._only(self._by_stem, stem)

    def _only(self, known: dict[str, list[Path]], key: str) -> Path | None:
        paths = known.get(key, [])
        if len(paths) > 1:
            raise UserError(
                f"'{key}' may be {paths[0]} or {paths[1]}; the annotations do not say which: "
                "import these folders one by one, with --images FOLDER"
            )
        return paths[0] if paths else None


def images_below(folder: Path) -> list[Path]:
    """All image files in a folder and its folders, in order."""
    found = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def picture_of(path: Path, size: tuple[int, int] | None = None, split: str = "") -> Picture:
    """An image without objects so far. Its size is that of the upright image, which annotation tools show, unless the
    annotations have that of the stored pixels.

    Raises UserError where the file is no image, or is not of the `size` (height, width) that the annotations have.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            orientation = image.getexif().get(ORIENTATION, 1)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from None
    turned = orientation in range(2, 9) and not (orientation in SIDEWAYS and size == (height, width))
    if turned and orientation in SIDEWAYS:
        height, width = width, height
    if size and size != (height, width):
        raise UserError(
            f"{path} is {width}x{height}, but its annotations are of an image of {size[1]}x{size[0]}; give the images "
            "that were annotated (--images FOLDER)"
        )
    return Picture(path, height, width, split, turned=turned)


def require_all(found: Found, request: Request) -> None:
    """Raise UserError where images are missing; with `skip_missing` they become a note."""
    if not found.missing:
        return
    first = ", ".join(f"'{name[:100]}'" for name in found.missing[:3]) + (", ..." if len(found.missing) > 3 else "")
    if not request.skip_missing:
        raise UserError(
            f"{len(found.missing)} images of {request.source} are not below {request.images or request.source}: "
            f"{first}; say where they are with --images FOLDER, or leave them out with --skip-missing"
        )
    found.notes[f"images left out, since they are not there: {first}"] += len(found.missing)


def read_json(path: Path) -> Any:
    """A JSON file. Raises UserError."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}; export it again") from None


def json_files(source: Path) -> list[Path]:
    """The file, or the JSON files below the folder, in order."""
    return [source] if source.is_file() else sorted(path for path in source.rglob("*.json") if path.is_file())


def folder_of(source: Path) -> Path:
    """The folder that a file is in; a folder itself."""
    return source.parent if source.is_file() else source


def split_of(path: Path, root: Path) -> str:
    """The split that the folders between the root and a path name: train, val or test, or "" for none."""
    between = path.relative_to(root).parts if path.is_relative_to(root) else path.parts
    return next((SPLITS[part.lower()] for part in between[:-1] if part.lower() in SPLITS), "")


def names_in(address: str) -> list[str]:
    """What an image may be called that an address names: of a URL its path, or the file that its query names."""
    parsed = urlparse(address)
    names = [*parse_qs(parsed.query).get("d", []), unquote(parsed.path) if parsed.scheme or parsed.query else address]
    short = [str(PurePosixPath(name).parent / PREFIX.sub("", PurePosixPath(name).name)) for name in names if name]
    return [name for name in [*names, *short] if PurePosixPath(name).name]
