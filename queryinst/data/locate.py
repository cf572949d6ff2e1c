"""Where a split lies on disk, and what to tell the user when it does not."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from queryinst.config import DataConfig
from queryinst.errors import UserError


class Located(NamedTuple):
    """Paths of one split."""

    annotations: Path  # the COCO or YouTube-VIS file
    images: Path  # the folder
    hint: str  # ends the sentence where one of the two is not there


def locate(data: DataConfig, split: str, hint: str | None = None) -> Located:
    """The paths of "train" or "val". Raises UserError where even the root does not exist."""
    root = Path(data.root)
    source = "YouTube-VIS" if data.video else "COCO"
    address = "https://youtube-vos.org/dataset/vis" if data.video else "https://cocodataset.org/#download"
    hint = hint or (
        f" (data.root={data.root}; set data.root=FOLDER, data.{split}_annotations=FILE and data.{split}_images=FOLDER "
        f"to yours; {source} itself is at {address})"
    )
    if not root.is_dir():
        raise UserError(f"the data folder {root} does not exist{hint}")
    images, annotations = (
        (data.train_images, data.train_annotations) if split == "train" else (data.val_images, data.val_annotations)
    )
    return Located(root / annotations, root / images, hint)


def doctor_command(root: Path, places: Mapping[str, tuple[Path, Path]]) -> str:
    """The line that looks at a data set, which training takes too with another verb.

    Args:
        root: the data folder.
        places: annotation file and folder of images of "train" and "val"; they may lie outside the root.
    """
    words = [_typed("data.root", str(root))]
    for split, pair in places.items():
        for name, path in zip(("annotations", "images"), pair, strict=True):
            inside = path.relative_to(root) if path.is_relative_to(root) else path.absolute()
            words.append(_typed(f"data.{split}_{name}", inside.as_posix()))
    return " ".join(["now: python -m queryinst.doctor data=coco", *words])


def _typed(key: str, value: str) -> str:
    """A setting as it is typed: quoted for Hydra where it has signs of Hydra's, and for the shell."""
    plain = re.fullmatch(r"[\w./:@-]+( [\w./:@-]+)*", value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return shlex.quote(f"{key}={value}" if plain else f'{key}="{escaped}"')
