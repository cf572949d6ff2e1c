"""A split of somebody's one annotation file: a fifth of its images is kept for validation, once, and it is said.

The parts lie in FOLDER/queryinst_split or, where nothing can be written there, below the cache folder. They belong to
the content of the file: RECORD beside them has its SHA-256, and whoever finds it has nothing to do. The split is that
of `python -m queryinst.dataset split`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from queryinst.cache import cache_folder
from queryinst.config import DataConfig
from queryinst.data.layout import PARTS, Undivided, find
from queryinst.errors import UserError, room
from queryinst.locks import held

if TYPE_CHECKING:
    from queryinst.curation.read import Content

SHARES = {"train": 0.8, "val": 0.2}
SEED = 0
LEAST = 5  # images: of fewer, a fifth is none
COMPARED = 20_000  # images: looking for near-duplicates among more takes many minutes
RECORD = "split.json"
Grouping = tuple[list[list[int]], str]  # positions of images that should stay together, and what there is to say of it


class Made(NamedTuple):
    """The parts, and what there is to say of them."""

    parts: Mapping[str, "Content"]
    notes: Sequence[str]


def with_split(data: DataConfig) -> DataConfig:
    """The settings with the files that are there (`layout.find`), or with the parts of the only one.

    This writes also where nothing is trained (`dry_run`): which run it is depends on what is in the parts.

    Raises:
        UserError: as `layout.find`; or the file has a fault, too few images, or none that is there.
    """
    try:
        return find(data)
    except Undivided as only:
        root, parts = Path(data.root), _divided(Path(data.root), only)
        places = {f"{part}_annotations": parts / f"{part}.json" for part in SHARES}
        places |= {f"{part}_images": only.images for part in SHARES}
    values: dict[str, Any] = {
        name: (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()
        for name, path in places.items()
    }
    return dataclasses.replace(data, **values)


def _divided(root: Path, only: Undivided) -> Path:
    """The folder of the parts, made where it is not there."""
    state = only.annotations.stat()
    digest = _digest(only.annotations, (state.st_mtime_ns, state.st_size))
    shared = cache_folder() / "splits" / digest[:16]
    places = (root / PARTS, shared)
    found = _found(places, digest)
    if found is None:
        with _alone(shared.with_suffix(".lock"), only.annotations.name):
            found = _found(places, digest)
            if found is None:
                changed = bool(_made_of(places[0]))
                made = _parts(only)
                found = _written(places, made, digest, only)
                print(_said(root, only, found, made, changed), file=sys.stderr, flush=True)
    return found


@functools.cache
def _digest(path: Path, state: tuple[int, int]) -> str:
    """SHA-256 of a file, taken once in a process for each time and size of it: recipes ask for the data many times."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _found(places: Sequence[Path], digest: str) -> Path | None:
    """The folder that has the parts of a file with this content."""
    whole = (place for place in places if all((place / f"{part}.json").is_file() for part in SHARES))
    return next((place for place in whole if _made_of(place) == digest), None)


def _made_of(place: Path) -> str | None:
    """SHA-256 of the file whose parts are here; "" where they are not whole, None where nothing says so."""
    try:
        return str(json.loads((place / RECORD).read_text())["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


@contextlib.contextmanager
def _alone(lock: Path, name: str) -> Iterator[None]:
    """Let others wait, such as the jobs of a sweep. Without a lock all would make the same, at the same cost."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError:
        yield
        return
    with held(lock, f"split {name}", f"another process splits {name}: waiting"):
        yield


def _parts(only: Undivided) -> Made:
    """Divide a file. Raises UserError where training could not use it."""
    from queryinst.curation.read import first
    from queryinst.curation.split import lacking  # torch and Pillow, for which only this once anybody waits
    from queryinst.data import validation
    from queryinst.data.coco import read_json
    from queryinst.data.index import no_garbage
    from queryinst.data.repair import repair

    path = only.annotations
    with no_garbage():
        content = read_json(path)
        repair(content)
        validation.check_content(content, path)
        count = len(content["images"])
        if count < LEAST:
            raise UserError(
                f"{path} has {count} images, and {LEAST} are needed to keep a fifth for validation: add images, or set "
                "data.train_annotations, data.train_images, data.val_annotations and data.val_images"
            )
        made, note = _dealt(content, _groupings(path, only.images, [image["file_name"] for image in content["images"]]))
        without = [
            f"{part} has no object of {len(names)} classes ({first(list(names))})"
            for part, names in lacking(content, made).items()
            if names
        ]
    return Made(made, [note, *without])


def _dealt(content: "Content", groupings: Iterable[Grouping]) -> tuple[dict[str, "Content"], str]:
    """The parts, by the first grouping that gives each at least half of its share, and the sentence of that.

    A large group leaves a part with next to nothing; and so do classes that are in one image each, so that the objects
    are then dealt out as if they were of one class. With each image alone it always works.
    """
    from queryinst.curation.read import part_of
    from queryinst.curation.split import split

    count = len(content["images"])
    for together, note in groupings:
        for classes in (True, False):
            plain = [] if classes else [annotation | {"category_id": 0} for annotation in content["annotations"]]
            seen = content if classes else content | {"annotations": plain}
            made = {part: one["images"] for part, one in split(seen, SHARES, together, SEED).items()}
            if all(len(made[part]) >= share * count / 2 for part, share in SHARES.items()):
                return {part: part_of(content, images) for part, images in made.items()}, note
    raise AssertionError("an image alone fits into any part")


def _groupings(path: Path, folder: Path, names: Sequence[str]) -> Iterator[Grouping]:
    """Images that should stay together, the best grouping first, at last each alone."""
    from queryinst.curation.duplicates import NEAR, groups, readable_hashes
    from queryinst.data.names import existing

    each = [[place] for place in range(len(names))]
    if len(names) > COMPARED:
        yield each, f"near-duplicates are not looked for among more than {COMPARED} images"
        return
    paths = [existing(folder / name) for name in names]
    if not any(os.path.exists(image) for image in paths):
        raise UserError(
            f"none of the {len(paths)} images of {path} is in {folder}, first {paths[0]}: put them there, or make a "
            f"split yourself: {_command(path, Path('FOLDER'))}"
        )
    readable, codes = readable_hashes(paths)
    alone = [[place] for place in sorted(set(range(len(paths))) - set(readable))]
    unread = f" ({len(alone)} that cannot be read count as unlike all others)" if alone else ""
    for distance, what in ((NEAR, "near-duplicates"), (0, "images that look the same")):
        found = [[readable[place] for place in group] for group in groups(codes, distance)]
        several = [group for group in found if len(group) > 1]
        said = f"no {what} among them"
        if several:
            said = f"{len(several)} groups of {what} ({sum(map(len, several))} images) are each in one part"
        yield [*found, *alone], said + unread
    largest = max(len(group) for group in found)
    yield each, f"{largest} images look the same, too many to keep in one part, so that both parts have some of them"


def _written(places: Sequence[Path], made: Made, digest: str, only: Undivided) -> Path:
    """Leave the parts in the first folder that takes them. Raises UserError where none does."""
    why = ""
    for place in places:
        try:
            if place.exists() and _made_of(place) is None and any(place.iterdir()):
                why = f"{place} has files of somebody else"
                continue
            with room(place):
                _write(place, made.parts, {"made_of": only.annotations.name, "sha256": digest, "seed": SEED})
        except OSError as error:
            why = error.strerror or str(error)
        else:
            return place
    raise UserError(
        f"the parts of {only.annotations} can be written neither to {places[0]} nor to {places[1]} ({why}): set "
        f"QUERYINST_CACHE to a folder that can be written, or make a split yourself: "
        f"{_command(only.annotations, only.images)}"
    )


def _write(place: Path, parts: Mapping[str, "Content"], record: dict[str, Any]) -> None:
    """Write beside, and then put in place: whoever is killed in between leaves no record that fits."""
    place.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".partial-", dir=place))
    try:
        for part, content in parts.items():
            (beside / f"{part}.json").write_text(json.dumps(content))
        for name, values in (("begun", record | {"sha256": ""}), (RECORD, record)):
            (beside / name).write_text(json.dumps(values, indent=2) + "\n")
        os.replace(beside / "begun", place / RECORD)
        for name in (*(f"{part}.json" for part in parts), RECORD):
            os.replace(beside / name, place / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _said(root: Path, only: Undivided, place: Path, made: Made, changed: bool) -> str:
    """What was done, in a line, and how to do it otherwise."""
    name = only.annotations.relative_to(root)
    if changed:
        what = f"{name} in {root} has changed since it was split, and is split anew"
    elif only.says_train:
        what = f"{root} has no validation set, so a fifth of {name} is kept for that"
    else:
        what = f"{root} has one annotation file, {name}, and no split, so a fifth of it is kept for validation"
    counts = {part: len(content["images"]) for part, content in made.parts.items()}
    return (
        f"note: {what}: {counts['train']} images to train on and {counts['val']} to validate with, in {place}; "
        f"{'; '.join(made.notes)}. Another split: {_command(only.annotations, only.images)}, or set "
        "data.train_annotations, data.train_images, data.val_annotations and data.val_images"
    )


def _command(annotations: Path, images: Path) -> str:
    """The line that makes a split as somebody wants it, beside the file, where it goes before ours."""
    words = [str(annotations), "--images", str(images), "--parts", "train=0.8", "val=0.2", "--seed", "1"]
    return f"python -m queryinst.dataset split {shlex.join(words)}"
