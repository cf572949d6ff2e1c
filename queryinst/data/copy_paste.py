"""Objects of another training image pasted onto an image (Ghiasi et al., Simple Copy-Paste, CVPR 2021)."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from queryinst.data.images import ImageFile, read_image
from queryinst.data.transforms import GeometryOf, Instances, draw_outline
from queryinst.errors import UserError
from queryinst.ops.masks import LocalMask, Polygons

Pixels = NDArray[np.uint8]


class CopyPaste:
    """Draws whether something is pasted onto an image, and from where and what.

    Args:
        probability: of pasting.
        images: what objects are taken from.
        geometry: draws what happens to the other image.
        instances: the objects of an image.
    """

    def __init__(
        self,
        probability: float,
        images: Sequence[ImageFile],
        geometry: GeometryOf,
        instances: Callable[[ImageFile], Instances],
    ) -> None:
        self.probability, self.images, self.geometry, self.instances = probability, images, geometry, instances

    def __call__(
        self, image: ImageFile, pixels: Pixels, instances: Instances, rng: np.random.Generator
    ) -> tuple[Pixels, Instances]:
        """An image (H, W, 3) after its geometry, and its objects, both with what is pasted of another one.

        Of its objects that have masks one to all are, each number as likely as any. Where the other image cannot
        be read, nothing is: that is said when its own turn comes.
        """
        if len(self.images) < 2 or rng.random() >= self.probability:
            return pixels, instances
        first, second = (self.images[int(place)] for place in rng.choice(len(self.images), 2, replace=False))
        other = second if first == image else first
        geometry = self.geometry(other.height, other.width, rng)
        found = geometry.instances(self.instances(other))
        found = found.take(np.array([has_mask(outline) for outline in found.outlines], bool))
        if not len(found):
            return pixels, instances
        count = int(rng.integers(1, len(found), endpoint=True))
        chosen = found.take(np.sort(rng.choice(len(found), count, replace=False)))
        try:
            source = geometry.image(read_image(other))
        except UserError:
            return pixels, instances
        return paste(pixels, instances, source, chosen)


def has_mask(outline: Polygons | LocalMask) -> bool:
    return bool(outline.bitmap.size if isinstance(outline, LocalMask) else outline)


def paste(pixels: Pixels, under: Instances, source: Pixels, over: Instances) -> tuple[Pixels, Instances]:
    """An image with objects of another, the top left corners of both together.

    What both images have room for is pasted. Objects below lose what is hidden, in mask and box, and are left out where
    no pixel of them is seen; one that has a box only keeps it. Masks of pasted objects are as they were to each other.

    Args:
        pixels, under: an image (H, W, 3) and its objects.
        source, over: another one, of any size, and those of its objects that are pasted. They have masks.
    """
    height, width = np.minimum(pixels.shape[:2], source.shape[:2]).tolist()
    pasted = dict(enumerate(_bitmaps(over, np.arange(len(over)), height, width)))
    covered = np.zeros(pixels.shape[:2], np.uint8)
    for mask in pasted.values():
        mask.paste_into(covered)
    pixels = pixels.copy()
    cv2.copyTo(source[:height, :width], covered[:height, :width], pixels[:height, :width])
    return pixels, _joined(_with_bitmaps(under, _cut(under, covered)), _with_bitmaps(over, pasted))


def _cut(under: Instances, covered: Pixels) -> dict[int, LocalMask]:
    """What is still seen of those objects that are hidden in part or altogether."""
    spans = _pixels_around(under, *covered.shape)
    touched = [
        index
        for index, (left, top, right, bottom) in enumerate(spans)
        if has_mask(under.outlines[index]) and covered[top:bottom, left:right].any()
    ]
    left_over = {}
    for index, mask in zip(touched, _bitmaps(under, np.array(touched, int), *covered.shape), strict=True):
        hidden = covered[_window(mask)]
        if not mask.bitmap.size or (mask.bitmap & hidden).any():
            left_over[index] = _trimmed(mask.bitmap & (1 - hidden), mask.left, mask.top)
    return left_over


def _bitmaps(instances: Instances, which: NDArray[np.int64], height: int, width: int) -> list[LocalMask]:
    """The masks of some objects in the pixels of a (height, width) image, each in its own box. They have masks."""
    chosen = instances.take(which)
    scale, offset = (np.broadcast_to(part, (len(chosen), 2)) for part in (chosen.scale, chosen.offset))
    masks = []
    for index, (left, top, right, bottom) in enumerate(_pixels_around(chosen, height, width)):
        here = offset[index] - [left, top]
        bitmap = draw_outline(chosen.outlines[index], scale[index], here, bottom - top, right - left)
        masks.append(_trimmed(bitmap, left, top))
    return masks


def _pixels_around(instances: Instances, height: int, width: int) -> list[list[int]]:
    """The whole pixels, left, top, right, bottom, that each outline touches in an image of this size; at least one."""
    extents, limit = instances.extents(), np.array([width, height])
    first = np.floor(extents[:, :2]).clip(0, limit - 1)
    last = np.ceil(extents[:, 2:]).clip(first + 1, limit)
    return np.hstack([first, last]).astype(int).tolist()


def _trimmed(bitmap: Pixels, left: int, top: int) -> LocalMask:
    """A bitmap at its place, without empty rows and columns around it."""
    bitmap = np.ascontiguousarray(bitmap)
    x, y, width, height = cv2.boundingRect(bitmap) if bitmap.size else (0, 0, 0, 0)
    return LocalMask(bitmap[y : y + height, x : x + width], left + x, top + y)


def _window(mask: LocalMask) -> tuple[slice, slice]:
    height, width = mask.bitmap.shape
    return slice(mask.top, mask.top + height), slice(mask.left, mask.left + width)


def _with_bitmaps(instances: Instances, masks: dict[int, LocalMask]) -> Instances:
    """Some objects as bitmaps in the pixels of the frame, with the boxes around them; without those that are empty."""
    maps = [np.broadcast_to(part, (len(instances), 2)).copy() for part in (instances.scale, instances.offset)]
    outlines, boxes = list(instances.outlines), instances.boxes.copy()
    for index, mask in masks.items():
        height, width = mask.bitmap.shape
        boxes[index] = mask.left, mask.top, mask.left + width, mask.top + height
        outlines[index], maps[0][index], maps[1][index] = mask, 1, 0
    changed = replace(instances, boxes=boxes, outlines=outlines, scale=maps[0], offset=maps[1])
    empty = [index for index, mask in masks.items() if not mask.bitmap.size]
    return changed.take(np.delete(np.arange(len(boxes)), empty))


def _joined(first: Instances, second: Instances) -> Instances:
    """The objects of one frame and others of the same frame, each with a map of its own. Images alone, no tracks."""
    columns = [np.concatenate([getattr(part, name) for part in (first, second)]) for name in ("boxes", "labels")]
    maps = [np.concatenate([getattr(part, name) for part in (first, second)]) for name in ("scale", "offset")]
    return Instances(columns[0], columns[1], first.outlines + second.outlines, maps[0], maps[1])
