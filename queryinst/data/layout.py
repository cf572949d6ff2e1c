"""Which files of a folder are the data, where they are not named as COCO's."""

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from queryinst.config import DataConfig
from queryinst.data.fingerprint import names_in
from queryinst.data.names import existing
from queryinst.errors import UserError

ROLES = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
OTHERS = ("captions", "keypoints", "panoptic", "stuff", "image_info")  # COCO's files that have no instances
DEPTH, FILES = 3, 2000  # how far below the root, and how many JSON files, are looked at
SNIFFED = 65_536  # bytes at the beginning and at the end of a file
LOOKED_FOR = 20  # images of a file that say in which folder they are
NAMED = ("train_annotations", "train_images", "val_annotations", "val_images")
ROBOFLOW = "_annotations.coco.json"
PARTS = "queryinst_split"  # folder of the split that training makes where there is none (queryinst.studies.own_split)


class Undivided(UserError):  # noqa: N818 - it is a state of a folder
    """There is one annotation file and none to validate with. The sentence is for whoever cannot divide it."""

    def __init__(self, sentence: str, annotations: Path, images: Path, says_train: bool) -> None:
        super().__init__(sentence)
        self.annotations, self.images = annotations, images
        self.says_train = says_train  # by its name


def find(data: DataConfig) -> DataConfig:
    """The settings with the files and folders that are there, where those of COCO's names are not.

    What is found: COCO files with instances, up to three folders deep, whose name or folder says train, val, valid,
    validation or test (Roboflow's `train/_annotations.coco.json`, `annotations/instances_val.json`, `val.json`), and
    for each the folder that has its images. Where there is no validation set, the test set is it. Settings that
    somebody has changed stay as they are, and the rest is found beside them; so do data that is made, video and a
    reader of one's own.

    Raises:
        Undivided: there is one file, which does not say that it is another set than that for training.
        UserError: several files could be the one, or there is none to train on.
    """
    root, standard = Path(data.root), DataConfig()
    given = [name for name in NAMED if getattr(data, name) != getattr(standard, name)]
    if data.shapes or data.video or data.reader.name != standard.reader.name or not root.is_dir():
        return data
    if given:
        return data if len(given) == len(NAMED) else _completed(data, root, given)
    if (root / data.train_annotations).exists() and (root / data.val_annotations).exists():
        return data
    found = _by_role(root)
    if not found:
        return data  # what is missing is said where the files are opened
    chosen = {split: _only(root, split, paths) for split, paths in found.items() if split}
    train, val = chosen.get("train"), chosen.get("val", chosen.get("test"))
    if train is None or val is None:
        raise _incomplete(root, found, train)
    values = {"train_annotations": train, "val_annotations": val}
    values |= {"train_images": images_of(root, train), "val_images": images_of(root, val)}
    return _placed(data, root, values)


def _completed(data: DataConfig, root: Path, given: list[str]) -> DataConfig:
    """The settings with what can be found beside those that are given, where COCO's own name is not there."""
    values: dict[str, Path] = {}
    found = _by_role(root, {root / getattr(data, name) for name in given})
    for split in ("train", "val"):
        annotations, images = f"{split}_annotations", f"{split}_images"
        path = root / getattr(data, annotations)
        if annotations not in given and not path.exists():
            likely = found.get(split) or (found.get("test") if split == "val" else None)
            if not likely:
                continue
            path = values[annotations] = _only(root, split, likely)
        if images not in given and not (root / getattr(data, images)).is_dir() and path.is_file():
            values[images] = images_of(root, path, split)
    return _placed(data, root, values)


def _placed(data: DataConfig, root: Path, values: dict[str, Path]) -> DataConfig:
    """The settings with paths as they say them: from the root, where they are below it."""
    places: dict[str, Any] = {
        name: (path.relative_to(root) if path.is_relative_to(root) else path.absolute()).as_posix()
        for name, path in values.items()
    }
    return dataclasses.replace(data, **places)


def _incomplete(root: Path, found: dict[str, list[Path]], train: Path | None) -> UserError:
    """What is wrong where there is no file to train on, or none to validate with."""
    names = ", ".join(str(path.relative_to(root)) for path in itertools.chain(*found.values()))
    missing = "train" if train is None else "val"
    sentence = (
        f"{root} has {names}, and none that says by its name that it is the "
        f"{'training' if missing == 'train' else 'validation'} set: set data.{missing}_annotations=FILE and "
        f"data.{missing}_images=FOLDER, from {root}"
    )
    nameless = found.get("", [])
    only = train or (nameless[0] if len(nameless) == 1 else None)
    if only is None or len(found) > 1:  # of several files it is not clear what each is
        return UserError(sentence)
    return Undivided(sentence, only, images_of(root, only), says_train=train is not None)


def annotation_files(root: Path) -> list[Path]:
    """COCO files with instances, sorted; of COCO's own kinds `instances_*` only, and no parts that training made."""
    depths = ("/".join(["*"] * level + ["*.json"]) for level in range(DEPTH))
    paths = itertools.islice((path for pattern in depths for path in sorted(root.glob(pattern))), FILES)
    theirs = (path for path in paths if PARTS not in path.relative_to(root).parts)
    return [path for path in theirs if not any(word in path.stem for word in OTHERS) and _is_coco(path)]


def _by_role(root: Path, without: Collection[Path] = ()) -> dict[str, list[Path]]:
    """The annotation files below `root` by their `role`."""
    found: dict[str, list[Path]] = {}
    for path in annotation_files(root):
        if path not in without:
            found.setdefault(role(path.relative_to(root)), []).append(path)
    return found


def role(path: Path) -> str:
    """train, val, test, or "" where neither the file nor its folders say so. The file's own name counts first."""
    for part in (path.stem, *reversed(path.parts[:-1])):
        words = re.split(r"[^a-z]+", part.lower())
        for split, names in ROLES.items():
            if any(name in words for name in names):
                return split
    return ""


def images_of(root: Path, annotations: Path, split: str = "") -> Path:
    """The folder that has the first images of an annotation file, near it or below `root`; its own where none has.

    `split` is whose file it is, where its name does not say so.
    """
    names = list(itertools.islice(names_in(annotations), LOOKED_FOR))
    candidates = list(_candidates(root, annotations, split))
    counts = [sum(existing(folder / name).is_file() for name in names) for folder in candidates]
    return candidates[counts.index(max(counts))]


def _candidates(root: Path, annotations: Path, split: str) -> Iterator[Path]:
    """Folders where images may be, the likely ones first."""
    here = annotations.parent
    below = annotations.relative_to(root) if annotations.is_relative_to(root) else Path(*annotations.parts[-2:])
    split = role(below) or split
    named = [annotations.stem.removeprefix("instances_"), *ROLES.get(split, ())]
    for base in dict.fromkeys((here, here.parent if here != root else root, root)):
        for name in ("", *named):
            for folder in (base / name, base / name / "images", base / "images" / name, base / "JPEGImages"):
                if folder.is_dir():
                    yield folder


def _is_coco(path: Path) -> bool:
    """Whether a JSON file has the lists of COCO, by its first and last bytes: it may have gigabytes."""
    try:
        with path.open("rb") as file:
            text = file.read(SNIFFED)
            file.seek(max(0, path.stat().st_size - SNIFFED))
            text += file.read(SNIFFED)
    except OSError:
        return False
    keys = (b'"images"', b'"annotations"', b'"categories"', b'"segmentation"', b'"file_name"')
    return text.lstrip()[:1] == b"{" and sum(key in text for key in keys) >= 2


def _only(root: Path, split: str, paths: list[Path]) -> Path:
    if len(paths) == 1:
        return paths[0]
    # COCO's own name, or Roboflow's: what else is there may be a part or a filtered copy of it.
    for named in ("instances_*.json", ROBOFLOW):
        plain = [path for path in paths if path.match(named)]
        if len(plain) == 1:
            return plain[0]
    names = ", ".join(str(path.relative_to(root)) for path in paths)
    kind = {"train": "training", "val": "validation"}.get(split, split)
    setting = "train" if split == "train" else "val"
    raise UserError(f"{root} has several files for the {kind} set ({names}): set data.{setting}_annotations=FILE")
