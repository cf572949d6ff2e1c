"""Samples to a batch, and the order of images."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from queryinst.data.dataset import Sample
from queryinst.ops.roi import STRIDES
from queryinst.structures import Batch, Targets


def collate(samples: list[Sample]) -> Batch:
    """Pad the images and put the ground truth one after another."""
    images, sizes = pad([sample.image for sample in samples])
    return Batch(
        images=images,
        sizes=sizes,
        original_sizes=torch.tensor([sample.original_size for sample in samples]),
        image_ids=[sample.image_id for sample in samples],
        targets=join([sample.targets for sample in samples]),
        problems=[problem for sample in samples for problem in sample.problems],
    )


def pad(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Images (3, h, w) uint8 on a canvas, padded bottom and right to a multiple of 32, and their sizes (B, 2)."""
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = sizes.amax(0).tolist()
    canvas = torch.zeros(len(images), 3, _padded(height), _padded(width), dtype=torch.uint8)
    for place, image in zip(canvas, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return canvas, sizes


def collate_pairs(pairs: list[list[Sample]]) -> Batch:
    """Images 2i and 2i + 1 of the batch are the i-th pair."""
    return collate([sample for pair in pairs for sample in pair])


def join(targets: list[Targets]) -> Targets:
    """Targets of several images as one."""

    def column(name: str) -> Tensor:
        return torch.cat([getattr(target, name) for target in targets])

    counts = [count for target in targets for count in target.counts]
    tracks = [
        target.tracks for target in targets if target.tracks is not None
    ]  # a blank image has none, and no objects
    return Targets(
        column("boxes"),
        column("labels"),
        column("masks"),
        column("mask_boxes"),
        counts,
        torch.cat(tracks) if tracks else None,
    )


def _padded(side: int) -> int:
    return -(-side // STRIDES[-1]) * STRIDES[-1]


class EpochSampler(Sampler[tuple[int, int]]):
    """The training order of one rank: a permutation that depends on (seed, epoch) only, as pairs (epoch, position).

    Every rank takes its part of the same permutation. The last images that do not fill a batch on every rank are left
    out of this epoch; a set smaller than one batch is repeated to fill it.

    Args:
        length: images in the set.
        batch: images per rank and loader batch.
        seed: of the order.
        rank, world: which part this process takes.
        groups: (length,) of bool; images of a batch, over all ranks, are all of one kind.
    """

    def __init__(
        self,
        length: int,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        groups: NDArray[np.bool_] | None = None,
    ) -> None:
        self.length, self.batch, self.seed, self.rank, self.world = length, batch, seed, rank, world
        self.groups = np.zeros(length, bool) if groups is None else groups
        self.epoch = 0
        self._resumed = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, batches: int) -> None:
        """Go on in an epoch of which so many batches are done."""
        self.epoch, self._resumed = epoch, (epoch, batches)

    def __len__(self) -> int:
        """Keys of a whole epoch, also where it was begun before."""
        whole = self.batch * self.world
        return max(1, sum(int((self.groups == kind).sum()) // whole for kind in (False, True))) * self.batch

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, batches = self._resumed
        done = batches * self.batch if epoch == self.epoch else 0
        for position in self._order()[self.rank :: self.world][done:]:
            yield self.epoch, int(position)

    def _order(self) -> NDArray[np.int64]:
        """The positions of an epoch, batch by batch, of all ranks."""
        rng, whole = np.random.default_rng([self.seed, self.epoch]), self.batch * self.world
        order = rng.permutation(self.length)
        kinds = [order[self.groups[order] == kind] for kind in (False, True)]
        batches = [kind[: len(kind) // whole * whole].reshape(-1, whole) for kind in kinds]
        if not all(map(len, batches)):  # one kind of image, or a set smaller than a batch
            return np.resize(order if not any(map(len, batches)) else max(batches, key=len), len(self) * self.world)
        return rng.permutation(np.concatenate(batches)).ravel()


class VideoSampler(Sampler[tuple[int, int]]):
    """The frames of one rank's videos, each video whole and in order, each exactly once over all ranks.

    Args:
        lengths: frames of each video.
        rank, world: every `world`-th video is this process's.
    """

    def __init__(self, lengths: Sequence[int], rank: int = 0, world: int = 1) -> None:
        ends = [0, *itertools.accumulate(lengths)]
        videos = [range(*span) for span in itertools.pairwise(ends)]
        self.positions = list(itertools.chain.from_iterable(videos[rank::world]))

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, position) for position in self.positions)


class FixedSampler(Sampler[tuple[int, int]]):
    """The images of one rank in file order, each exactly once over all ranks (ranks may differ in length by one)."""

    def __init__(self, length: int, rank: int = 0, world: int = 1) -> None:
        self.positions = range(rank, length, world)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, position) for position in self.positions)
