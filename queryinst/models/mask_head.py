"""The mask half of a stage ("DynamicMaskHead"): the query reads its region again, at 14x14, and draws a 28x28 mask."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from queryinst.config import ModelConfig
from queryinst.models.dynamic_conv import DynamicConv, initialise


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
        if len(x) == 0 and self.training:
            bn = self.bn
            return F.relu(
                F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, training=False, eps=bn.eps)
            )
        return F.relu(self.bn(x))


class MaskHead(nn.Module):
    """Dynamic convolution, convolutions with BatchNorm, upsampling, one 1x1 convolution a class (reference, 1.7)."""

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        d = config.width
        self.dyn = DynamicConv(d, config.dynamic_width)
        self.convs = nn.Sequential(*(ConvNorm(d) for _ in range(config.mask_convs)))
        self.up = nn.ConvTranspose2d(d, d, 2, stride=2)
        self.logits = nn.Conv2d(d, num_classes, 1)
        initialise(self)
        nn.init.zeros_(self.logits.bias)  # type: ignore[arg-type]

    def forward(self, queries: Tensor, regions: Tensor) -> Tensor:
        """Queries (n, d) after self-attention and regions (n, d, k, k) to mask features (n, d, 2k, 2k)."""
        x = self.dyn(queries, regions)  # (n, k * k, d) is (n, d, k, k) with channels last: the convolutions keep it so
        x = x.unflatten(1, regions.shape[2:]).permute(0, 3, 1, 2)
        return F.relu(self.up(self.convs(x)))

    def classify(self, features: Tensor, labels: Tensor) -> Tensor:
        """The 1x1 convolution for one class a row only: (n, d, s, s) and (n,) to logits (n, s, s).

        The same numbers as all K classes and a gather, without K - 1 of the maps.
        """
        weight, bias = self.logits.weight[labels].flatten(1), self.logits.bias[labels]  # type: ignore[index]
        return torch.einsum("ndyx,nd->nyx", features, weight) + bias[:, None, None]
