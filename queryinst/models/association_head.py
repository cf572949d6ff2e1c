"""The association head of a stage ("tracking head"): from a query and its region to what tells instances apart."""

import torch.nn.functional as F
from torch import Tensor, nn

from queryinst.config import ModelConfig
from queryinst.models.dynamic_conv import ProjectedDynamicConv, initialise


class AssociationHead(nn.Module):
    """One embedding a query; instances of two frames are alike as the dot product of their embeddings (reference, 6.2).

    The query reads its region by a dynamic convolution of its own (QueryTrack). The plain head (MaskTrack R-CNN) sees
    the region alone, whatever query found it. Two linear layers follow in both.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.association
        d, side, width = config.width, config.box_resolution, config.association.width
        driven = config.association.head == "query"
        self.dyn = ProjectedDynamicConv(d, config.dynamic_width, side) if driven else None
        self.fc = nn.Linear(d if driven else d * side**2, width)
        self.out = nn.Linear(width, width)
        initialise(self)
        if not driven:  # features of a pyramid have no norm: dot products in the thousands would come first
            for layer in (self.fc, self.out):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, regions: Tensor) -> Tensor:
        """Queries (n, d) after self-attention and regions (n, d, k, k) to embeddings (n, E), not normalised."""
        x = self.dyn(queries, regions) if self.dyn is not None else regions.flatten(1)
        return self.out(F.relu(self.fc(x)))
