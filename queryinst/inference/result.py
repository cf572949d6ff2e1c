"""What was found in one image, in the forms that people want it in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from queryinst.errors import UserError, fullness
from queryinst.evaluation.coco import rles_of, to_coco
from queryinst.inference.pictures import Picture, read
from queryinst.ops import masks as mask_ops
from queryinst.structures import Detections
from queryinst.visualize import draw

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class Classes:
    """What a model was trained on: label k is category `ids[k]`, called `names[k]`."""

    ids: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The D instances found in one image, best first, in pixels of the image as it was given.

    Masks are made when they are asked for, and kept. `result[which]` are some of the instances: a bool array (D,),
    positions, a slice or one position; `result[result.scores > 0.5]`.

    Attributes:
        detections: the same as tensors on the CPU.
        classes: of the model.
        path: the image's file, where it was one.
        pixels: the image itself, where it is still in memory.
        number: of the frame in its video, from 0; else the place of the image among all that were given.
    """

    detections: Detections
    classes: Classes
    path: Path | None = None
    pixels: Picture | None = None
    number: int = 0

    def __repr__(self) -> str:
        found = ", ".join(f"{number} {name}" for name, number in Counter(self.names).most_common())
        height, width = self.size
        return f"Result({self.path.name if self.path else self.number}, {width}x{height}: {found or 'nothing'})"

    def __len__(self) -> int:
        return len(self.detections.scores)

    def __getitem__(self, which: int | slice | Sequence[int] | NDArray[Any]) -> Result:
        rows = np.atleast_1d(np.arange(len(self))[which])
        some = replace(self, detections=self.detections.take(torch.from_numpy(rows)))
        for name in ("local_masks", "rles"):  # what was made is not made again
            if name in self.__dict__:
                some.__dict__[name] = [self.__dict__[name][row] for row in rows]
        return some

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self.detections.size

    @property
    def boxes(self) -> NDArray[np.float32]:
        """(D, 4) xyxy."""
        return self.detections.boxes.numpy()

    @property
    def scores(self) -> NDArray[np.float32]:
        """(D,) in 0..1."""
        return self.detections.scores.numpy()

    @property
    def labels(self) -> NDArray[np.int64]:
        """(D,) in 0..K-1; `names` says what they mean, and `classes.ids` which categories they are."""
        return self.detections.labels.numpy()

    @property
    def tracks(self) -> NDArray[np.int64] | None:
        """(D,) in a video that is tracked: equal for the same object in all frames. None elsewhere."""
        return None if self.detections.tracks is None else self.detections.tracks.numpy()

    @property
    def names(self) -> list[str]:
        """The class of each instance, D of them."""
        return [self.classes.names[label] for label in self.labels]

    @cached_property
    def local_masks(self) -> list[mask_ops.LocalMask]:
        """D masks, each a bitmap of its own box: all that drawing and cutting out need."""
        masks = self.detections.masks.numpy()
        return [mask_ops.paste(mask, box, self.size) for mask, box in zip(masks, self.boxes, strict=True)]

    @cached_property
    def rles(self) -> list[mask_ops.Rle]:
        """D masks as compressed COCO RLE of the image; none of them was ever a bitmap of the image."""
        return rles_of(self.detections)

    @cached_property
    def masks(self) -> NDArray[np.bool_]:
        """(D, H, W) bitmaps of the image: of a large image with many instances, gigabytes."""
        canvas = np.zeros((len(self), *self.size), np.uint8)
        for plane, mask in zip(canvas, self.local_masks, strict=True):
            mask.paste_into(plane)
        return canvas.view(np.bool_)

    @property
    def image(self) -> Picture:
        """(H, W, 3) uint8 RGB; read again where only its path was kept. Raises UserError."""
        if self.pixels is not None:
            return self.pixels
        if self.path is None:
            raise UserError("this result has no image: it was made without one")
        return read(self.path)

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """D entries of a COCO results file: image_id, category_id, bbox (x, y, width, height), score, segmentation."""
        return to_coco(image_id, self.detections, self.classes.ids, self.rles)

    def draw(self, opacity: float = 0.45) -> Picture:
        """The image with masks, contours, classes and scores; a small image is drawn several times as large."""
        captions = draw.captions(self.detections, self.classes.names)
        return draw.overlay(self.image, self.local_masks, captions, opacity, draw.tracks_of(self.detections))

    def save(self, path: str | Path) -> None:
        """Write the drawn image; the suffix says in which format. Raises UserError."""
        save(self.draw(), Path(path))

    def cutouts(self) -> list[NDArray[np.uint8]]:
        """D pictures (h, w, 4) RGBA, each an instance on a transparent ground; (0, 0, 4) where a mask is empty."""
        image = self.image
        return [_cut(image, mask) for mask in self.local_masks]

    def to_supervision(self) -> supervision.Detections:
        """The same for Roboflow's tools, with `class_name` in its data. Raises UserError without that package."""
        try:
            import supervision
        except ImportError:
            raise UserError("this needs the package supervision: pip install 'queryinst[supervision]'") from None
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks,
            confidence=self.scores,
            class_id=self.labels,
            data={"class_name": np.array(self.names, dtype=str)},
        )


def save(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture (H, W, 3) RGB or (H, W, 4) RGBA in the format of the path's suffix. Raises UserError."""
    order = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    try:
        done, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, order))
    except cv2.error:
        done, data = False, np.zeros(0, np.uint8)
    if not done:
        raise UserError(f"{path} cannot be written as '{path.suffix}'; give a name that ends in .png, .jpg or .webp")
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        if fullness(error):
            path.unlink(missing_ok=True)  # a part of it is no picture
        raise UserError(f"{path} cannot be written ({error.strerror}); give another place") from None


def _cut(image: Picture, mask: mask_ops.LocalMask) -> NDArray[np.uint8]:
    rows, columns = (np.flatnonzero(mask.bitmap.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((0, 0, 4), np.uint8)
    bitmap = mask.bitmap[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    top, left = mask.top + rows[0], mask.left + columns[0]
    part = image[top : top + bitmap.shape[0], left : left + bitmap.shape[1]]
    return np.dstack([part, bitmap * np.uint8(255)])
