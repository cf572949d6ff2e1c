"""A backbone: convolutions that look at each channel by itself, as in MobileNet, two a stage."""

from torch import nn

from queryinst.config import BackboneConfig
from queryinst.models.backbone import Backbone


def block(before: int, after: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False),
        nn.Conv2d(before, after, 1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )


class Separable(Backbone):
    def __init__(self, config: BackboneConfig, width: int = 32) -> None:
        super().__init__(config)
        self.channels = (width, 2 * width, 4 * width, 8 * width)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        widths = (width, *self.channels)
        self.stages = nn.ModuleList(
            nn.Sequential(block(widths[i], widths[i + 1], 2), block(widths[i + 1], widths[i + 1], 1)) for i in range(4)
        )
        self.freeze()  # as far as the configuration says

    def parts(self) -> list[nn.Module]:
        return [self.stem, *self.stages]
