"""Feature pyramid network ("FPN", "neck")."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Lateral 1x1 convolutions, nearest upsampling and addition from the top, then 3x3 convolutions (reference, 1.3).

    Exactly P2..P5: no extra level, no norm, no activation.
    """

    def __init__(self, in_channels: Sequence[int], channels: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        for conv in [*self.lateral, *self.output]:
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """C2..C5 to P2..P5, each (B, channels, H / stride, W / stride)."""
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for level in range(len(merged) - 1, 0, -1):
            upsampled = F.interpolate(merged[level], size=merged[level - 1].shape[-2:], mode="nearest")
            merged[level - 1] += upsampled
        return [output(x) for output, x in zip(self.output, merged, strict=True)]
