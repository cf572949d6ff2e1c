"""Proposals that every image makes for itself, where its pyramid shows objects (Featurized Query R-CNN)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from queryinst.models.box_head import PRIOR
from queryinst.ops import boxes as box_ops
from queryinst.ops.roi import STRIDES, FeaturePyramid
from queryinst.structures import Candidates


class PyramidProposals(nn.Module):
    """A place of the pyramid says whether it is that of an object, in which box, and with what feature.

    The N best places become the first stage's boxes and queries (arXiv 2206.06258, section 3.2, and its code): a 3x3
    convolution, then one of 1x1 for each of the three; the box is four distances to its sides, in strides of the level.
    Other than there, P2 to P5 and not P3 to P7 are asked, distances start at two strides and not at nothing, and places
    outside of the image have no say.
    """

    def __init__(self, number: int, width: int) -> None:
        super().__init__()
        self.number = number
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.objectness = nn.Conv2d(width, 1, 1)
        self.sides = nn.Conv2d(width, 4, 1)
        self.feature = nn.Conv2d(width, width, 1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))  # of the distances, one a level
        for layer in (self.conv, self.objectness, self.sides):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.objectness.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        nn.init.constant_(self.sides.bias, 2.0)  # type: ignore[arg-type]

    @property
    def dtype(self) -> torch.dtype:
        """In which the network computes."""
        return self.conv.weight.dtype

    def forward(self, sizes: Tensor, pyramid: FeaturePyramid) -> tuple[Tensor, Tensor, Candidates]:
        """Image sizes (B, 2) height, width and their pyramid to boxes (B, N, 4) xyxy pixels, queries (B, N, d), and all
        that N were chosen of.

        The choice and the boxes carry no gradient; queries do. Where there are less than N places, the rest are the
        whole image, with queries of zeros.
        """
        logits, boxes, queries, places = [], [], [], []
        for features, stride, scale in zip(pyramid.maps, STRIDES, self.scales, strict=True):
            shared = F.relu(self.conv(features))
            columns, rows = (torch.arange(n, device=features.device) + 0.5 for n in (shared.shape[3], shared.shape[2]))
            place = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).flatten(0, 1) * stride
            away = F.relu(_flat(self.sides(shared)).float() * scale) * stride
            boxes.append(torch.cat([place - away[..., :2], place + away[..., 2:]], dim=-1))
            logits.append(_flat(self.objectness(shared))[..., 0].float())
            queries.append(_flat(self.feature(shared)))
            places.append(place)
        every = torch.cat(places)
        inside = (every < sizes[:, None].flip(-1)).all(-1)
        candidates = Candidates(torch.cat(logits, 1), torch.cat(boxes, 1), every, inside)
        whole = F.pad(box_ops.extent(sizes)[:, None, 2:], (2, 0)).expand(-1, self.number, -1)
        scores = candidates.logits.detach().masked_fill(~inside, -math.inf)
        scores = F.pad(scores, (0, self.number), value=torch.finfo(scores.dtype).min)
        best = scores.topk(self.number, dim=1).indices[..., None]
        chosen = torch.cat([candidates.boxes.detach(), whole.to(candidates.boxes.dtype)], 1)
        made = F.pad(torch.cat(queries, 1), (0, 0, 0, self.number))
        return chosen.gather(1, best.expand(-1, -1, 4)), made.gather(1, best.expand(-1, -1, made.shape[2])), candidates


def _flat(maps: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H * W, C)."""
    return maps.flatten(2).transpose(1, 2)
