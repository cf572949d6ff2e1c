"""What a prediction is asked to look at: an image, a folder, a pattern of file names, a video, a camera.

No torch in it, so that a wrong `source` is said at once.
"""

import glob
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from queryinst.errors import UserError

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
USUAL_RATE = 30.0  # frames a second, where a video does not say, or says what cannot be
SLOWEST, FASTEST = 0.01, 1000  # of a film: slower ones, such as a frame a day, no MP4 file can hold
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg keeps silent: what is wrong is said in our own words


class Files:
    """Image files in order of their names.

    Attributes:
        names: of the files below the folder that has all of them.
    """

    unit, live = "image", False

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        root = os.path.commonpath([path.absolute().parent for path in paths])
        self.names = [path.absolute().relative_to(root).as_posix() for path in paths]
        ids = {int(path.stem) for path in paths if path.stem.isdecimal()}
        self._by_id = len(ids) == len(paths)  # as COCO names its images

    def __iter__(self) -> Iterator[Path]:
        return iter(self.paths)

    @property
    def total(self) -> int:
        return len(self.paths)

    def name(self, number: int) -> str:
        """What an image's own files are called by."""
        return self.names[number]

    def describe(self, number: int) -> dict[str, Any]:
        """What the entries of an image say of it."""
        image_id = int(self.paths[number].stem) if self._by_id else number + 1
        return {"file_name": self.names[number], "image_id": image_id}


class Video:
    """The frames of a video file or of a camera, once. Raises UserError where there is none.

    Attributes:
        total: frames as the file says, which may be wrong; None where it does not say.
    """

    unit = "frame"

    def __init__(self, source: str) -> None:
        self.live = _is_camera(source)
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        self._capture = cv2.VideoCapture(int(source) if self.live else source)
        if not self._capture.isOpened():
            if self.live:
                raise UserError(
                    f"source={source}: there is no camera {source} here; give an image, a folder or a video"
                )
            raise UserError(f"source={source} cannot be read as a video; it may be damaged, or no video")
        self.title = f"camera-{source}" if self.live else Path(source).name
        rate, count = (self._capture.get(key) for key in (cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT))
        self.rate = rate if SLOWEST <= rate <= FASTEST else USUAL_RATE
        self.total = int(count) if count >= 1 and not self.live else None
        self._seconds: list[float] = []

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) RGB each."""
        began = time.monotonic()
        try:
            while True:
                done, frame = self._capture.read()
                if not done:
                    return
                self._seconds.append(time.monotonic() - began if self.live else len(self._seconds) / self.rate)
                yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        finally:
            self._capture.release()

    def seconds(self, number: int) -> float:
        """When a frame that was read is shown."""
        return self._seconds[number]

    def name(self, number: int) -> str:
        """What a frame's own files are called by."""
        return f"{self.title}-{number:06d}"

    def describe(self, number: int) -> dict[str, Any]:
        """What the entries of a frame say of it."""
        return {"file_name": self.title, "frame": number, "image_id": number}


def open_source(source: str) -> Files | Video:
    """What `source` means: a file, a folder, a pattern such as `photos/*.jpg`, or the number of a camera.

    Raises:
        UserError: there is nothing of that kind.
    """
    path = Path(source)
    if _is_camera(source) or (path.is_file() and (path.suffix.lower() in VIDEOS or _is_animated(path))):
        return Video(source)
    if path.is_file():
        return Files([path])
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in IMAGES)
    elif glob.has_magic(source):
        found = sorted(Path(one) for one in glob.glob(source, recursive=True) if Path(one).suffix.lower() in IMAGES)
    else:
        raise UserError(f"source={source} does not exist; give an image, a folder of images, a pattern, a video or 0")
    if not found:
        raise UserError(f"source={source} has no images; looked for {', '.join(IMAGES)}")
    return Files(found)


def _is_camera(source: str) -> bool:
    return source.isdecimal() and not Path(source).exists()


def _is_animated(path: Path) -> bool:
    if path.suffix.lower() != ".gif":
        return False
    try:
        with Image.open(path) as picture:
            return bool(getattr(picture, "is_animated", False))
    except Exception:  # not an image at all, which is said when it is read
        return False
