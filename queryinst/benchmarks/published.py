"""The published way from image to COCO's codes, written plainly: the benchmark's baseline and the tests' oracle.

The mask head runs on every query and draws every class; the kept masks are sampled at every pixel of the image and
encoded from there (reference, 1.11); regions are read level by level with torchvision's RoIAlign (reference, 1.5). So
do the published implementations.
"""

from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torchvision.ops import roi_align

from queryinst.benchmarks.masks import paste_whole
from queryinst.models.queryinst import QueryInst
from queryinst.ops import boxes as box_ops
from queryinst.ops.roi import SAMPLES, STRIDES, FeaturePyramid, pyramid_level
from queryinst.structures import Detections, Output

PASTED = 16  # masks pasted at a time: all at once would take gigabytes


class Pyramid(FeaturePyramid):
    """Each level is read with its own boxes."""

    def align(self, boxes: Tensor, image: Tensor, size: int) -> Tensor:
        level, rois = pyramid_level(boxes), torch.cat([image[:, None], boxes], dim=1)
        regions = boxes.new_zeros(len(boxes), self.maps[0].shape[1], size, size)
        for index, (features, stride) in enumerate(zip(self.maps, STRIDES, strict=True)):
            own = (level == index).nonzero()[:, 0]
            regions[own] = roi_align(features, rois[own], size, 1 / stride, SAMPLES, self.aligned)
        return regions


@torch.no_grad()
def detect(model: QueryInst, output: Output, sizes: Tensor, original_sizes: Tensor) -> list[Detections]:
    """As `models.postprocess.detect` with its default settings, by drawing the masks of all queries and classes.

    `output` is of `QueryInst.query` with a `Pyramid` of this file.
    """
    stage, head = output.stages[-1], model.stages[-1].mask
    batch, number, classes = stage.logits.shape
    image = torch.arange(batch, device=stage.boxes.device).repeat_interleave(number)
    regions = output.pyramid.align(stage.boxes.flatten(0, 1), image, model.mask_resolution)
    masks = head.logits(head(stage.mask_queries.flatten(0, 1), regions)).sigmoid().unflatten(0, (batch, number))
    scores, index = stage.logits.sigmoid().flatten(1).topk(number, dim=1)
    query, label = index // classes, index % classes
    scale = box_ops.extent(sizes) / box_ops.extent(original_sizes)
    return [
        Detections(
            stage.boxes[i, query[i]] / scale[i], scores[i], label[i], masks[i, query[i], label[i]], (height, width)
        )
        for i, (height, width) in enumerate(original_sizes.tolist())
    ]


def to_coco(image_id: int, found: Detections) -> list[dict[str, Any]]:
    """As `evaluation.coco.to_coco` with labels as category ids, by pasting masks into the whole image."""
    entries = []
    for part in range(0, len(found.scores), PASTED):
        some = found.take(torch.arange(part, min(part + PASTED, len(found.scores)), device=found.scores.device))
        pasted = paste_whole(some.masks, some.boxes, some.size).cpu().numpy()
        for mask, (left, top, right, bottom), label, score in zip(
            pasted, some.boxes.tolist(), some.labels.tolist(), some.scores.tolist(), strict=True
        ):
            code = coco_mask.encode(np.asfortranarray(mask))
            entries.append(
                {
                    "image_id": image_id,
                    "category_id": label,
                    "bbox": [left, top, right - left, bottom - top],
                    "score": score,
                    "segmentation": {**code, "counts": code["counts"].decode()},
                }
            )
    return entries
