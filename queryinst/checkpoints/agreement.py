"""Whether an exported file finds what the network finds, at sizes and batches that it was not made with."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from queryinst.config import PostprocessConfig
from queryinst.models.postprocess import certainty, detect
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import STRIDES

LIMIT = 1e-4  # of scores and mask probabilities; of boxes, as a part of the longer side of the canvas
CANVASES = ((256, 320), (300, 236))  # height, width; the second is no multiple of 32
BATCHES = (1, 2)
MARGIN = 50  # detections beyond the last: which of two equal scores comes last is rounding

Runner = Callable[[Tensor, Tensor], list[Tensor]]  # images, sizes to boxes, scores, labels, masks


class Difference(NamedTuple):
    """The largest differences between two sets of detections."""

    scores: float
    boxes: float  # over the longer side of the canvas
    masks: float

    def __str__(self) -> str:
        return f"scores {self.scores:.1e}, boxes {self.boxes:.1e} of the longer side, masks {self.masks:.1e}"

    @property
    def small(self) -> bool:
        """Whether all are within the limit; NaN is not."""
        return all(value <= LIMIT for value in self)


@torch.no_grad()
def compare(model: QueryInst, config: PostprocessConfig, run: Runner) -> Difference:
    """The largest difference between the network (as it evaluates) and `run`, over all canvases and batches."""
    config = dataclasses.replace(config, min_side=0)
    generator = torch.Generator().manual_seed(0)
    found = [
        _compare(model, config, run, *_images(batch, height, width, generator))
        for height, width in CANVASES
        for batch in BATCHES
    ]
    return Difference(*torch.stack(found).amax(0).tolist())


def _images(batch: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Patches of colour, and sizes of which the first is the whole canvas, said by zeros, and each next one smaller.

    They run into each other as in a photo. On hard edges and noise, masks in float32 are off by up to the limit anyway.
    """
    cells = torch.randint(256, (batch, 3, height // 16, width // 16), generator=generator).float()
    images = F.interpolate(cells, (height, width), mode="bilinear").to(torch.uint8)
    sizes = torch.tensor([[height - 40 * i, width - 24 * i] for i in range(batch)])
    return images, sizes * torch.arange(batch).clamp(max=1)[:, None]


def _compare(model: QueryInst, config: PostprocessConfig, run: Runner, images: Tensor, sizes: Tensor) -> Tensor:
    """The largest differences of scores, boxes and masks over the images of one batch: (3,)."""
    boxes, scores, labels, masks = (found.nan_to_num(torch.inf) for found in run(images, sizes))
    height, width = images.shape[2:]
    sizes = torch.where(sizes > 0, sizes, torch.tensor([height, width]))
    images = F.pad(images, (0, -width % STRIDES[-1], 0, -height % STRIDES[-1]))
    config = dataclasses.replace(config, max_detections=scores.shape[1] + MARGIN)
    worst = []
    for i, ours in enumerate(detect(model, model(images, sizes), sizes, sizes, config)):
        parts = torch.stack(
            [
                (scores[i][:, None] - ours.scores).abs(),
                (boxes[i][:, None] - ours.boxes).abs().amax(-1) / max(height, width),
                torch.cdist(masks[i].flatten(1), ours.masks.flatten(1), p=torch.inf),
            ]
        )
        parts = parts.where(labels[i][:, None] == ours.labels, torch.inf)
        # Equal scores may come in any order: each has to have its like on the other side.
        theirs = parts.amax(0).argmin(1)
        least = _class_scores(scores[i], masks[i], config.mask_score, torch.inf).amin()
        back = torch.nonzero(_class_scores(ours.scores, ours.masks, config.mask_score, 0.0) > least + LIMIT).squeeze(1)
        mine = parts.amax(0)[:, back].argmin(0)
        worst += [parts[:, torch.arange(len(theirs)), theirs], parts[:, mine, back]]
    return torch.cat(worst, dim=1).amax(1)


def _class_scores(scores: Tensor, masks: Tensor, power: float, unknown: float) -> Tensor:
    """What decides who is kept, before the mask counted; `unknown` where the mask is empty and the score 0."""
    factor = certainty(masks) ** power
    return (scores / factor).where(factor > 0, unknown)
