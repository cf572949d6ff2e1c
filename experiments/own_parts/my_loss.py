"""A loss: how far the centre of a box is from the centre of its object, over the object's size (as in DIoU)."""

import torch
from torch import Tensor

from queryinst.structures import Matches, StageOutput, Targets


class Centre:
    def __init__(self, power: float = 2.0) -> None:
        self.power = power

    def __call__(
        self, stages: list[StageOutput], masks: list[Tensor], matches: Matches, targets: Targets, sizes: Tensor
    ) -> Tensor:
        sums = []
        for stage, query, target in zip(stages, matches.query, matches.target, strict=True):
            found, wanted = stage.boxes[matches.image, query], targets.boxes[target]
            apart = (found[:, :2] + found[:, 2:] - wanted[:, :2] - wanted[:, 2:]) / 2
            size = (wanted[:, 2:] - wanted[:, :2]).norm(dim=1)
            sums.append((apart.norm(dim=1) / size).pow(self.power).sum())
        return torch.stack(sums)
