"""The box half of a stage: query and region in, class, box and a better query out ("DIIHead" in MMDetection)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from queryinst.config import ModelConfig
from queryinst.models.dynamic_conv import ProjectedDynamicConv, initialise
from queryinst.ops import boxes as box_ops
from queryinst.structures import Sight, StageOutput

PRIOR = 0.01  # probability that a fresh classifier gives every class (focal loss, section 4.1)


class FFN(nn.Module):
    """Two linear layers; the residual is added by the caller."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(x)))


class Block(nn.Module):
    """Linear without bias, LayerNorm, ReLU: one floor of the classification and regression towers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.fc(x)))


class BoxHead(nn.Module):
    """Self-attention among queries, dynamic convolution of each query with its region, FFN, towers (reference, 1.6)."""

    def __init__(self, config: ModelConfig, num_classes: int) -> None:
        super().__init__()
        d = config.width
        self.attn = nn.MultiheadAttention(d, config.num_heads, batch_first=True)
        self.attn_norm = nn.LayerNorm(d)
        self.dyn = ProjectedDynamicConv(d, config.dynamic_width, config.box_resolution)
        self.dyn_norm = nn.LayerNorm(d)
        self.ffn = FFN(d, config.ffn_width)
        self.ffn_norm = nn.LayerNorm(d)
        self.cls_tower = nn.Sequential(*(Block(d) for _ in range(config.classification_layers)))
        self.reg_tower = nn.Sequential(*(Block(d) for _ in range(config.regression_layers)))
        self.cls = nn.Linear(d, num_classes)
        self.reg = nn.Linear(d, 4)
        initialise(self)
        nn.init.constant_(self.cls.bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.zeros_(self.reg.bias)

    def forward(self, queries: Tensor, regions: Tensor, boxes: Tensor, sights: Sequence[Sight] = ()) -> StageOutput:
        """One refinement.

        Args:
            queries: (B, N, d) from the stage before.
            regions: (B * N, d, k, k) RoIAlign of the pyramid at `boxes`.
            boxes: (B, N, 4) xyxy pixels that this stage refines.
            sights: which queries see which, in their order along N; by default all see all.
        """
        if sights:
            attended = self._attend(queries, sights)
        else:
            attended, _ = self.attn(queries, queries, queries, need_weights=False)
        mask_queries = self.attn_norm(queries + attended)
        interaction = self.dyn(mask_queries.flatten(0, 1), regions)
        refined = self.dyn_norm(mask_queries + interaction.view_as(queries))
        refined = self.ffn_norm(refined + self.ffn(refined))
        deltas = self.reg(self.reg_tower(refined)).float()
        return StageOutput(
            logits=self.cls(self.cls_tower(refined)),
            boxes=box_ops.refine(boxes, deltas),
            queries=refined,
            mask_queries=mask_queries,
            deltas=deltas,
        )

    def _attend(self, queries: Tensor, sights: Sequence[Sight]) -> Tensor:
        """Self-attention (B, N, d), a set of queries at a time: nothing is computed for pairs that do not see."""
        attended = []
        for one, (_, hidden) in zip(queries.split([sight.number for sight in sights], dim=1), sights, strict=True):
            mask = None if hidden is None else hidden.repeat_interleave(self.attn.num_heads, dim=0)
            attended.append(self.attn(one, one, one, need_weights=False, attn_mask=mask)[0])
        return torch.cat(attended, dim=1)
