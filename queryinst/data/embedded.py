"""The data sets that the project makes itself: which of them a configuration asks for."""

from pathlib import Path
from typing import Any

from queryinst.config import DataConfig
from queryinst.data import shapes, shapes_video


def make_embedded(data: DataConfig) -> None:
    """Make the embedded images or clips in `data.root` where they are asked for and not there. Raises UserError."""
    if data.shapes:
        shapes.make(Path(data.root), data.shapes)
    elif data.video and data.video.shapes:
        shapes_video.make(Path(data.root), data.video.shapes)


def fingerprint(data: DataConfig) -> dict[str, Any] | None:
    """What the embedded data is a function of; None where it is the user's own."""
    if data.shapes:
        return shapes.fingerprint(data.shapes)
    if data.video and data.video.shapes:
        return shapes_video.fingerprint(data.video.shapes)
    return None
