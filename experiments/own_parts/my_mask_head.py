"""A mask head without dynamic convolution: the query opens and closes channels of its region."""

import torch
from torch import Tensor, nn

from queryinst.config import ModelConfig


class GatedMaskHead(nn.Module):
    def __init__(self, config: ModelConfig, num_classes: int, convs: int = 2) -> None:
        super().__init__()
        width = config.width
        self.gate = nn.Linear(width, width)
        layers = (
            nn.Sequential(nn.Conv2d(width, width, 3, 1, 1), nn.GroupNorm(8, width), nn.ReLU()) for _ in range(convs)
        )
        self.convs = nn.Sequential(*layers)
        self.up = nn.Sequential(nn.ConvTranspose2d(width, width, 2, 2), nn.ReLU())
        self.logits = nn.Conv2d(width, num_classes, 1)

    def forward(self, queries: Tensor, regions: Tensor) -> Tensor:
        return self.up(self.convs(regions * self.gate(queries).sigmoid()[:, :, None, None]))

    def classify(self, features: Tensor, labels: Tensor, which: Tensor | None = None) -> Tensor:
        features = features if which is None else features[which]
        weight, bias = self.logits.weight[labels].flatten(1), self.logits.bias[labels]
        return torch.einsum("nchw,nc->nhw", features, weight) + bias[:, None, None]
