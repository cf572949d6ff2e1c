"""What is kept of an annotation file: flat arrays, on disk where the file is large, so that it is parsed once.

The index of FILE.json is FILE.json.index beside it or, where nothing can be written there, in the user's cache folder
(`queryinst.cache`). It is a safetensors file and is mapped, not read: loader processes share its pages. It belongs to
the content (SHA-256) of the annotation file; one that does not fit is made again.
"""

import contextlib
import gc
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from queryinst.cache import cache_folder
from queryinst.errors import UserError

FORMAT = "queryinst annotations 3"
SMALLEST = 16_000_000  # bytes: a smaller file is parsed in a second, and leaves no index
KEPT = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation", "track")
ARRAYS = {
    "ids": np.dtype(np.int64),  # (images,)
    "order": np.dtype(np.int64),  # (images,) positions by ascending id
    "sizes": np.dtype(np.int64),  # (images, 2) height, width
    "learnable": np.dtype(np.int64),  # (images,) how many annotations are objects to learn
    "names": np.dtype(np.uint8),  # UTF-8, one file name after another
    "name_ends": np.dtype(np.int64),  # (images + 1,) from 0
    "texts": np.dtype(np.uint8),  # JSON, one list of annotations an image after another
    "text_ends": np.dtype(np.int64),  # (images + 1,) from 0
    "categories": np.dtype(np.uint8),  # JSON
    "videos": np.dtype(np.uint8),  # JSON, of video: without the frames' names
    "summary": np.dtype(np.uint8),  # JSON, of `Summary`
}


class Summary(NamedTuple):
    """What there is in a file, counted once."""

    annotations: int
    crowds: int  # regions of uncounted objects
    unmasked: int  # objects with a box and no mask
    most: int  # objects of one image
    most_of_class: int  # objects of one class in one image


class Index:
    """The images, categories and annotations of a checked annotation file, by position of the image.

    Args:
        arrays: as in `ARRAYS`.
        file, digest: of the index that the arrays are mapped from, where there is one.
    """

    def __init__(self, arrays: dict[str, NDArray[Any]], file: Path | None = None, digest: str = "") -> None:
        self.arrays, self.file, self.digest = arrays, file, digest
        self.sizes, self.learnable = arrays["sizes"], arrays["learnable"]

    def __len__(self) -> int:
        return len(self.arrays["ids"])

    def __reduce__(self) -> tuple[Any, ...]:
        """A process that is sent a mapped index maps the same file."""
        return (_map, (self.file, self.digest)) if self.file else (Index, (self.arrays,))

    def image(self, position: int) -> dict[str, Any]:
        """An entry of the file's `images`: id, file_name, height, width."""
        name = self._piece("name", position).decode("utf-8", "surrogatepass")
        height, width = self.sizes[position].tolist()
        return {"id": int(self.arrays["ids"][position]), "file_name": name, "height": height, "width": width}

    def position(self, image_id: int) -> int:
        """Of the image with an id. Raises KeyError."""
        ids, order = self.arrays["ids"], self.arrays["order"]
        rank = int(np.searchsorted(ids, image_id, sorter=order))
        if rank == len(order) or ids[order[rank]] != image_id:
            raise KeyError(image_id)
        return int(order[rank])

    def annotations(self, position: int) -> list[dict[str, Any]]:
        """The annotations of an image in the file's order, with the fields `KEPT`."""
        return json.loads(self._piece("text", position))

    def categories(self) -> list[dict[str, Any]]:
        """The file's `categories`."""
        return json.loads(self.arrays["categories"].tobytes())

    def summary(self) -> Summary:
        """What there is in the file."""
        return Summary(*json.loads(self.arrays["summary"].tobytes()))

    def videos(self) -> list[dict[str, Any]]:
        """The videos that the images are frames of, one after another; none where they are just images."""
        return json.loads(self.arrays["videos"].tobytes())

    def _piece(self, name: str, position: int) -> bytes:
        begin, end = self.arrays[f"{name}_ends"][position : position + 2].tolist()
        return self.arrays[f"{name}s"][begin:end].tobytes()


def build(content: dict[str, Any], is_learnable: Callable[[dict[str, Any], int, int], bool]) -> Index:
    """The index of a checked annotation file, in memory. Empties `content["annotations"]`, which may be gigabytes."""
    images = content["images"]
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in images}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    content["annotations"] = []
    learnable, texts, summary = [], [], [0] * len(Summary._fields)
    for image in images:
        found = by_image.pop(image["id"])
        learnable.append(sum(is_learnable(annotation, image["height"], image["width"]) for annotation in found))
        _count(found, summary)
        kept = [{key: annotation[key] for key in KEPT if key in annotation} for annotation in found]
        texts.append(json.dumps(kept, separators=(",", ":"), check_circular=False).encode())
    ids = np.array([image["id"] for image in images], np.int64)
    names = [image["file_name"].encode("utf-8", "surrogatepass") for image in images]
    return Index(
        {
            "ids": ids,
            "order": np.argsort(ids),
            "sizes": np.array([(image["height"], image["width"]) for image in images], np.int64),
            "learnable": np.array(learnable, np.int64),
            "names": _joined(names),
            "name_ends": _ends(names),
            "texts": _joined(texts),
            "text_ends": _ends(texts),
            "categories": _joined([json.dumps(content["categories"]).encode()]),
            "videos": _joined([json.dumps(content.get("videos", [])).encode()]),
            "summary": _joined([json.dumps(summary).encode()]),
        }
    )


def _count(found: list[dict[str, Any]], summary: list[int]) -> None:
    """Add the annotations of an image to a summary."""
    objects = [annotation for annotation in found if not annotation.get("iscrowd")]
    classes = Counter(annotation.get("category_id") for annotation in objects)
    summary[0] += len(found)
    summary[1] += len(found) - len(objects)
    summary[2] += sum(not annotation.get("segmentation") for annotation in objects)
    summary[3] = max(summary[3], len(objects))
    summary[4] = max(summary[4], *classes.values(), 0)


def _joined(pieces: list[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(pieces), np.uint8)


def _ends(pieces: list[bytes]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, pieces)], dtype=np.int64)


def digest_of(path: Path, prefix: str = "") -> str:
    """What the index of a file is known by, or nothing for a file that is small or cannot be read."""
    try:
        if path.stat().st_size < SMALLEST:
            return ""
        with path.open("rb") as file:
            return prefix + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # reading it will say what is wrong
        return ""


def find(path: Path, digest: str) -> Index | None:
    """The index that an earlier opening of the file has left, if there is one for this content."""
    found = (_load(place, digest) for place in _places(path, digest))
    return next((index for index in found if index), None)


def save(index: Index, path: Path, digest: str) -> Index:
    """Leave an index for the next opening and map it; the same index where nothing can be written."""
    for place in _places(path, digest):
        partial = place.with_name(f"{place.name}.{os.getpid()}.partial")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            save_file(index.arrays, partial, {"format": FORMAT, "digest": digest})
            os.replace(partial, place)
        except (OSError, SafetensorError):
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        else:
            return _load(place, digest) or index
    return index


def _places(path: Path, digest: str) -> list[Path]:
    return [path.with_name(f"{path.name}.index"), cache_folder() / f"{digest}.index"]


def _load(file: Path, digest: str) -> Index | None:
    """Map an index; None where it is missing, damaged, of another version or of another content."""
    try:
        with safe_open(file, "pt") as opened:  # torch's tensors are mapped, numpy's would be copies
            if opened.metadata() != {"format": FORMAT, "digest": digest}:
                return None
            arrays = {name: opened.get_tensor(name).numpy() for name in ARRAYS}
    except (OSError, SafetensorError):
        return None
    return Index(arrays, file.absolute(), digest) if _fits(arrays) else None


def _fits(arrays: dict[str, NDArray[Any]]) -> bool:
    count = len(arrays["ids"])
    lengths = {"order": count, "sizes": count, "learnable": count, "name_ends": count + 1, "text_ends": count + 1}
    return (
        all(arrays[name].dtype == kind for name, kind in ARRAYS.items())
        and all(len(arrays[name]) == length for name, length in lengths.items())
        and all(arrays[f"{name}_ends"][-1] == len(arrays[f"{name}s"]) for name in ("name", "text"))
    )


def _map(file: Path, digest: str) -> Index:
    index = _load(file, digest)
    if index is None:
        raise UserError(f"{file} was changed while it was in use; start the command again")
    return index


@contextlib.contextmanager
def no_garbage() -> Iterator[None]:
    """Leave out the search for reference cycles: in millions of JSON values it takes long and finds nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
