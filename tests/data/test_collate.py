"""Batches and orders."""

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
