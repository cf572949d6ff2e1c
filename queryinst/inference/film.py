"""Pictures as an MP4 file: H.264 where PyAV is installed, which every browser plays; else MPEG-4 by OpenCV."""

import importlib.util
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2

from queryinst.errors import UserError
from queryinst.inference.pictures import Picture

TICKS = 90_000  # a second


class Film:
    """A video file that is written picture by picture; all have the size of the first.

    Args:
        path: `.mp4`.
        rate: pictures a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path, self.rate = path, rate
        self._writer: Any = None

    def add(self, picture: Picture, seconds: float) -> None:
        """Append a picture (H, W, 3) RGB to be shown at `seconds`, later than the one before. Raises UserError."""
        height, width = picture.shape[:2]
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            try:  # the writers say it late, or not at all
                self.path.open("wb").close()
            except OSError as error:
                raise UserError(f"{self.path} cannot be written ({error.strerror}); give another folder") from None
            writer = _H264 if importlib.util.find_spec("av") else _Mpeg4
            self._writer = writer(self.path, self.rate, even.shape[0], even.shape[1])
        self._writer.add(even, seconds)

    def close(self) -> None:
        """Finish the file. Without pictures there is none."""
        if self._writer is not None:
            self._writer.close()


class _H264:
    def __init__(self, path: Path, rate: float, height: int, width: int) -> None:
        import av

        self._av = av
        self._file = av.open(str(path), "w", options={"movflags": "faststart"})
        self._stream: Any = self._file.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001))
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._stream.options = {"crf": "20", "preset": "veryfast"}

    def add(self, picture: Any, seconds: float) -> None:
        frame = self._av.VideoFrame.from_ndarray(picture, "rgb24")
        frame.pts, frame.time_base = round(seconds * TICKS), Fraction(1, TICKS)
        self._file.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._file.mux(self._stream.encode(None))
        self._file.close()


class _Mpeg4:
    def __init__(self, path: Path, rate: float, height: int, width: int) -> None:
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
        self._rate, self._written = rate, 0
        self._last: Any = None

    def add(self, picture: Any, seconds: float) -> None:
        """It has one rate: a picture that is shown longer is written several times."""
        while self._last is not None and self._written < round(seconds * self._rate):
            self._write(self._last)
        self._last = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        self._write(self._last)

    def _write(self, picture: Any) -> None:
        self._writer.write(picture)
        self._written += 1

    def close(self) -> None:
        self._writer.release()
