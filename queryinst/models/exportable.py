"""The whole network as one function of tensors alone, for `torch.export` and ONNX: bytes in, detections out."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from queryinst.config import PostprocessConfig
from queryinst.models.deploy import deploy
from queryinst.models.postprocess import rescore
from queryinst.models.queryinst import QueryInst
from queryinst.ops import boxes as box_ops
from queryinst.ops.roi import SAMPLES, STRIDES, FeaturePyramid, pyramid_level


class StaticPyramid(FeaturePyramid):
    """Reads every box from every level and keeps the level of its size.

    No shape depends on the boxes, which an exported graph needs. It costs four RoIAligns instead of one, little beside
    backbone and stages.
    """

    def align(self, boxes: Tensor, image: Tensor, size: int) -> Tensor:
        """As `FeaturePyramid.align`."""
        level = pyramid_level(boxes)[:, None, None, None]
        rois = torch.cat([image[:, None].to(boxes.dtype), boxes], dim=1)
        cells = [
            roi_align(features, rois, size, 1 / stride, SAMPLES, self.aligned)
            for features, stride in zip(self.maps, STRIDES, strict=True)
        ]
        chosen = cells[0]
        for index in range(1, len(cells)):
            chosen = torch.where(level == index, cells[index], chosen)
        return chosen


class Exportable(nn.Module):
    """A trained QueryInst with its padding and its choice of detections.

    The same as `detect(model, model(images, sizes), sizes, sizes, config)`, but that every shape follows from the
    number and the size of the images: masks are drawn for the kept rows, also where a query is kept with several
    classes, and boxes below `config.min_side` are left to the caller. It has a deployed copy of the model without the
    heads that only training or tracking needs, so a model for video is its detector here.
    """

    def __init__(self, model: QueryInst, config: PostprocessConfig) -> None:
        super().__init__()
        # torch.export.save takes weights whose channels come last for slices of other tensors, and warns.
        self.model, self.clip_boxes = deploy(model).to(memory_format=torch.contiguous_format), config.clip_boxes
        for stage in self.model.stages:
            del stage.association
        for stage in self.model.stages[:-1]:
            del stage.mask
        number = model.queries.number
        self.mask_score = config.mask_score
        self.kept = min(config.max_detections or number, number * model.num_classes)

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images to their D best detections, highest score first.

        Args:
            images: (B, 3, H, W) uint8 RGB of any size.
            sizes: (B, 2) int64 height, width of each image inside the canvas; 0, 0 is all of it.

        Returns:
            boxes (B, D, 4) xyxy pixels of the canvas, scores (B, D), labels (B, D) int64, and masks (B, D, 28, 28), the
            probabilities inside the box.
        """
        model, classes = self.model, self.model.num_classes
        batch, _, height, width = images.shape
        canvas = torch.tensor([height, width], device=images.device)
        sizes = torch.where(sizes > 0, sizes.minimum(canvas), canvas).expand(batch, 2)
        right, below = _padded(width) - width, _padded(height) - height
        images = F.pad(images, (0, right, 0, below))
        pyramid = StaticPyramid(model.pyramid(model.normalise(images, sizes)).maps, model.aligned)
        last = model.query(pyramid, sizes).stages[-1]

        scores, index = last.logits.sigmoid().flatten(1).topk(self.kept, dim=1)
        query, labels = index // classes, index % classes
        image = torch.arange(batch, device=query.device)[:, None].expand_as(query)
        boxes = last.boxes[image, query]
        head = model.stages[-1].mask
        regions = pyramid.align(boxes.flatten(0, 1), image.flatten(), model.mask_resolution)
        features = head(last.mask_queries[image, query].flatten(0, 1), regions)
        logits = head.classify(features, labels.flatten())
        judge = head.quality if model.judges_masks else None
        quality = judge(features, logits).unflatten(0, (batch, self.kept)) if judge else None
        masks = logits.sigmoid().unflatten(0, (batch, self.kept))
        boxes = box_ops.clip(boxes, sizes[:, None]) if self.clip_boxes else boxes
        factor = rescore(masks, quality, self.mask_score)
        if factor is not None:
            scores, order = (scores * factor).sort(dim=1, descending=True)
            boxes, labels, masks = (_in_order(column, order) for column in (boxes, labels, masks))
        return boxes, scores, labels, masks


def _in_order(column: Tensor, order: Tensor) -> Tensor:
    """(B, D, ...) in the order (B, D) of each image."""
    return column.gather(1, order.view(*order.shape, *[1] * (column.ndim - 2)).expand_as(column))


def _padded(side: int) -> int:
    """The next multiple of the coarsest stride, at least two of it: tracing takes a side of one for a special case."""
    return cast(int, torch.sym_max((side + STRIDES[-1] - 1) // STRIDES[-1], 2)) * STRIDES[-1]
