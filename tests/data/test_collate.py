"""Batches and orders."""

import numpy as np
import pytest
import torch

from queryinst.data.coco import Sample
from queryinst.data.collate import EpochSampler, FixedSampler, collate
from queryinst.structures import Targets


def sample(height: int, width: int, objects: int, image_id: int) -> Sample:
    targets = Targets(
        torch.full((objects, 4), float(image_id)),
        torch.full((objects,), image_id),
        torch.zeros(objects, 8, 8, dtype=torch.uint8),
        torch.zeros(objects, 4),
        [objects],
    )
    return Sample(
        torch.full((3, height, width), 9, dtype=torch.uint8),
        (height * 2, width * 2),
        image_id,
        targets,
        ("x",) * image_id,
    )


def test_collate_pads_and_joins():
    batch = collate([sample(40, 70, 2, 1), sample(64, 10, 0, 2), sample(5, 5, 1, 0)])
    assert batch.images.shape == (3, 3, 64, 96)
    assert batch.images[0].sum() == 9 * 3 * 40 * 70
    assert batch.sizes.tolist() == [[40, 70], [64, 10], [5, 5]]
    assert batch.original_sizes[1].tolist() == [128, 20]
    assert batch.targets.counts == [2, 0, 1]
    assert batch.targets.labels.tolist() == [1, 1, 0]
    assert batch.problems == ["x", "x", "x"]


def test_to_moves_everything():
    batch = collate([sample(40, 70, 2, 1)]).to("meta")
    assert batch.images.is_meta
    assert batch.targets.masks.is_meta
    assert batch.image_ids == [1]


@pytest.mark.parametrize(("length", "batch", "world"), [(21, 2, 1), (21, 2, 3), (3, 4, 2), (8, 4, 2)])
def test_every_rank_takes_its_part_of_one_permutation(length: int, batch: int, world: int):
    parts = [list(EpochSampler(length, batch, seed=5, rank=rank, world=world)) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert len(parts[0]) == len(EpochSampler(length, batch, 5, 0, world))
    assert len(parts[0]) % batch == 0
    taken = [position for part in parts for _, position in part]
    if length >= batch * world:
        assert len(set(taken)) == len(taken)
    assert set(taken) <= set(range(length))


def test_the_order_depends_on_seed_and_epoch():
    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        sampler = EpochSampler(50, 5, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 0) == order(0, 0)
    assert [p for _, p in order(0, 0)] != [p for _, p in order(0, 1)]
    assert [p for _, p in order(0, 0)] != [p for _, p in order(1, 0)]
    assert {epoch for epoch, _ in order(0, 3)} == {3}


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_image_once(world: int):
    parts = [list(FixedSampler(21, rank, world)) for rank in range(world)]
    assert sorted(position for part in parts for _, position in part) == list(range(21))
    assert [len(FixedSampler(21, rank, world)) for rank in range(world)] == [len(part) for part in parts]


def test_groups_do_not_mix():
    """Every batch of all ranks together is of one kind, in an order that depends on seed and epoch."""
    groups = np.arange(40) % 3 == 0  # 14 and 26 images: 3 and 6 batches of 4
    orders = []
    for rank in (0, 1):
        sampler = EpochSampler(40, 2, 7, rank, 2, groups)
        assert len(sampler) == 18
        orders.append(np.array([position for _, position in sampler]).reshape(-1, 2))
    batches = np.concatenate(orders, axis=1)
    assert all(len(set(groups[batch])) == 1 for batch in batches)
    assert len(set(batches.ravel())) == 36
    kinds = groups[batches[:, 0]]
    assert kinds.sum() == 3
    assert not (np.sort(kinds) == kinds).all(), "all of one kind would come first"


@pytest.mark.parametrize(("tall", "length"), [(0, 12), (1, 8), (2, 8)])
def test_a_kind_with_too_few_images_for_a_batch(tall: int, length: int):
    groups = np.arange(12) < tall
    sampler = EpochSampler(12, 4, 7, groups=groups)
    positions = [position for _, position in sampler]
    assert len(positions) == len(sampler) == length
    assert not groups[positions].any()


def test_resuming_within_an_epoch():
    whole = list(EpochSampler(12, 2, 7))
    sampler = EpochSampler(12, 2, 7)
    sampler.resume(0, 4)
    assert list(sampler) == whole[8:]
    assert len(sampler) == 12
    sampler.set_epoch(1)
    assert len(list(sampler)) == 12
