"""The four losses of a stage, each summed over its rows; the criterion divides and weighs (reference, 1.9 and 1.10)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align, sigmoid_focal_loss

from queryinst.ops import boxes as box_ops
from queryinst.ops import ranks
from queryinst.structures import Targets


def divisor(pairs: int, device: torch.device) -> Tensor:
    """By what sums over pairs are divided: their number, at least 1 in all, averaged over ranks.

    So several ranks are one with the batch of all. It is filled on the device, not copied there.
    """
    return ranks.mean(torch.full((), float(pairs), device=device)).clamp(min=1 / ranks.count())


def focal(logits: Tensor, wanted: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sigmoid focal loss of logits (S, B, N, K) against {0, 1} targets of the same shape; (S,) sums."""
    return sigmoid_focal_loss(logits, wanted, alpha, gamma).sum(dim=(1, 2, 3))


def quality_focal(logits: Tensor, wanted: Tensor, alpha: float, gamma: float) -> Tensor:
    """Quality focal loss (GFL, equation 1) of logits (S, B, N, K) against targets in 0..1 of the same shape; (S,) sums.

    |target - p| ^ gamma times the cross-entropy, with `alpha` on what is above 0 and 1 - `alpha` on the rest, as the
    focal loss has it, which this is where all targets are 0 or 1.
    """
    distance = (wanted - logits.sigmoid()).abs().pow(gamma)
    balance = torch.where(wanted > 0, alpha, 1 - alpha)
    return (balance * distance * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")).sum(
        dim=(1, 2, 3)
    )


@torch.no_grad()
def mask_iou(logits: Tensor, wanted: Tensor, boxes: Tensor, target: Tensor, targets: Targets) -> Tensor:
    """IoU (S, M) of drawn masks with their whole objects, also with what of them lies outside of the box.

    Args:
        logits: (S, M, s, s) drawn in `boxes` (S, M, 4).
        wanted: of the same shape, what of the object lies in the box; 0 or 1.
        target: (S, M) which object.
        targets: ground truth of the batch.
    """
    cell = box_ops.area(boxes) / logits[0, 0].numel() if logits.numel() else boxes.new_zeros(boxes.shape[:2])
    drawn = logits > 0
    found, both = drawn.sum((2, 3)) * cell, (drawn & (wanted > 0)).sum((2, 3)) * cell
    whole = targets.masks.float().mean((1, 2)) * box_ops.area(targets.mask_boxes)
    return (both / (found + whole[target] - both).clamp(min=1e-6)).clamp(max=1.0)


def l1(boxes: Tensor, wanted: Tensor, extent: Tensor) -> Tensor:
    """L1 of xyxy boxes (S, M, 4) over the image's w, h, w, h `extent` (M, 4); (S,) sums."""
    return ((boxes - wanted).abs() / extent).sum(dim=(1, 2))


def giou(boxes: Tensor, wanted: Tensor) -> Tensor:
    """1 - generalized IoU of xyxy boxes (S, M, 4) in pixels; (S,) sums."""
    return (1 - box_ops.giou(boxes, wanted)).sum(dim=1)


def dice(logits: Tensor, wanted: Tensor, known: Tensor | None = None) -> Tensor:
    """1 - dice of mask logits (S, M, ...) against targets in 0..1; (S,) sums, over the rows that are `known` (S, M).

    The denominator is the squared kind (V-Net) with an epsilon of 1e-5 a term, so that an empty target and an empty
    prediction give exactly 1 and no NaN.
    """
    p, t = logits.sigmoid().flatten(2), wanted.flatten(2)
    overlap = (p * t).sum(-1)
    total = p.square().sum(-1) + t.square().sum(-1) + 2e-5
    distance = 1 - 2 * overlap / total
    return (distance if known is None else distance * known).sum(dim=1)


def mask_entropy(logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """Binary cross-entropy of mask logits (S, M, ...), a mean over pixels; (S,) sums over the rows `known` (S, M)."""
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return (entropy.flatten(2).mean(-1) * known).sum(dim=1)


@torch.no_grad()
def mask_targets(boxes: Tensor, target: Tensor, targets: Targets, limits: Tensor, size: int, samples: int) -> Tensor:
    """What the mask head should draw in each box: the ground-truth mask cut out at the predicted box.

    Args:
        boxes: (M, 4) xyxy predicted boxes.
        target: (M,) the ground truth of each.
        targets: ground truth of the batch.
        limits: (M, 2) height, width of each image's canvas; boxes are clipped to it first, as the references do,
            although the features were pooled from the unclipped box.
        size: side of the result.
        samples: samples a side in each cell; 0 takes as many as the cell has mask pixels, which is what the references
            do, but for a box much larger than its object costs thousands of times more.

    Returns:
        (M, size, size) float32, 0 or 1: RoIAlign of the stored bitmap, at least half covered.
    """
    region = targets.mask_boxes[target]
    corner, extent = region[:, :2].tile(2), (region[:, 2:] - region[:, :2]).tile(2)
    share = (box_ops.clip(boxes, limits) - corner) / extent
    height, width = targets.masks.shape[1:]
    local = torch.stack([share[:, ::2] * width, share[:, 1::2] * height], dim=2).flatten(1)
    rois = torch.cat([target[:, None].to(local.dtype), local], dim=1)
    return (roi_align(targets.masks[:, None].float(), rois, size, 1.0, samples, aligned=True)[:, 0] >= 0.5).float()
