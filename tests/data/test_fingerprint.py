"""The digest of a data set's pictures: what it sees, and what it costs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queryinst.data import fingerprint
from queryinst.data.fingerprint import content, everything, names_in, pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "deep/c.png", "other.txt"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return tmp_path / "images"


def annotated(folder: Path, text: str | bytes) -> list[str]:
    path = folder.parent / "labels.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(names_in(path))


NAMED: dict[str, tuple[Any, list[str]]] = {
    "images": ({"images": [{"id": 1, "file_name": "a.png"}, {"file_name": "b.png"}]}, ["a.png", "b.png"]),
    "videos": ({"videos": [{"file_names": ["v/0.png", "v/1.png"]}, {"file_names": []}]}, ["v/0.png", "v/1.png"]),
    "escaped": ({"file_name": 'a"b\\c\u00e4\U0001f600.png'}, ['a"b\\c\u00e4\U0001f600.png']),
    "no text": ([{"file_name": None}, {"file_name": 3}, {"file_names": [None, "a"]}, {"file_name": "b"}], ["a", "b"]),
    "said": ({"caption": 'a "file_name": "x.png" inside', "file_name": "a.png"}, ["a.png"]),
    "longer": ({"file_name_old": "x.png", "file_namess": "y.png", "file_name": "a.png"}, ["a.png"]),
    "none": ({"images": []}, []),
}


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("plain", [True, False])
def test_names_in_a_file_of_json(folder: Path, kind: str, indent: int | None, plain: bool):
    value, expected = NAMED[kind]
    assert annotated(folder, json.dumps(value, indent=indent, ensure_ascii=plain)) == expected


def test_files_that_are_no_json_have_no_names(folder: Path):
    assert annotated(folder, "") == []
    assert annotated(folder, b"\xff\xfe\x00") == []
    assert annotated(folder, '"file_name": "cut sho') == []
    assert annotated(folder, '"file_name"') == []


CHANGES: dict[str, Callable[[Path], Any]] = {
    "content": lambda folder: (folder / "a.png").write_text("CONTENT of a.png"),
    "size": lambda folder: (folder / "a.png").write_text("content of a.png, longer"),
    "gone": lambda folder: (folder / "a.png").unlink(),
    "name": lambda folder: (folder / "a.png").rename(folder / "d.png"),
    "exchanged": lambda folder: (folder / "a.png").write_text((folder / "b.png").read_text()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_named_picture_is_seen(folder: Path, change: str):
    names = ["a.png", "b.png", "deep/c.png"]
    before = content(folder, names)
    assert content(folder, names) == before
    CHANGES[change](folder)
    assert content(folder, names) != before


def test_times_and_places_do_not_matter(folder: Path):
    before = content(folder, ["a.png"])
    os.utime(folder / "a.png", (1, 1))
    (folder / "b.png").unlink()
    assert content(folder.rename(folder.with_name("moved")), ["a.png"]) == before


def test_only_pictures_that_are_named_count_or_all_where_none_is(folder: Path):
    path = folder.parent / "labels.json"
    path.write_text('{"file_name": "b.png"} {"file_name": "a.png"} {"file_name": "a.png"}')
    assert pictures(path, folder) == content(folder, ["a.png", "b.png"])
    path.write_text("<xml/>")
    assert everything(folder) == ["a.png", "b.png", "deep/c.png", "other.txt"]
    assert pictures(path, folder) == pictures(folder, folder) == content(folder, everything(folder))
    assert pictures(path, folder / "nowhere") == content(folder, [])


def test_names_that_no_file_can_have(folder: Path):
    odd = ["", "a\0b", "x" * 5000, "\ud800", "../images/a.png", "deep"]
    assert content(folder, odd) == content(folder, odd)
    assert content(folder, odd) != content(folder, odd[1:])


def opened(monkeypatch: pytest.MonkeyPatch, folder: Path, names: list[str]) -> list[str]:
    found: list[str] = []
    real = Path.open

    def counted(path: Path, *arguments: Any) -> Any:
        found.append(path.name)
        return real(path, *arguments)

    monkeypatch.setattr(Path, "open", counted)
    content(folder, names)
    return found


@pytest.mark.parametrize(
    ("read", "files", "expected"),
    [(1000, 8, "01234567"), (1000, 4, "0246"), (1000, 3, "036"), (40, 8, "0246"), (39, 8, "036"), (80, 8, "01234567")],
)
def test_of_a_large_set_some_are_read_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: int, files: int, expected: str
):
    names = list("01234567")
    for name in names:
        (tmp_path / name).write_text("ten bytes.")
    monkeypatch.setattr(fingerprint, "READ", read)
    monkeypatch.setattr(fingerprint, "OPENED", files)
    assert "".join(opened(monkeypatch, tmp_path, names)) == expected


def test_of_a_picture_that_is_not_read_the_size_counts(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fingerprint, "OPENED", 1)
    names = ["a.png", "b.png"]
    before = content(folder, names)
    (folder / "b.png").write_text("CONTENT of b.png")
    assert content(folder, names) == before
    (folder / "b.png").write_text("longer than it was")
    assert content(folder, names) != before


def test_a_picture_that_cannot_be_read_counts_as_such(folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = content(folder, ["a.png"])

    def refused(path: Path, *arguments: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    assert len({before, content(folder, ["a.png"]), content(folder, ["gone.png"])}) == 3
