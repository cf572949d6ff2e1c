"""Which query answers for which ground truth: one assignment per image and stage ("Hungarian matching")."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from queryinst.criterion.own import made_terms
from queryinst.criterion_config import CriterionConfig
from queryinst.ops import boxes as box_ops
from queryinst.structures import Matches, StageOutput, Targets


class NonFiniteError(Exception):
    """The network gave, or a loss became, NaN or infinite.

    Attributes:
        image: position in the batch of the image it happened for, or None where it cannot be told.
    """

    def __init__(self, message: str, image: int | None = None) -> None:
        super().__init__(message)
        self.image = image


class Matcher:
    """Matches every stage on its own predictions, all stages at once (reference, 1.8).

    The costs of all stages and images are computed on the device in float32 and copied to the host once; SciPy solves
    them; the assignment is copied back once. With more ground truths than queries, those that fit best are matched.
    """

    def __init__(self, config: CriterionConfig) -> None:
        self.config = config
        self.further = made_terms(config.costs, "criterion.costs", "matching_cost")

    def __call__(self, stages: list[StageOutput], targets: Targets, sizes: Tensor) -> Matches:
        """Assign.

        Args:
            stages: outputs of the S stages.
            targets: ground truth of the batch.
            sizes: (B, 2) height, width of the images.

        Raises:
            NonFiniteError: a logit, a box or a ground-truth box is NaN or infinite.
        """
        return self.each([(stages, 1)], targets, sizes)[0]

    @torch.no_grad()
    def each(self, sets: Sequence[tuple[list[StageOutput], int]], targets: Targets, sizes: Tensor) -> list[Matches]:
        """Assign several sets of queries, each for itself, and wait for the device once.

        Args:
            sets: of each the outputs of its stages, and how many of its queries are matched with each object; a query
                is matched with one (H-DETR, section 3.2).
            targets, sizes: as above.
        """
        costs = [self.costs(stages, targets, sizes) for stages, _ in sets]
        on_host = torch.cat([of_set.flatten() for of_set in costs]).cpu().split([of_set.numel() for of_set in costs])
        return [
            self._solve(values.view(of_set.shape).numpy(), stages, times, targets, sizes.device)
            for values, of_set, (stages, times) in zip(on_host, costs, sets, strict=True)
        ]

    @staticmethod
    def _solve(
        costs: NDArray[np.float32], stages: list[StageOutput], times: int, targets: Targets, device: torch.device
    ) -> Matches:
        image, query, target = [], [], []
        start = 0
        for index, count in enumerate(targets.counts):
            of_image = costs[:, index, :, :count]
            # Without ground truth there is no cost to look at; a broken network then shows in the loss.
            if not np.isfinite(of_image).all():
                require_finite(stages, targets)
                raise NonFiniteError("the matching costs of finite outputs are NaN or infinite", index)
            pairs = [linear_sum_assignment(np.tile(cost, times)) for cost in of_image]
            image.append(np.full((1, len(pairs[0][0])), index))
            query.append(np.stack([rows for rows, _ in pairs]))
            target.append(np.stack([columns % max(count, 1) for _, columns in pairs]) + start)
            start += count
        solved = torch.from_numpy(np.concatenate([np.concatenate(part, axis=1) for part in (image, query, target)]))
        solved = solved.to(device, non_blocking=True)  # one copy, and nobody waits for it
        return Matches(solved[0], *solved[1:].split(len(stages)))

    @torch.no_grad()
    def costs(self, stages: list[StageOutput], targets: Targets, sizes: Tensor) -> Tensor:
        """(S, B, N, largest G of an image) float32; columns past an image's own ground truths mean nothing."""
        config = self.config
        logits = torch.stack([stage.logits for stage in stages]).float()
        boxes = torch.stack([stage.boxes for stage in stages]).float()
        labels = _pad(targets.labels, targets.counts)
        gt_boxes = _pad(targets.boxes, targets.counts)
        extent = box_ops.extent(sizes)[:, None]

        giou = box_ops.giou(boxes[..., None, :], gt_boxes[:, None])
        wanted = labels[None, :, None].expand(*logits.shape[:3], -1)
        if config.class_cost_overlap:
            p = logits.sigmoid().gather(-1, wanted) * ((giou + 1) / 2).clamp(min=0).pow(config.class_cost_overlap)
            cost_class = _focal_cost(p, config)
        else:
            cost_class = _focal_cost(logits.sigmoid(), config).gather(-1, wanted)
        cost_l1 = torch.cdist(boxes / extent, gt_boxes / extent, p=1)
        cost_giou = -giou
        total = config.class_cost * cost_class + config.l1_cost * cost_l1 + config.giou_cost * cost_giou
        for weight, cost in self.further.values():
            total = total + weight * cost(logits, boxes, labels, gt_boxes, sizes)
        return total


def _focal_cost(p: Tensor, config: CriterionConfig) -> Tensor:
    """What it costs to call a score p an object, over what it costs to call it none."""
    positive = config.focal_alpha * (1 - p).pow(config.focal_gamma) * -(p + 1e-12).log()
    negative = (1 - config.focal_alpha) * p.pow(config.focal_gamma) * -(1 - p + 1e-12).log()
    return positive - negative


def _pad(values: Tensor, counts: list[int]) -> Tensor:
    """(G, ...) of all images to (B, largest G of an image, ...), zeros behind."""
    return torch.nn.utils.rnn.pad_sequence(list(values.split(counts)), batch_first=True)


def require_finite(stages: list[StageOutput], targets: Targets) -> None:
    """Raise NonFiniteError for the first NaN or infinite ground-truth box, logit or box, with stage and image.

    To be called where something went wrong: it waits for the device.
    """
    for image, boxes in enumerate(targets.boxes.split(targets.counts)):
        if not boxes.isfinite().all():
            raise NonFiniteError("the ground truth has NaN or infinite boxes", image)
    for number, stage in enumerate(stages, 1):
        for name, values in (("logits", stage.logits), ("boxes", stage.boxes)):
            for image in torch.nonzero(~values.isfinite().flatten(1).all(1))[:1].flatten().tolist():
                raise NonFiniteError(f"stage {number} gives NaN or infinite {name}", image)
