"""From a stage's output to detections in pixels of the original image (reference, 1.11 and 1.12)."""

import torch
from torch import Tensor

from queryinst.config import PostprocessConfig
from queryinst.models.queryinst import QueryInst
from queryinst.ops import boxes as box_ops
from queryinst.structures import Detections, Output, Rows


@torch.no_grad()
def detect(
    model: QueryInst, output: Output, sizes: Tensor, original_sizes: Tensor, config: PostprocessConfig, stage: int = -1
) -> list[Detections]:
    """The best of queries x classes of each image: no NMS, no score threshold, the class score is the mask's score too.

    A query may appear with several classes. Mask features are made once for every query that was kept, and the last
    convolution for the kept class only.

    Args:
        model, output: the network in evaluation mode, and what its `forward` returned.
        sizes: (B, 2) height, width of the resized images.
        original_sizes: (B, 2) height, width of the image files.
        config: how many to keep, and whether to clip.
        stage: whose classes, boxes and masks; the last by default.

    Returns:
        B detections, best first.
    """
    stage = stage % len(output.stages)
    logits, boxes = output.stages[stage].logits.float(), output.stages[stage].boxes
    batch, number, classes = logits.shape
    kept = min(config.max_detections or number, number * classes)
    scores, index = logits.sigmoid().flatten(1).topk(kept, dim=1)
    query, label = index // classes, index % classes

    image = torch.arange(batch, device=query.device)[:, None].expand_as(query)
    rows = Rows(image.flatten(), query.flatten(), label.flatten())
    masks = model.predict_masks(output, {stage: rows})[stage].float().sigmoid().unflatten(0, (batch, kept))

    extent, original = box_ops.extent(sizes), box_ops.extent(original_sizes)
    boxes = boxes[image, query] / (extent / original)[:, None]
    if config.clip_boxes:
        boxes = box_ops.clip(boxes, original_sizes[:, None])
    keep = (
        (boxes[..., 2:] - boxes[..., :2] > config.min_side).all(-1)
        if config.min_side
        else torch.ones_like(scores, dtype=torch.bool)
    )
    return [
        Detections(boxes[i], scores[i], label[i], masks[i], (int(height), int(width)), query[i]).take(keep[i])
        for i, (height, width) in enumerate(original_sizes.tolist())
    ]
