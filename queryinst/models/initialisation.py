"""How PaddleDetection begins where MMDetection and hustvl/QueryInst begin otherwise (reference, 2)."""

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from queryinst.models.proposals import Proposals

if TYPE_CHECKING:
    from queryinst.models.queryinst import QueryInst


@torch.no_grad()
def as_paddle(model: "QueryInst") -> None:
    """Change a fresh model into what PaddleDetection starts from.

    Every stage begins as a copy of the first; biases are zero, but for the classifier's prior; query features are small
    (Xavier-uniform); FPN's lateral convolutions count their input channels twice.
    """
    first = model.stages[0]
    for module in first.modules():
        if (
            isinstance(module, nn.Linear | nn.ConvTranspose2d)
            and module is not first.box.cls
            and module.bias is not None
        ):
            module.bias.zero_()
    for stage in model.stages[1:]:
        stage.load_state_dict(first.state_dict())
    if isinstance(model.queries, Proposals):
        nn.init.xavier_uniform_(model.queries.features)
    for lateral in model.neck.lateral.parameters():
        if lateral.dim() > 1:
            bound = math.sqrt(6 / (2 * lateral.shape[1]))
            nn.init.uniform_(lateral, -bound, bound)
