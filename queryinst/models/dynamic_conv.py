"""Dynamic convolution: a query generates the two 1x1 convolutions that read its own region ("DynamicConv")."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DynamicConv(nn.Module):
    """Two matrix products whose matrices come from the query (reference, 1.6.1).

    Args:
        width: d, channels of query and region.
        hidden: channels between the two products.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width, self.hidden = width, hidden
        self.params = nn.Linear(width, 2 * width * hidden)
        self.norm_in = nn.LayerNorm(hidden)
        self.norm_out = nn.LayerNorm(width)

    def forward(self, queries: Tensor, regions: Tensor) -> Tensor:
        """Queries (n, d) and their regions (n, d, k, k) to (n, k * k, d), positions row by row."""
        first, second = self.params(queries).chunk(2, dim=1)
        x = regions.flatten(2).transpose(1, 2)
        x = F.relu(self.norm_in(torch.bmm(x, first.view(-1, self.width, self.hidden))), inplace=True)
        return F.relu(self.norm_out(torch.bmm(x, second.view(-1, self.hidden, self.width))), inplace=True)


class ProjectedDynamicConv(DynamicConv):
    """Dynamic convolution of a k x k region, flattened and projected back to one vector a query (the box head's)."""

    def __init__(self, width: int, hidden: int, resolution: int) -> None:
        super().__init__(width, hidden)
        self.proj = nn.Linear(width * resolution**2, width)
        self.proj_norm = nn.LayerNorm(width)

    def forward(self, queries: Tensor, regions: Tensor) -> Tensor:
        """Queries (n, d) and their regions (n, d, k, k) to (n, d). Flattened position-major, channel-minor."""
        return F.relu(self.proj_norm(self.proj(super().forward(queries, regions).flatten(1))))


def initialise(module: nn.Module) -> None:
    """Xavier-uniform for every weight with two dimensions or more; biases keep PyTorch's default (reference, 1.6)."""
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
