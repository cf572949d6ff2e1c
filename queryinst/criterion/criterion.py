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

    With association heads, `model.embed` takes what `model.predict_masks` does, and its values are `embeddings`. With
    `mask_quality`, `model.draw` in its place gives masks and `guesses`. All of it together: `lightning/groups.py`.
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
        guesses: Sequence[Tensor] = (),
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
            guesses: S tensors (M,), logits of the IoU of each mask, where the model guesses it; their squared error is
                part of the mask loss.
        """
        config, image, query, target = self.config, matches.image, matches.query, matches.target
        logits = torch.stack([stage.logits for stage in stages]).float()
        boxes = torch.stack([stage.boxes for stage in stages]).float()
        stage = torch.arange(len(stages), device=query.device)[:, None]

        boxes, wanted_boxes = boxes[stage, image, query], targets.boxes[target]
        mask_logits = [logits.float() for logits in masks]
        mask_loss, fit = self._of_masks(mask_logits, boxes, matches, targets, sizes, guesses)
        wanted = torch.zeros_like(logits)
        wanted[stage, image, query, targets.labels[target]] = self._quality(boxes, wanted_boxes, fit)
        sums = [
            config.class_weight * self.classification(logits, wanted),
            config.l1_weight * losses.l1(boxes, wanted_boxes, box_ops.extent(sizes)[image]),
            config.giou_weight * losses.giou(boxes, wanted_boxes),
            mask_loss,
        ]
        told = [replace(output, logits=every) for output, every in zip(stages, logits, strict=True)]
        for weight, term in self.further.values():
            own = term(told, mask_logits, matches, targets, sizes) if masks else torch.zeros_like(sums[0])
            sums.append(weight * own)
        if embeddings:
            assert targets.tracks is not None, "association learns from pairs of frames"
            linked = association(torch.stack(list(embeddings)), image, targets.tracks[target], config.association_loss)
            sums.append(config.association_weight * linked)
        return torch.stack(sums, dim=1) / losses.divisor(len(image), image.device)

    def _of_masks(
        self,
        masks: list[Tensor],
        boxes: Tensor,
        matches: Matches,
        targets: Targets,
        sizes: Tensor,
        guesses: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        """(S,) weighted sums for masks in boxes (S, M, 4), and (S, M) how well each fits, where somebody asks for it.

        Of an object with a box alone nobody knows: there it is the IoU of the box.
        """
        if not masks:
            return boxes.new_zeros(len(boxes)), None
        config, target, drawn = self.config, matches.target, torch.stack(masks)
        known, side = _known(targets)[target], drawn.shape[-1]
        asked = bool(guesses) or config.class_target == "mask"
        # The canvas of an image is its own size rounded up to the stride, whatever the rest of the batch is.
        canvas = (sizes[matches.image] + STRIDES[-1] - 1) // STRIDES[-1] * STRIDES[-1]
        place = (boxes.detach().flatten(0, 1), target.flatten(), targets, canvas.repeat(len(masks), 1))
        fit, compared = None, drawn
        if asked or not config.mask_points:
            wanted = losses.mask_targets(*place, side, config.mask_samples).view_as(drawn)
        if asked:
            overlap = box_ops.iou(boxes.detach(), targets.boxes[target])
            fit = torch.where(known, losses.mask_iou(drawn, wanted, boxes.detach(), target, targets), overlap)
        if config.mask_points:
            where = points.unsure_points(drawn.flatten(0, 1), config.mask_points)
            compared = points.read(drawn.flatten(0, 1), where).unflatten(0, target.shape)
            wanted = points.objects_at(where, *place).unflatten(0, target.shape)
        loss = config.mask_weight * losses.dice(compared, wanted, known)
        if config.mask_entropy_weight:
            loss = loss + config.mask_entropy_weight * losses.mask_entropy(compared, wanted, known)
        if guesses:
            assert fit is not None
            error = (torch.stack(list(guesses)).float().sigmoid() - fit).square() * known
            loss = loss + config.mask_quality_weight * error.sum(1)
        return loss, fit

    def _quality(self, boxes: Tensor, wanted_boxes: Tensor, fit: Tensor | None) -> Tensor | float:
        """(S, M): what the scores of the matched queries should be. `fit`: of their masks; None: nobody drew them."""
        if self.config.class_target == "one":
            return 1.0
        if self.config.class_target == "mask" and fit is not None:
            return fit
        return box_ops.iou(boxes.detach(), wanted_boxes)

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


def _known(targets: Targets) -> Tensor:
    """(G,) bool: of an object with a box alone no mask is learned."""
    return targets.masks[:, 0, 0] != UNKNOWN
