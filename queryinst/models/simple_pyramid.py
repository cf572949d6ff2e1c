"""The maps that a network lacks, made of one that it has: ViTDet's simple feature pyramid."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from queryinst.ops.roi import STRIDES


class MapNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class SimplePyramid(nn.Module):
    """Maps of some strides to C2..C5 at strides 4, 8, 16 and 32 ("SimpleFeaturePyramid" in detectron2).

    A map of the right stride is taken as it is. One that is missing is made of the nearest: finer ones by transposed
    convolutions, each of which halves the channels, coarser ones by max pooling. A plain vision transformer has one map
    and so lends itself to all four; a network that ends at stride 16 lacks C5 alone.

    Args:
        strides: of the maps that there are, powers of two, each once.
        channels: of these maps.
    """

    def __init__(self, strides: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.sources: list[int] = []
        made, widths = [], []
        for stride in STRIDES:
            source = min(strides, key=lambda given: abs(math.log2(given / stride)))
            index = list(strides).index(source)
            step, width = _step(channels[index], source, stride)
            self.sources.append(index)
            made.append(step)
            widths.append(width)
        self.steps = nn.ModuleList(made)
        self.channels = (widths[0], widths[1], widths[2], widths[3])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [step(maps[source]) for source, step in zip(self.sources, self.steps, strict=True)]


def _step(channels: int, source: int, stride: int) -> tuple[nn.Module, int]:
    """From a map at stride `source` to one at `stride`, and the channels of that."""
    if source <= stride:
        halvings = round(math.log2(stride / source))
        return (nn.Sequential(*(nn.MaxPool2d(2) for _ in range(halvings))) if halvings else nn.Identity()), channels
    layers: list[nn.Module] = []
    for _ in range(round(math.log2(source / stride))):
        if layers:
            layers += [MapNorm(channels), nn.GELU()]
        layers.append(nn.ConvTranspose2d(channels, max(1, channels // 2), 2, stride=2))
        channels = max(1, channels // 2)
    return nn.Sequential(*layers), channels
