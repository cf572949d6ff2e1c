"""COCO data: the annotation file, checked and indexed, and the data set that reads images and makes samples of them.

Nobody above this file knows category ids: labels are 0..K-1 in the order of ascending category id.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from queryinst.data import validation
from queryinst.data.images import ImageFile
from queryinst.data.index import Index, build, digest_of, find, no_garbage, save
from queryinst.data.repair import CROWD, repair
from queryinst.data.transforms import Instances
from queryinst.errors import UserError
from queryinst.ops import masks as mask_ops


class EncodingError(UserError):
    """A file is text, and not in UTF-8."""


@dataclass(frozen=True)
class Categories:
    """The classes of a data set: label k is category `ids[k]`, called `names[k]`."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


class Images(Sequence[ImageFile]):
    """Some images of an annotation file, in its order; each is made when it is asked for, so that none is copied.

    Args:
        index: of the annotation file.
        folder: where the images are.
        positions: which images; all by default.
    """

    def __init__(self, index: Index, folder: Path, positions: NDArray[np.int64] | None = None) -> None:
        self.source, self.folder = index, folder
        self.positions = np.arange(len(index)) if positions is None else positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, which: int) -> ImageFile: ...

    @overload
    def __getitem__(self, which: slice) -> "Images": ...

    def __getitem__(self, which: int | slice) -> "ImageFile | Images":
        if isinstance(which, slice):
            return Images(self.source, self.folder, self.positions[which])
        entry = self.source.image(int(self.positions[which]))
        return ImageFile(entry["id"], self.folder / entry["file_name"], entry["height"], entry["width"])


class CocoFile:
    """An annotation file: its categories, its images, and the instances of each image.

    A large file is parsed and checked once and then read from the index that this leaves (see `queryinst.data.index`).

    Args:
        path: the JSON file.
        folder: where the images are.
        hint: what to do when one of the two is not there; ends the error's sentence.
        crowd: what `iscrowd: 1` means, as DataConfig.crowd.

    Raises:
        UserError: a file or folder is missing, the JSON is malformed or not COCO, or an annotation names an unknown
            image or category or has no usable box or mask.
    """

    format, prefix = "COCO", ""  # of the file, and of what its index is known by

    def __init__(self, path: Path, folder: Path, hint: str = "", crowd: str = CROWD[0]) -> None:
        self.path, self.folder, self.crowd = path, folder, crowd
        digest = self._digest()
        index = find(path, digest) if digest else None
        if index is None:
            index = self._read(hint)
            index = save(index, path, digest) if digest else index
        else:
            require_folder(folder, path, hint)
        self.index = index
        categories = sorted(index.categories(), key=lambda category: category["id"])
        self.categories = Categories(tuple(c["id"] for c in categories), tuple(str(c["name"]) for c in categories))
        self.images = Images(index, folder)
        self._labels = {key: label for label, key in enumerate(self.categories.ids)}

    def _digest(self) -> str | None:
        """What an index of the file is known by; None where it needs none."""
        return digest_of(self.path, self.prefix + ("" if self.crowd == CROWD[0] else f"{self.crowd}-"))

    def _content(self, hint: str) -> Any:
        return read_json(self.path, hint, self.format)

    def _read(self, hint: str) -> Index:
        with no_garbage():
            content = self._content(hint)
            require_folder(self.folder, self.path, hint)
            try:
                return build(self._checked(content), is_learnable)
            except RecursionError:
                raise UserError(f"{self.path} has an annotation that is nested too deeply to be kept") from None

    def _checked(self, content: Any) -> dict[str, Any]:
        """Images, annotations and categories of a parsed file. Raises UserError."""
        repair(content, self.crowd)
        validation.check_content(content, self.path)
        return content

    @property
    def content(self) -> dict[str, Any]:
        """Images, categories and annotations as a COCO dictionary, made anew: the fields that are used, image by image.

        For evaluation; of a large training set this is gigabytes.
        """
        images = range(len(self.index))
        return {
            "images": [self.index.image(position) for position in images],
            "categories": self.index.categories(),
            "annotations": [annotation for position in images for annotation in self.index.annotations(position)],
        }

    def trainable(self, smallest: int, keep_empty: bool) -> Images:
        """The images with sides of `smallest` pixels or more, and with something to learn unless `keep_empty`."""
        kept = self.index.sizes.min(axis=1) >= smallest
        if not keep_empty:
            kept &= self.index.learnable > 0
        return Images(self.index, self.folder, np.flatnonzero(kept))

    def annotations(self, image: ImageFile) -> list[dict[str, Any]]:
        """The annotations of an image as the file has them, crowd regions among them."""
        return self.index.annotations(self.index.position(image.id))

    def learnable(self, image: ImageFile) -> list[dict[str, Any]]:
        """The annotations that are objects to learn: no crowd regions, nothing ignored, nothing below a pixel."""
        return [a for a in self.annotations(image) if is_learnable(a, image.height, image.width)]

    def instances(self, image: ImageFile) -> Instances:
        """What there is to learn in an image."""
        return self._instances(self.learnable(image))

    def _instances(self, found: list[dict[str, Any]]) -> Instances:
        boxes = np.array([annotation["bbox"] for annotation in found], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = np.array([self._labels[annotation["category_id"]] for annotation in found], np.int64)
        return Instances(boxes, labels, [outline_of(annotation["segmentation"]) for annotation in found])


def is_learnable(annotation: dict[str, Any], height: int, width: int) -> bool:
    """Whether an annotation of an image of this size is an object to learn."""
    x, y, w, h = annotation["bbox"]
    inside = min(x + w, width) - max(x, 0), min(y + h, height) - max(y, 0)
    object_to_learn = not annotation.get("iscrowd") and not annotation.get("ignore")
    return bool(object_to_learn and annotation.get("area", 1) > 0 and min(w, h) >= 1 and min(inside) > 0)


def require_folder(folder: Path, path: Path, hint: str = "") -> None:
    """Raise UserError unless the folder of the images of the file `path` is there."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected the images of {path} there{hint}")


def read_json(path: Path, hint: str = "", format: str = "COCO") -> Any:
    """Parse a JSON file, with a sentence where that fails."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
        found = f"; its folder has {', '.join(beside[:5])}" if beside else ""
        raise UserError(f"{path} does not exist; expected a {format} annotation file there{found}{hint}") from None
    except UnicodeDecodeError as error:
        raise EncodingError(
            f"{path} is not text in UTF-8: byte {error.object[error.start]:#x} at {error.start}; if it is in GBK or "
            "Latin-1, save it as UTF-8, as with `iconv -f GBK -t UTF-8 FILE > NEW`"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as JSON: {error}; it may be cut short: copy or download it again"
        ) from None


def outline_of(segmentation: Any) -> mask_ops.Polygons | mask_ops.LocalMask:
    """A COCO segmentation as polygons (none where there is no mask), or an RLE as the bitmap of its own box."""
    if isinstance(segmentation, list):
        return [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in segmentation]
    return mask_ops.decode(segmentation)
