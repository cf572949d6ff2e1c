"""What else a network learns from in training: the groups that `signals` of the configuration asks for."""

import inspect
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from queryinst.config import ModelConfig
from queryinst.errors import UserError
from queryinst.models.groups import Group, Start
from queryinst.models.proposals import Proposals
from queryinst.ops import boxes as box_ops
from queryinst.signals_config import DenoisingConfig, OneToManyConfig, SignalsConfig
from queryinst.structures import Matches, Targets


class Signals(nn.Module):
    """Makes the groups of a training step. Whatever of it learns is no part of the network and of its weights.

    Args:
        config: which groups.
        model: of the network that they train.
        num_classes: K.
        head: its box heads, of which one must be able to keep groups apart.

    Raises:
        UserError: the box head, somebody's own, cannot keep groups apart.
    """

    def __init__(self, config: SignalsConfig, model: ModelConfig, num_classes: int, head: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.denoising = Denoising(config.denoising, model.width, num_classes) if config.denoising else None
        self.one_to_many = OneToMany(config.one_to_many, model) if config.one_to_many else None
        self.names = [name for name, value in vars(config).items() if value]  # of the groups, in order
        if self.names and "sights" not in inspect.signature(head.forward).parameters:
            raise UserError(
                f"signals.{self.names[0]} needs a box head that keeps groups of queries apart, and model.box_head.name="
                f"{model.box_head.name} has no argument `sights` (queryinst/parts.py: BoxHeadPart): add it, or leave "
                "signals out"
            )

    def forward(self, targets: Targets, sizes: Tensor) -> list[Group]:
        """The groups for images of `sizes` (B, 2) height, width, with ground truth `targets`."""
        groups = []
        if self.denoising:
            groups.append(self.denoising(targets, sizes))
        if self.one_to_many:
            groups.append(self.one_to_many(sizes))
        if recollection := self.config.recollection:
            groups.append(Group("recollection", None, masks=recollection.masks, weight=recollection.weight))
        return groups


class OneToMany(nn.Module):
    """Queries of their own, of which several are matched with each object: more positives a step (H-DETR, section 3.2).

    There the branch shares all layers with the one-to-one branch, and is dropped at test. Here likewise.
    """

    def __init__(self, config: OneToManyConfig, model: ModelConfig) -> None:
        super().__init__()
        self.config = config
        number = config.num_proposals or 3 * model.num_proposals
        self.queries = Proposals(number, model.width, model.proposal_init, model.detach_proposals)

    def forward(self, sizes: Tensor) -> Group:
        """The group for images of `sizes` (B, 2) height, width."""
        config = self.config
        return Group("one_to_many", Start(*self.queries(sizes)), config.times, None, config.masks, config.weight)


class Denoising(nn.Module):
    """Ground truth with noise: queries that start near an object and know it, so that refining is learned at once.

    DN-DETR, section 4: a query is the embedding of a class, and its box is the object's, both with noise. Copies do not
    see one another. DINO, section 3.3 and its code: corners move by up to `box_noise` half sides, those of negatives by
    one to two times as much; a negative sees its positive and is to find nothing.
    """

    def __init__(self, config: DenoisingConfig, width: int, num_classes: int) -> None:
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.labels = nn.Embedding(num_classes, width)

    def forward(self, targets: Targets, sizes: Tensor) -> Group:
        """The group for images of `sizes` (B, 2) height, width, with ground truth `targets`."""
        config, plan = self.config, Plan.of(targets.counts, self.config.number, 1 + self.config.negatives)
        objects, negative, copy, absent = (_moved(values, sizes.device) for values in plan[:4])
        boxes = self._boxes(targets.boxes[objects], negative, sizes)
        queries = self.labels(self._labels(targets.labels[objects]))
        hidden = copy[:, :, None] != copy[:, None] if plan.pairs.size else None  # PyTorch wants no mask for nobody
        start = Start(boxes, queries, hidden, absent)
        image, query, target = _moved(plan.pairs, sizes.device)
        given = Matches(image, query[None], target[None])
        return Group("denoising", start, 1, given, config.masks, config.weight)

    def _boxes(self, boxes: Tensor, negative: Tensor, sizes: Tensor) -> Tensor:
        """(B, n, 4) with noise, inside their images; twice as much at most where `negative` (B, n)."""
        half = (boxes[..., 2:] - boxes[..., :2]).tile(2) / 2
        share = torch.rand_like(boxes) + negative[..., None]
        moved = boxes + share * torch.sign(torch.rand_like(boxes) - 0.5) * self.config.box_noise * half
        low, high = torch.minimum(moved[..., :2], moved[..., 2:]), torch.maximum(moved[..., :2], moved[..., 2:])
        return box_ops.clip(torch.cat([low, high], dim=-1), sizes[:, None])

    def _labels(self, labels: Tensor) -> Tensor:
        """Any shape: some of them are drawn anew."""
        others = torch.randint_like(labels, self.num_classes)
        return torch.where(torch.rand(labels.shape, device=labels.device) < self.config.label_noise, others, labels)


class Plan(NamedTuple):
    """Which noised query is made of which object: arrays (B, n), n of the image that has most, and the pairs (3, M)."""

    objects: NDArray[np.int64]  # in 0..G-1
    negative: NDArray[np.bool_]
    copy: NDArray[np.int64]  # queries of one number see one another
    absent: NDArray[np.bool_]
    pairs: NDArray[np.int64]  # image, query and object of each positive

    @classmethod
    def of(cls, counts: list[int], number: int, kinds: int) -> "Plan":
        """As many copies as fit into `number` for each image, at least one: first its positives, then its negatives."""
        sizes = [max(number // (kinds * count), 1) * kinds * count if count else 0 for count in counts]
        slot = np.tile(np.arange(max(sizes)), (len(counts), 1))
        count, first = np.array(counts)[:, None], np.cumsum([0, *counts[:-1]])[:, None]
        place, kind = slot % np.maximum(count, 1), slot // np.maximum(count, 1)
        copy = slot // np.maximum(count * kinds, 1)
        negative, absent = kind % kinds == 1, slot >= np.array(sizes)[:, None]
        objects = np.where(absent, 0, first + place)
        image, query = np.nonzero(~(negative | absent))
        pairs = np.stack([image, query, objects[image, query]])
        return cls(objects, negative, copy, absent, pairs)


def _moved(values: NDArray[Any], device: torch.device) -> Tensor:
    """On the device, and nobody waits for it."""
    return torch.from_numpy(values).to(device, non_blocking=True)
