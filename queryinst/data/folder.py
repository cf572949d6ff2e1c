"""A data folder that the project makes itself: it is there as a whole, and is what was asked for, or not at all."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.progress import track

from queryinst.errors import UserError, room

Write = Callable[[Path, str, Iterable[int]], None]  # a split below a folder, from the numbers of what is in it


def make_folder(root: Path, wanted: dict[str, Any], write: Write) -> None:
    """Make `root` unless it is there already: everything is written beside it and renamed at the end.

    Args:
        root: the folder.
        wanted: what it is a function of, its sizes `train` and `val` among it. `write` puts it into the annotation
            files, `annotations/instances_{train,val}.json`, as `info.made_from`.
        write: writes a split.

    Raises:
        UserError: `root` holds something else.
    """
    try:
        if root.exists() and any(root.iterdir()):
            _check_same(root, wanted)
            return
        root.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the data cannot be made in {root} ({error.strerror}); set data.root=FOLDER") from None
    with room(root), tempfile.TemporaryDirectory(prefix=f"{root.name}.partial-", dir=root.parent) as temporary:
        partial = Path(temporary) / root.name
        for split in ("train", "val"):
            title, hidden = f"making {root}: {split}", not sys.stdout.isatty()
            write(partial, split, track(range(wanted[split]), title, transient=True, disable=hidden))
        if root.exists():
            root.rmdir()
        try:
            partial.rename(root)
        except OSError:  # another process was faster
            _check_same(root, wanted)


def _check_same(root: Path, wanted: dict[str, Any]) -> None:
    try:
        found = json.loads((root / "annotations" / "instances_val.json").read_text())["info"]["made_from"]
    except (OSError, ValueError, KeyError, TypeError):
        found = None
    if found != wanted:
        raise UserError(
            f"{root} holds {'other data' if found is None else f'shapes made from {found}'}, not shapes made from "
            f"{wanted}: give another folder with data.root=FOLDER, or delete it and it is made again"
        )
