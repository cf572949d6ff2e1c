"""The mask half of a stage ("DynamicMaskHead"): the query reads its region again, at 14x14, and draws a 28x28 mask."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from queryinst.config import ModelConfig
from queryinst.models.dynamic_conv import DynamicConv, initialise
from queryinst.models.mask_quality import MaskQuality


class ConvNorm(nn.Module):
    """3x3 convolution, BatchNorm, ReLU.

    BatchNorm runs over the rows of this call. Without rows there are no statistics: then the running ones serve, and
    stay as they are, so that an image without objects costs nothing and every parameter still takes part.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.training and len(x) == 0:
            bn = self.bn
            return F.relu(
                F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, training=False, eps=bn.eps)
            )
        return F.relu(self.bn(x), inplace=True)


class Doubling(nn.ConvTranspose2d):
    """Transposed convolution of 2x2 with stride 2: no two of its windows meet, so it is one matrix product.

    In training on a CPU it is computed as that: in bfloat16 oneDNN's backward pass of a transposed convolution is slow.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 2, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(n, d, k, k) to (n, d, 2k, 2k)."""
        if not self.training or x.device.type != "cpu":
            return super().forward(x, output_size)
        assert self.bias is not None
        number, channels, height, width = x.shape
        matrix, bias = self.weight.permute(2, 3, 1, 0).flatten(0, 2), self.bias.repeat(4)  # rows: y, x, channel out
        cells = F.linear(x.permute(0, 2, 3, 1), matrix, bias).view(number, height, width, 2, 2, channels)
        return cells.transpose(2, 3).reshape(number, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


class MaskHead(nn.Module):
    """Dynamic convolution, convolutions with BatchNorm, upsampling, one 1x1 convolution a class (reference, 1.7)."""

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        d = config.width
        self.dyn = DynamicConv(d, config.dynamic_width)
        self.convs = nn.Sequential(*(ConvNorm(d) for _ in range(config.mask_convs)))
        self.up = Doubling(d)
        self.logits = nn.Conv2d(d, num_classes, 1)
        self.quality = MaskQuality(d) if config.mask_quality else None
        initialise(self)
        nn.init.zeros_(self.logits.bias)  # type: ignore[arg-type]

    def forward(self, queries: Tensor, regions: Tensor) -> Tensor:
        """Queries (n, d) after self-attention and regions (n, d, k, k) to mask features (n, d, 2k, 2k)."""
        x = self.dyn(queries, regions)  # (n, k * k, d) is (n, d, k, k) with channels last: the convolutions keep it so
        x = x.unflatten(1, regions.shape[2:]).permute(0, 3, 1, 2)
        return F.relu(self.up(self.convs(x)), inplace=True)

    def classify(self, features: Tensor, labels: Tensor, which: Tensor | None = None) -> Tensor:
        """The 1x1 convolution for one class a row only: (n, d, s, s) and (m,) to logits (m, s, s).

        The same numbers as all K classes and a gather, without K - 1 of the maps.

        Args:
            which: (m,) the features that each row reads; by default row i reads features i.
        """
        weight, bias = self.logits.weight[labels].flatten(1), self.logits.bias[labels]  # type: ignore[index]
        if which is None:
            return torch.einsum("ndyx,nd->nyx", features, weight) + bias[:, None, None]
        # Rows of the same features side by side, so that features are read once and copied never.
        place = (which[:, None] == which).tril(-1).sum(1)
        most = int(place.max()) + 1 if len(place) else 0
        together = weight.new_zeros(len(features), most, weight.shape[1])
        together[which, place] = weight
        maps = torch.einsum("ndyx,nrd->nryx", features, together)
        return maps[which, place] + bias[:, None, None]
