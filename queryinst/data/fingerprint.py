"""Which pictures a data set has: a digest that is quick enough to be taken every time.

The size of every picture counts, and the content of all of them up to `READ` bytes and `OPENED` files; of a larger set,
of as many, evenly spread over the names. There a picture that was changed and kept its size to the byte can go unseen.
"""

import hashlib
import json
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

READ, OPENED = 128_000_000, 10_000
NAMES = re.compile(rb'"file_names?"\s*:\s*(\[[^\]]*\]|"(?:[^"\\]|\\.)*")')


def pictures(annotations: Path, folder: Path) -> str:
    """A digest of the pictures that an annotation file names, COCO's or YouTube-VIS's.

    Where it is another kind of file, or a folder, it is one of everything in the folder of the images.
    """
    names = sorted(set(names_in(annotations))) if annotations.is_file() else []
    return content(folder, names or everything(folder))


def content(folder: Path, names: Sequence[str]) -> str:
    """A digest of these files: names, sizes, and content. One that is not there counts as such."""
    made, sizes = hashlib.sha256(), []
    for name in names:
        try:
            sizes.append(os.stat(os.path.join(folder, name)).st_size)
        except (OSError, ValueError):  # also where no file can be called so
            sizes.append(-1)
        made.update(f"{name}\0{sizes[-1]}\0".encode("utf-8", "surrogatepass"))
    every = max(1, -(-sum(sizes) // READ), -(-len(sizes) // OPENED))
    for name, size in list(zip(names, sizes, strict=True))[::every]:
        if size >= 0:
            try:
                with (folder / name).open("rb") as file:
                    made.update(hashlib.file_digest(file, "sha256").digest())
            except OSError:
                made.update(b"unreadable")
    return made.hexdigest()[:16]


def everything(folder: Path) -> list[str]:
    """The files below a folder, by their names from there."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def names_in(annotations: Path) -> Iterator[str]:
    """Every `file_name`, and every one of `file_names`, in a JSON file, without parsing the rest of it."""
    if not annotations.stat().st_size:
        return
    with annotations.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        place = text.find(b'"file_name')
        while place >= 0:
            found = NAMES.match(text, place)
            try:
                value = json.loads(found.group(1)) if found else []
            except ValueError:
                value = []
            yield from [value] if isinstance(value, str) else (name for name in value if isinstance(name, str))
            place = text.find(b'"file_name', found.end() if found else place + 1)
