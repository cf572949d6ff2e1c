"""From stage outputs, masks and ground truth to losses."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from queryinst.criterion import losses, points
from queryinst.criterion.association import association
from queryinst.criterion.matcher import Matcher, NonFiniteError, require_finite
from queryinst.criterion.own import classification_of, made_terms
from queryinst.criterion_config import CriterionConfig
from queryinst.ops import boxes as box_ops
from queryinst.ops import ranks
from queryinst.ops.roi import STRIDES
from queryinst.structures import UNKNOWN, Matches, StageOutput, Targets

TERMS = ("class", "l1", "giou", "mask")
ASSOCIATION = "association"  # with association heads only


class Criterion:
    """Matches every stage, then sums four losses a stage, or more, all stages at once and all with weight 1.

    Usage, in three lines of plain PyTorch:

        matches = criterion.match(output.stages, batch.targets, batch.sizes)
        masks = model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels))))
        terms = criterion(output.stages, list(masks.values()), matches, batch.targets, batch.sizes)

    With association heads, `model.embed` takes what `model.predict_masks` does, and its values are the last argument.
    """

    def __init__(self, config: CriterionConfig) -> None:
        self.config = config
        self.match = Matcher(config)
        self.classification = classification_of(config)
        self.further = made_terms(config.terms, "criterion.terms", "loss_term", reserved=(*TERMS, ASSOCIATION))
        self.terms = (*TERMS, *self.further, ASSOCIATION)  # names of the columns, as many as there are

    def __call__(
        self,
        stages: list[StageOutput],
        masks: list[Tensor],
        matches: Matches,
        targets: Targets,
        sizes: Tensor,
        embeddings: Sequence[Tensor] = (),
    ) -> Tensor:
        """Weighted losses (S, columns): a row a stage, a column a term of `terms`. Their sum is what to minimise.

        Each sum over rows is divided by the number of matched pairs, at least 1 in all and averaged over ranks, so that
        several ranks are one with the batch of all (MMDetection 3 forgets the 1 for the box head, and elsewhere has 1
        on each rank). Negatives count in the focal sum and not in its divisor.

        Args:
            stages: outputs of the S stages.
            masks: S tensors (M, s, s), mask logits of the matched queries for the class of their ground truth. None:
                nothing is learned from masks, and the user's own terms, which may look at them, are left out.
            matches: of `match`.
            targets: ground truth of the batch.
            sizes: (B, 2) height, width of the images.
            embeddings: S tensors (M, E) of the same queries, where there are association heads; the images are pairs of
                frames then, the first with the second, the third with the fourth, and `targets` has tracks.
        """
        config, image, query, target = self.config, matches.image, matches.query, matches.target
        logits = torch.stack([stage.logits for stage in stages]).float()
        boxes = torch.stack([stage.boxes for stage in stages]).float()
        stage = torch.arange(len(stages), device=query.device)[:, None]

        boxes, wanted_boxes = boxes[stage, image, query], targets.boxes[target]
        mask_logits = [logits.float() for logits in masks]
        limits = _canvases(sizes)[image].repeat(len(stages), 1)
        gridded = masks and (config.class_target == "mask" or not config.mask_points)
        wanted_masks = self._mask_targets(mask_logits, boxes, target, targets, limits) if gridded else None
        wanted = torch.zeros_like(logits)
        wanted[stage, image, query, targets.labels[target]] = self._quality(
            boxes, wanted_boxes, mask_logits, wanted_masks, matches, targets
        )
        sums = [
            config.class_weight * self.classification(logits, wanted),
            config.l1_weight * losses.l1(boxes, wanted_boxes, box_ops.extent(sizes)[image]),
            config.giou_weight * losses.giou(boxes, wanted_boxes),
        ]
        if not masks:
            sums.append(torch.zeros_like(sums[0]))
        elif config.mask_points:
            compared = self._at_points(torch.stack(mask_logits), boxes, target, targets, limits)
            sums.append(self._mask_losses(*compared, _known(targets)[target]))
        else:
            assert wanted_masks is not None
            sums.append(self._mask_losses(torch.stack(mask_logits), wanted_masks, _known(targets)[target]))
        told = [replace(output, logits=every) for output, every in zip(stages, logits, strict=True)]
        for weight, term in self.further.values():
            own = term(told, mask_logits, matches, targets, sizes) if masks else torch.zeros_like(sums[0])
            sums.append(weight * own)
        if embeddings:
            assert targets.tracks is not None, "association learns from pairs of frames"
            linked = association(torch.stack(list(embeddings)), image, targets.tracks[target], config.association_loss)
            sums.append(config.association_weight * linked)
        return torch.stack(sums, dim=1) / self._pairs(matches)

    def _mask_targets(
        self, masks: list[Tensor], boxes: Tensor, target: Tensor, targets: Targets, limits: Tensor
    ) -> Tensor:
        """(S, M, s, s): what should be drawn in boxes (S, M, 4)."""
        side, samples = masks[0].shape[-1], self.config.mask_samples
        made = losses.mask_targets(boxes.flatten(0, 1), target.flatten(), targets, limits, side, samples)
        return made.view(len(masks), -1, side, side)

    def _mask_losses(self, drawn: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
        """(S,) weighted sums for mask logits (S, M, ...) against what they should be, over the rows `known` (S, M)."""
        made = self.config.mask_weight * losses.dice(drawn, wanted, known)
        if self.config.mask_entropy_weight:
            made = made + self.config.mask_entropy_weight * losses.mask_entropy(drawn, wanted, known)
        return made

    def _at_points(
        self, drawn: Tensor, boxes: Tensor, target: Tensor, targets: Targets, limits: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (S, M, P) at points of masks (S, M, s, s) in boxes (S, M, 4), and what they should be there."""
        logits = drawn.flatten(0, 1)
        where = points.unsure_points(logits, self.config.mask_points)
        wanted = points.objects_at(where, boxes.detach().flatten(0, 1), target.flatten(), targets, limits)
        return points.read(logits, where).unflatten(0, target.shape), wanted.unflatten(0, target.shape)

    def _quality(
        self,
        boxes: Tensor,
        wanted_boxes: Tensor,
        masks: list[Tensor],
        wanted_masks: Tensor | None,
        matches: Matches,
        targets: Targets,
    ) -> Tensor | float:
        """(S, M): what the scores of the matched queries should be."""
        kind, target = self.config.class_target, matches.target
        if kind == "one":
            return 1.0
        overlap = box_ops.iou(boxes.detach(), wanted_boxes)
        if kind == "box" or wanted_masks is None:
            return overlap
        drawn = losses.mask_iou(torch.stack(masks), wanted_masks, boxes.detach(), target, targets)
        return torch.where(_known(targets)[target], drawn, overlap)

    def require_finite(
        self, losses: Tensor, stages: list[StageOutput], masks: list[Tensor], images: list[Tensor], targets: Targets
    ) -> None:
        """Raise NonFiniteError where a loss (S, terms) is NaN or infinite.

        Names what made it so, with stage and image: ground truth, logits, boxes or masks (arguments of `__call__`;
        `images` has the image of each mask); or the stage and term of the loss, where all of them are finite.
        """
        values = losses.detach().cpu()
        if values.isfinite().all():
            return
        require_finite(stages, targets)
        for number, (logits, image) in enumerate(zip(masks, images, strict=True), 1):
            for row in torch.nonzero(~logits.isfinite().flatten(1).all(1))[:1].flatten().tolist():
                raise NonFiniteError(f"stage {number} gives NaN or infinite masks", int(image[row]))
        stage, term = torch.nonzero(~values.isfinite())[0].tolist()
        raise NonFiniteError(f"the loss '{self.terms[term]}' of stage {stage + 1} is {values[stage, term].item()}")

    @staticmethod
    def _pairs(matches: Matches) -> Tensor:
        pairs = torch.full((), float(len(matches.image)), device=matches.image.device)  # filled there, not copied
        return ranks.mean(pairs).clamp(min=1 / ranks.count())  # at least 1 in all, as one process would have it


def _canvases(sizes: Tensor) -> Tensor:
    """(B, 2) height, width of each image's canvas: its own size rounded up to the stride, whatever the batch's is."""
    return (sizes + STRIDES[-1] - 1) // STRIDES[-1] * STRIDES[-1]


def _known(targets: Targets) -> Tensor:
    """(G,) bool: of an object with a box alone no mask is learned."""
    return targets.masks[:, 0, 0] != UNKNOWN
