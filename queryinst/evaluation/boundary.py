"""Boundary average precision: as that of masks, but only what lies near an outline counts (arXiv 2103.16562)."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from queryinst.ops import masks as mask_ops

DISTANCE = 0.02  # of an image's diagonal, that belongs to a boundary


def boundary(rle: mask_ops.Rle) -> mask_ops.Rle:
    """The pixels of a mask that lie near its outline, or near the image's border, as compressed RLE.

    Near is `DISTANCE` image diagonals or less, at least a pixel, counted in steps of the 8 neighbours, as the published
    implementation has it (bowenc0221/boundary-iou-api).
    """
    height, width = rle["size"]
    mask = mask_ops.decode(rle)
    if not mask.bitmap.size:
        return rle
    steps = max(1, round(DISTANCE * float(np.hypot(height, width))))
    inner = cv2.erode(np.pad(mask.bitmap, 1), np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1]
    return mask_ops.encode(mask._replace(bitmap=mask.bitmap - inner.astype(np.uint8)), (height, width))


class BoundaryEval(COCOeval):  # type: ignore[misc]
    """COCOeval of masks whose IoU is the smaller of that of the masks and that of their boundaries.

    With crowd regions it is that of the masks. Boundaries are made of the pairs only whose masks overlap enough for the
    lowest threshold: the others are no matches either way.
    """

    def __init__(self, truth: Any, found: Any) -> None:
        super().__init__(truth, found, "segm")
        self._made: dict[tuple[bool, int], mask_ops.Rle] = {}

    def computeIoU(self, imgId: int, catId: int) -> NDArray[np.float64]:  # noqa: N802, N803 - names of pycocotools
        """(detections, the best first, objects); [] where one of them is none."""
        overlap = super().computeIoU(imgId, catId)
        if not len(overlap):
            return overlap
        objects, found = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-one["score"] for one in found], kind="mergesort")
        crowd = np.array([bool(one["iscrowd"]) for one in objects])
        for row, column in np.argwhere((overlap >= self.params.iouThrs.min()) & ~crowd):
            pair = self._boundary(True, found[order[row]]), self._boundary(False, objects[column])
            overlap[row, column] = min(overlap[row, column], coco_mask.iou([pair[0]], [pair[1]], [0])[0, 0])
        return overlap

    def _boundary(self, found: bool, annotation: dict[str, Any]) -> mask_ops.Rle:
        key = found, annotation["id"]
        if key not in self._made:
            self._made[key] = boundary(annotation["segmentation"])
        return self._made[key]
