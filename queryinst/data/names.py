"""File names: the order that people mean, and an image that an annotation file calls otherwise than the disk does."""

import os
import re
import unicodedata
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote, unquote

FORMS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")  # Macs write é as two characters, others as one


def existing(path: Path) -> Path:
    """The file of this path or, where there is none, the one that another tool means by it; else the path itself.

    That is: another Unicode form, backslashes between folders, `%20` for a space or the other way round, a folder named
    both in the file's name and in the place of the images (`train/train/x.jpg`).
    """
    if _exists(path):
        return path
    return next((other for other in _meant(path) if _exists(other)), path)


def _exists(path: Path) -> bool:
    try:
        return os.path.exists(path)
    except ValueError:  # no file can be called so
        return False


def _quoted(path: str) -> str:
    return quote(path, safe="/:\\", errors="surrogatepass")


def _meant(path: Path) -> Iterator[Path]:
    """Other ways to write a path, likelier ones first."""
    written = dict.fromkeys([str(path), str(path).replace("\\", "/")])
    decoded = dict.fromkeys(way for one in written for way in (one, unquote(one), _quoted(one)))
    spelled = dict.fromkeys(way for one in decoded for way in (one, *(unicodedata.normalize(f, one) for f in FORMS)))
    for way in spelled:
        yield Path(way)
    for way in spelled:
        parts = PurePosixPath(way).parts
        for first, second in combinations(range(len(parts)), 2):
            if parts[first] == parts[second]:
                yield Path(*parts[:first], *parts[second:])


def natural(name: str) -> list[tuple[int, str]]:
    """A key for the order of names with numbers by size, however many digits they have: 2.png before 10.png."""
    pieces = (piece.lstrip("0") if piece.isdigit() else piece for piece in re.findall(r"\d+|\D+", name))
    return [(len(piece) if piece.isdigit() or not piece else 0, piece) for piece in pieces]
