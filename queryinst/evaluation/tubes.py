"""Masks of an object over a video ("tubes"), and their average precision as YouTube-VIS defines it.

The overlap of two tubes is the sum over the frames of their intersections over the sum of their unions. So a tube is
kept as one run-length code: that of the frames side by side in one long image, H high and W * T wide. Runs go down the
columns, so this is one run after another, and pycocotools' overlap of two such images is exactly that of the tubes.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from queryinst.ops import masks as mask_ops
from queryinst.ops.masks import Rle

# Of the mean area over the frames, in pixels: all, small, medium, large.
AREAS = [[0, 1e5**2], [0, 128**2], [128**2, 256**2], [256**2, 1e5**2]]
LARGEST = 2**32  # pixels of a tube that pycocotools can count
DOUBT = 4  # frames without a sight that a track's score counts beside those that it was seen in


@dataclass
class Track:
    """What was found of one object: frames that it was seen in, rising, and what was seen there."""

    frames: list[int] = field(default_factory=list)
    codes: list[Rle] = field(default_factory=list)  # compressed
    scores: list[float] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    @property
    def score(self) -> float:
        """The mean over the frames that it was seen in, and `DOUBT` more with a score of 0.

        MaskTrack R-CNN takes the mean over its frames alone, by which a glimpse outranks an object that was followed
        through the video, weak moments included.
        """
        return float(np.sum(self.scores) / (len(self.scores) + DOUBT))

    @property
    def label(self) -> int:
        """The one with the highest sum of scores, of several the lowest."""
        sums = np.bincount(self.labels, self.scores)
        return int(sums.argmax())

    def over(self, length: int) -> list[Rle | None]:
        """The codes of all frames of a video of that length, None where it was not seen."""
        codes: list[Rle | None] = [None] * length
        for frame, code in zip(self.frames, self.codes, strict=True):
            codes[frame] = code
        return codes


@dataclass(frozen=True)
class Object:
    """What is annotated of one object."""

    category_id: int
    crowd: bool
    codes: list[Rle | None]  # of every frame of the video, compressed; None where it is not there
    areas: list[float | None]  # of every frame, pixels

    def only(self, frames: set[int]) -> "Object":
        """As it is in some frames alone."""
        codes = [code if frame in frames else None for frame, code in enumerate(self.codes)]
        areas = [area if frame in frames else None for frame, area in enumerate(self.areas)]
        return replace(self, codes=codes, areas=areas)


def annotated(annotation: dict[str, Any], height: int, width: int) -> Object:
    """An annotation of a YouTube-VIS file; areas that are not given are counted."""
    codes = [mask_ops.compressed(mask, height, width) if mask else None for mask in annotation["segmentations"]]
    given = annotation.get("areas") or [None] * len(codes)
    areas = [
        (float(mask_ops.area(code)) if area is None else area) if code else None
        for code, area in zip(codes, given, strict=True)
    ]
    return Object(annotation["category_id"], bool(annotation.get("iscrowd")), codes, areas)


def side_by_side(codes: Sequence[Rle | None], height: int, width: int) -> Rle:
    """The compressed RLE (H, W * T) of T frames of H x W pixels, None being an empty one."""
    edges = [np.zeros(0, np.int64)]
    for frame, code in enumerate(codes):
        if code is not None:
            ends = np.cumsum(mask_ops.run_lengths(code))
            edges.append(ends[: len(ends) // 2 * 2] + frame * height * width)
    # A run of ones may go on from the last pixel of a frame to the first of the next.
    return mask_ops.from_edges(np.concatenate(edges), (height, width * len(codes)))[0]


def mean_area(areas: Sequence[float | None]) -> float:
    """Over the frames where there is something; 0 where there is nothing at all."""
    seen = [area for area in areas if area]
    return float(np.mean(seen)) if seen else 0.0


class _TubeEval(COCOeval):  # type: ignore[misc]
    """COCO's matching and averaging, with the sizes of YouTube-VIS, and no special overlap for crowd regions.

    As there, what finds a crowd region is left out, and several may; but they must overlap it like any other object.
    """

    def __init__(self, truth: COCO, found: COCO) -> None:
        super().__init__(truth, found, "segm")
        self.params.areaRng = AREAS

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 - COCOeval's names
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not truth or not found:
            return []
        order = np.argsort([-result["score"] for result in found], kind="mergesort")[: self.params.maxDets[-1]]
        masks = [[tube["segmentation"] for tube in tubes] for tubes in ([found[i] for i in order], truth)]
        return coco_mask.iou(*masks, [0] * len(truth))


def evaluate(
    videos: list[dict[str, Any]],
    categories: list[dict[str, Any]],
    truth: list[dict[str, Any]],
    found: list[dict[str, Any]],
) -> COCOeval:
    """Average precision of tubes.

    Args:
        videos: `id`, `height` and `width` of each, the width that of all frames.
        categories: as in an annotation file.
        truth: `image_id` (the video), `category_id`, `segmentation` (of `side_by_side`), `area` (of `mean_area`) and
            `iscrowd` of each object.
        found: the same of each track, with `score`.

    Returns:
        a COCOeval that has evaluated: `stats`, `eval`.
    """
    tables = [COCO(), COCO()]
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables
        for table, tubes in zip(tables, (truth, found), strict=True):
            # Numbered from 1: to COCOeval an object with the id 0 is one that is not there.
            numbered = [{**tube, "id": number} for number, tube in enumerate(tubes, 1)]
            table.dataset = {"images": videos, "categories": categories, "annotations": numbered}
            table.createIndex()
        evaluator = _TubeEval(*tables)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator
