"""Box arithmetic. Boxes are `xyxy` pixels unless a name says otherwise."""

import math

import torch
from torch import Tensor

LARGEST_LOG_SCALE = abs(math.log(16 / 1000))  # one refinement changes a side at most 62.5-fold, either way
SHIFT_STD = 0.5  # MMDetection's target_stds (0.5, 0.5, 1, 1); Detectron2's weights (2, 2, 1, 1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size to corners."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def refine(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Move and scale boxes: a stage's regression output applied to the boxes it started from.

    Args:
        boxes: (..., 4) xyxy pixels.
        deltas: (..., 4) dx, dy in box sizes over `SHIFT_STD`, and log of the scales.

    Returns:
        (..., 4) xyxy pixels. Nothing is clipped to the image, in any stage (reference, 1.6.2).
    """
    size = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2 + deltas[..., :2] * SHIFT_STD * size
    half = size * deltas[..., 2:].clamp(-LARGEST_LOG_SCALE, LARGEST_LOG_SCALE).exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def area(boxes: Tensor) -> Tensor:
    """(..., 4) to (...): width times height, 0 for a box that is inside out."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def iou(a: Tensor, b: Tensor, eps: float = 1e-6) -> Tensor:
    """IoU of boxes that broadcast: (..., 4) with (..., 4) to (...), in 0..1; two empty boxes have 0."""
    overlap = area(torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], dim=-1))
    return overlap / (area(a) + area(b) - overlap).clamp(min=eps)


def giou(a: Tensor, b: Tensor, eps: float = 1e-6) -> Tensor:
    """Generalized IoU of boxes that broadcast: (..., 4) with (..., 4) to (...), in -1..1.

    Union and enclosure are held at `eps` or more, as in MMDetection, so that two empty boxes give a number
    (torchvision's version gives NaN there, which no assignment survives). All pairs are `giou(a[:, None], b)`.
    """
    overlap = area(torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], dim=-1))
    union = (area(a) + area(b) - overlap).clamp(min=eps)
    hull = area(
        torch.cat([torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], dim=-1)
    ).clamp(min=eps)
    return overlap / union - (hull - union) / hull


def extent(sizes: Tensor) -> Tensor:
    """Image sizes (..., 2) height, width to (..., 4) float w, h, w, h: one over it normalises a box."""
    return sizes.flip(-1).tile(2).float()


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Clip (..., 4) boxes into images of `sizes` (..., 2) height, width, broadcast against the boxes."""
    return torch.minimum(boxes.clamp(min=0), extent(sizes).to(boxes.dtype))
