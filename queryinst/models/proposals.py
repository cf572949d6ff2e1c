"""The learnable queries: a box and a feature each ("proposals"; "EmbeddingRPNHead" in MMDetection)."""

import math

import torch
from torch import Tensor, nn

from queryinst.ops import boxes as box_ops


class Proposals(nn.Module):
    """N boxes, normalised cxcywh, and N features; the same for every image until the first stage (reference, 1.4).

    The boxes are neither squashed nor clamped. Trained from ImageNet weights they stay near the whole image: that is
    normal, the stages do the moving. From scratch, a start on a grid learns much faster.
    """

    def __init__(self, number: int, width: int, init: str, detach: bool) -> None:
        super().__init__()
        self.boxes = nn.Parameter(whole_image(number) if init == "image" else grid(number), requires_grad=not detach)
        self.features = nn.Parameter(torch.randn(number, width))

    @property
    def number(self) -> int:
        """How many (N)."""
        return len(self.features)

    @property
    def dtype(self) -> torch.dtype:
        """In which the network computes; the boxes are pixels, and stay float32."""
        return self.features.dtype

    def forward(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """Image sizes (B, 2) height, width to boxes (B, N, 4) xyxy pixels and queries (B, N, d)."""
        boxes = box_ops.cxcywh_to_xyxy(self.boxes) * box_ops.extent(sizes)[:, None]
        queries = self.features.expand(sizes.shape[0], -1, -1)
        return boxes, queries


def whole_image(number: int) -> Tensor:
    """(N, 4) normalised cxcywh: every box is the whole image, as published."""
    return torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(number, 1)


def grid(number: int) -> Tensor:
    """(N, 4) normalised cxcywh: centres spread evenly, row by row, every box a little larger than its cell."""
    rows = max(1, round(math.sqrt(number)))
    boxes = []
    for row in range(rows):
        columns = number * (row + 1) // rows - number * row // rows
        boxes += [
            [(column + 0.5) / columns, (row + 0.5) / rows, 1.2 / columns, 1.2 / rows] for column in range(columns)
        ]
    return torch.tensor(boxes).clamp(max=1.0)
