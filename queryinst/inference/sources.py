"""What a prediction is asked to look at: an image, a folder, a pattern of file names, a video, a camera.

No torch in it, so that a wrong `source` is said at once.
"""

import functools
import glob
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from queryinst.data.names import natural
from queryinst.errors import UserError

FORMATS = (  # Pillow's names; HEIF where somebody has registered pillow-heif
    *("AVIF", "BMP", "GIF", "HEIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TGA", "TIFF", "WEBP"),
)
IMAGES = (
    *(".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
USUAL_RATE = 30.0  # frames a second, where a video does not say, or says what cannot be
SLOWEST, FASTEST = 0.01, 1000  # of a film: slower ones, such as a frame a day, no MP4 file can hold
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg keeps silent: what is wrong is said in our own words


class Files:
    """Image files in order of their names.

    Attributes:
        names: of the files below the folder that has all of them.
        left_out: names of files beside them that are no images, or of a kind that cannot be read.
    """

    unit, live = "image", False

    def __init__(self, paths: list[Path], left_out: Sequence[str] = ()) -> None:
        self.paths, self.left_out = paths, list(left_out)
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
        self._dated = SLOWEST <= rate <= FASTEST  # a file that says nonsense of its rate says so of times, too
        self.rate = rate if self._dated else USUAL_RATE
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
                self._seconds.append(time.monotonic() - began if self.live else self._shown())
                yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        finally:
            self._capture.release()

    def _shown(self) -> float:
        """When the frame just read is shown: as the file says, where that goes on, else as the rate says."""
        said = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if not self._seconds:
            self._first = said
            return 0.0
        goes_on = self._dated and said - self._first > self._seconds[-1]
        return said - self._first if goes_on else self._seconds[-1] + 1 / self.rate

    def seconds(self, number: int) -> float:
        """When a frame that was read is shown."""
        return self._seconds[number]

    def name(self, number: int) -> str:
        """What a frame's own files are called by."""
        return f"{self.title}-{number:06d}"

    def describe(self, number: int) -> dict[str, Any]:
        """What the entries of a frame say of it."""
        return {
            "file_name": self.title,
            "frame": number,
            "image_id": number,
            "seconds": round(self.seconds(number), 3),
        }


class Animation(Video):
    """The frames of an animated GIF, WebP, AVIF or PNG, each shown as long as the file says.

    Attributes:
        total: frames of the file.
    """

    live = False

    def __init__(self, path: Path) -> None:
        self.path, self.title = path, path.name
        self._seconds = []
        durations = []
        with Image.open(path, formats=_formats()) as picture:
            self.total = int(getattr(picture, "n_frames", 1))
            for number in range(self.total):
                picture.seek(number)
                picture.load()  # of a WebP the durations are known after it
                durations.append(picture.info.get("duration") or 1000 / USUAL_RATE)
        self._begins = [milliseconds / 1000 for milliseconds in itertools.accumulate(durations, initial=0)]
        rate = self.total / self._begins[-1]
        self.rate = rate if SLOWEST <= rate <= FASTEST else USUAL_RATE

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        with Image.open(self.path, formats=_formats()) as picture:
            for number in range(self.total or 0):
                picture.seek(number)
                self._seconds.append(self._begins[number])
                yield np.asarray(picture.convert("RGB"))


def open_source(source: str) -> Files | Video:
    """What `source` means: a file, a folder, a pattern such as `photos/*.jpg`, or the number of a camera.

    Raises:
        UserError: there is nothing of that kind.
    """
    path = Path(source).expanduser()
    if _is_camera(source):
        return Video(source)
    if path.is_file():
        return _of_file(path)
    if path.is_dir():
        found = list(path.iterdir())
    elif glob.has_magic(source):
        found = [Path(one) for one in glob.glob(str(path), recursive=True)]
    else:
        raise UserError(f"source={source} does not exist; give an image, a folder of images, a pattern, a video or 0")
    seen = sorted((one for one in found if one.name[0] != "."), key=lambda one: natural(str(one)))
    if not path.is_dir():
        seen = [one for one in seen if one.is_file()]  # of a pattern, what is in folders was found as well
    images = [one for one in seen if one.suffix.lower() in IMAGES or _frames(one)]
    known = set(images)
    left_out = [f"{one.name}{'/' * one.is_dir()}" for one in seen if one not in known]
    if not images:
        also = f"; it has {', '.join(left_out[:5])}" if left_out else ""
        raise UserError(f"source={source} has no images; looked for {', '.join(IMAGES)}{also}")
    return Files(images, left_out)


def _of_file(path: Path) -> Files | Video:
    """A file by its content; where that says nothing, by how its name ends."""
    frames, suffix = _frames(path), path.suffix.lower()
    if frames > 1 and suffix not in (".tif", ".tiff", ".mpo", ".jpg", ".jpeg"):  # pages, or two views of one thing
        return Animation(path)
    if frames or suffix in IMAGES or not (suffix in VIDEOS or _is_film(path)):
        return Files([path])
    return Video(str(path))


def _is_camera(source: str) -> bool:
    return source.isdecimal() and not Path(source).exists()


def _frames(path: Path) -> int:
    """How many an image file has; 0 where it is no image that can be read."""
    try:
        with Image.open(path, formats=_formats()) as picture:
            return int(getattr(picture, "n_frames", 1))
    except Exception:  # not an image at all, which is said when it is read
        return 0


@functools.cache
def _formats() -> list[str]:
    """Those of `FORMATS` that Pillow has here."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _is_film(path: Path) -> bool:
    """Whether OpenCV finds a frame in a file."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    capture = cv2.VideoCapture(str(path))
    try:
        return bool(capture.isOpened() and capture.read()[0])
    finally:
        capture.release()
