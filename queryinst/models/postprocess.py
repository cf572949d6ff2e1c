"""From a stage's output to detections in pixels of the original image (reference, 1.11 and 1.12)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from queryinst.config import PostprocessConfig
from queryinst.models.queryinst import QueryInst
from queryinst.ops import boxes as box_ops
from queryinst.structures import Detections, Output, Rows


@dataclass(frozen=True)
class Wanted:
    """Which pairs of query and class count at all; by default all of them, as average precision asks for."""

    score: float = 0.0  # at least
    labels: Sequence[int] | None = None  # only these classes; all by default
    one_class: bool = False  # only the best of a query's classes, whether that is wanted or not

    def of(self, scores: Tensor) -> Tensor:
        """(B, N, K) scores, with -1 for the pairs that do not count."""
        allowed = scores >= self.score
        if self.one_class:
            allowed &= scores >= scores.amax(-1, keepdim=True)
        if self.labels is not None:
            known = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
            known[list(self.labels)] = True
            allowed &= known
        return scores.masked_fill(~allowed, -1.0)


EVERYTHING = Wanted()


@torch.no_grad()
def detect(
    model: QueryInst,
    output: Output,
    sizes: Tensor,
    original_sizes: Tensor,
    config: PostprocessConfig,
    stage: int = -1,
    wanted: Wanted = EVERYTHING,
) -> list[Detections]:
    """The best of queries x classes of each image: no NMS, the class score is the mask's score too.

    A query may appear with several classes. Mask features are made once for every query that was kept, and the last
    convolution for the kept class only; so what is not wanted costs nothing. Embeddings come with them where the model
    has association heads. What was kept by its class score is ordered anew where masks count: by `config.mask_score`,
    or in a model that guesses their quality.

    Args:
        model, output: the network in evaluation mode, and what its `forward` returned.
        sizes: (B, 2) height, width of the resized images.
        original_sizes: (B, 2) height, width of the image files.
        config: how many to keep, and whether to clip.
        stage: whose classes, boxes and masks; the last by default.
        wanted: what is left out beforehand; nothing by default.

    Returns:
        B detections, best first.
    """
    stage = stage % len(output.stages)
    logits, boxes = output.stages[stage].logits.float(), output.stages[stage].boxes
    batch, number, classes = logits.shape
    kept = min(config.max_detections or number, number * classes)
    scores = logits.sigmoid() if wanted == EVERYTHING else wanted.of(logits.sigmoid())
    scores, index = scores.flatten(1).topk(kept, dim=1)
    query, label = index // classes, index % classes

    image = torch.arange(batch, device=query.device)[:, None].expand_as(query)
    extent, original = box_ops.extent(sizes), box_ops.extent(original_sizes)
    boxes = boxes[image, query] / (extent / original)[:, None]
    if config.clip_boxes:
        boxes = box_ops.clip(boxes, original_sizes[:, None])
    keep = ~(scores < 0)  # a NaN is kept: whoever evaluates names it
    if config.min_side:
        keep &= (boxes[..., 2:] - boxes[..., :2] > config.min_side).all(-1)

    rows = Rows(image[keep], query[keep], label[keep])
    drawn = model.draw(output, {stage: rows})[stage]
    masks = drawn.logits.float().sigmoid()
    counts, chosen = keep.sum(1).tolist(), output.stages[stage].chosen
    queries = rows.query if chosen is None else chosen[rows.image, rows.query]
    columns = (column.split(counts) for column in (boxes[keep], scores[keep], rows.label, masks, queries))
    found = [
        Detections(box, score, kind, mask, (int(height), int(width)), which)
        for box, score, kind, mask, which, (height, width) in zip(*columns, original_sizes.tolist(), strict=True)
    ]
    embeddings = model.embed(output, {stage: rows}).get(stage)
    if embeddings is not None:
        parts = embeddings.float().split(counts)
        found = [replace(one, embeddings=part) for one, part in zip(found, parts, strict=True)]
    factors = rescore(masks, drawn.quality, config.mask_score)
    if factors is None:
        return found
    return [
        _rescored(one, factor).above(wanted.score) for one, factor in zip(found, factors.split(counts), strict=True)
    ]


def certainty(masks: Tensor) -> Tensor:
    """Mean probability (...) inside masks (..., h, w) of probabilities: of what is object at 0.5; 0 without any."""
    inside = masks >= 0.5
    return (masks * inside).sum((-2, -1)) / inside.sum((-2, -1)).clamp(min=1)


def rescore(masks: Tensor, quality: Tensor | None, power: float) -> Tensor | None:
    """By what scores are multiplied for the sake of masks (..., h, w) of probabilities; None: they stay as they are.

    Args:
        quality: (...) logits of their IoU, where a network guesses it.
        power: of their certainty.
    """
    factor = certainty(masks) ** power if power else None
    if quality is None:
        return factor
    guess = quality.float().sigmoid()
    return guess if factor is None else guess * factor


def _rescored(found: Detections, factor: Tensor) -> Detections:
    scores = found.scores * factor
    return replace(found, scores=scores).take(scores.argsort(descending=True, stable=True))
