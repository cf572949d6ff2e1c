"""Masks compared at points that are drawn anew each time, most of them where the mask is unsure, and at no grid.

PointRend (arXiv 1912.08193, section 3.1) and Mask2Former (arXiv 2112.01527, section 3.3). The object is read at full
resolution there, where a grid asks whether a cell is half covered.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from queryinst.ops import boxes as box_ops
from queryinst.structures import Targets

OVERSAMPLED = 3  # candidates for each point, of which the unsure ones are taken
UNSURE = 0.75  # share of the points that are


def unsure_points(logits: Tensor, number: int) -> Tensor:
    """Points (n, number, 2), x and y in 0..1 of the box, for masks (n, s, s): where logits are near 0, and anywhere."""
    candidates = torch.rand(len(logits), OVERSAMPLED * number, 2, device=logits.device)
    kept = int(UNSURE * number)
    best = read(logits.detach(), candidates).abs().topk(kept, dim=1, largest=False).indices
    anywhere = torch.rand(len(logits), number - kept, 2, device=logits.device)
    return torch.cat([candidates.gather(1, best[..., None].expand(-1, -1, 2)), anywhere], dim=1)


def read(maps: Tensor, points: Tensor, outside: str = "border") -> Tensor:
    """Bilinear values (n, P) of maps (n, h, w), 0..1 edge to edge, at points (n, P, 2); `outside`: grid_sample's."""
    grid = 2 * points[:, None] - 1
    return F.grid_sample(maps[:, None], grid, padding_mode=outside, align_corners=False)[:, 0, 0]


@torch.no_grad()
def objects_at(points: Tensor, boxes: Tensor, target: Tensor, targets: Targets, limits: Tensor) -> Tensor:
    """How much object (M, P), 0..1, is at points (M, P, 2) of boxes: what a mask should be there.

    Args:
        points: x and y in 0..1 of the box.
        boxes, target, targets, limits: as of `losses.mask_targets`.
    """
    frame, region = box_ops.clip(boxes, limits)[:, None], targets.mask_boxes[target][:, None]
    pixels = frame[..., :2] + points * (frame[..., 2:] - frame[..., :2])
    share = (pixels - region[..., :2]) / (region[..., 2:] - region[..., :2])
    return read(targets.masks.float()[target], share, "zeros")
