"""Where a split lies on disk, and what to tell the user when it does not."""

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
