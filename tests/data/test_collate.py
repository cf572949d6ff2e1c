"""Batches and orders."""

import numpy as np
import pytest
import torch

from queryinst.data.collate import EpochSampler, FixedSampler, VideoSampler, collate, collate_pairs, join, pad
from queryinst.data.dataset import Sample
from queryinst.data.transforms import Instances
from queryinst.ops.masks import LocalMask
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


def targets_of(labels: list[int], tracks: list[int] | None) -> Targets:
    """Each tensor with values of its own, counted on from the first label."""
    first, count = (labels or [0])[0], len(labels)
    return Targets(
        torch.arange(4.0 * count).reshape(count, 4) + first,
        torch.tensor(labels, dtype=torch.int64),
        torch.full((count, 2, 2), first, dtype=torch.uint8),
        torch.arange(4.0 * count).reshape(count, 4) - first,
        [count],
        None if tracks is None else torch.tensor(tracks),
    )


def test_each_column_of_the_ground_truth_is_joined_with_itself():
    one, two = targets_of([5, 6], [8, 9]), targets_of([7], [3])
    joined = join([one, targets_of([], None), two])
    assert joined.counts == [2, 0, 1]
    for name in ("boxes", "labels", "masks", "mask_boxes", "tracks"):
        expected = torch.cat([getattr(one, name), getattr(two, name)])
        assert torch.equal(getattr(joined, name), expected), name
    assert join([targets_of([5], None)]).tracks is None


def test_images_lie_at_the_top_left_of_black_padding():
    images = [torch.randint(1, 256, (3, *size), dtype=torch.uint8) for size in ((32, 65), (33, 1), (1, 64))]
    canvas, sizes = pad(images)
    assert canvas.dtype == torch.uint8
    assert sizes.tolist() == [[32, 65], [33, 1], [1, 64]]
    assert canvas.shape == (3, 3, 64, 96)
    for place, image in zip(canvas, images, strict=True):
        height, width = image.shape[1:]
        assert torch.equal(place[:, :height, :width], image)
        assert place.count_nonzero() == image.numel()
    assert pad([torch.zeros(3, 32, 64, dtype=torch.uint8)])[0].shape == (1, 3, 32, 64)


def test_pairs_come_one_after_another():
    batch = collate_pairs([[sample(4, 5, 1, 3), sample(4, 6, 0, 1)], [sample(4, 7, 2, 2), sample(4, 8, 1, 5)]])
    assert batch.image_ids == [3, 1, 2, 5]
    assert batch.sizes[:, 1].tolist() == [5, 6, 7, 8]
    assert batch.original_sizes.tolist() == [[8, 10], [8, 12], [8, 14], [8, 16]]
    assert batch.targets.labels.tolist() == [3, 2, 2, 5]


def test_one_pixel_travels_to_the_batch():
    """An object of one pixel, of which the stored mask has one pixel, at its place in the second image."""
    outline = LocalMask(np.ones((1, 1), np.uint8), 6, 4)
    instances = Instances(np.array([[6.0, 4, 7, 5]]), np.array([2]), [outline])
    regions = instances.regions(9, 11, 8)
    targets = Targets(
        torch.from_numpy(instances.boxes.astype(np.float32)),
        torch.from_numpy(instances.labels),
        torch.from_numpy(instances.draw(regions, 8, 9, 11)),
        torch.from_numpy(regions),
        [1],
    )
    batch = collate([sample(40, 50, 0, 1), Sample(torch.ones(3, 9, 11, dtype=torch.uint8), (9, 11), 4, targets)])
    assert batch.targets.boxes.tolist() == [[6, 4, 7, 5]]
    ((_, row, column),) = batch.targets.masks.nonzero().tolist()
    assert (batch.targets.mask_boxes[0, :2] + torch.tensor([column, row])).tolist() == [6, 4]


def test_to_moves_everything():
    batch = collate([sample(40, 70, 2, 1)]).to("meta")
    assert batch.images.is_meta
    assert batch.targets.masks.is_meta
    assert batch.image_ids == [1]


@pytest.mark.parametrize(
    ("length", "batch", "world"), [(21, 2, 1), (21, 2, 3), (3, 4, 2), (8, 4, 2), (9, 4, 2), (7, 4, 2), (1, 1, 1)]
)
def test_every_rank_takes_its_part_of_one_permutation(length: int, batch: int, world: int):
    """Of as many images as fill batches on all ranks; a smaller set is repeated to fill one."""
    for seed, epoch in ((5, 0), (6, 3)):
        permutation = np.random.default_rng([seed, epoch]).permutation(length).tolist()
        steps = max(1, length // (batch * world))
        expected = [permutation[place % length] for place in range(steps * batch * world)]
        for rank in range(world):
            sampler = EpochSampler(length, batch, seed, rank, world)
            sampler.set_epoch(epoch)
            assert list(sampler) == [(epoch, position) for position in expected[rank::world]]
            assert len(sampler) == steps * batch
    first = np.random.default_rng([5, 0]).permutation(9)[:8].tolist()
    assert list(EpochSampler(9, 2, 5)) == [(0, position) for position in first], "alone, in the first epoch"


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
    assert parts[-1] == [(0, position) for position in range(world - 1, 21, world)]
    assert list(FixedSampler(3)) == [(0, 0), (0, 1), (0, 2)]


def test_evaluation_sees_every_video_whole():
    assert list(VideoSampler([3, 1, 4, 2])) == [(0, position) for position in range(10)]
    parts = [list(VideoSampler([3, 1, 4, 2], rank, 2)) for rank in (0, 1)]
    assert parts[0] == [(0, position) for position in (0, 1, 2, 4, 5, 6, 7)]
    assert parts[1] == [(0, position) for position in (3, 8, 9)]
    assert [len(VideoSampler([3, 1, 4, 2], rank, 2)) for rank in (0, 1)] == [7, 3]


def test_groups_are_a_permutation_of_batches_of_each_kind():
    groups = np.arange(40) % 3 == 0  # 14 and 26 images: 3 and 6 batches of 4
    rng = np.random.default_rng([7, 2])
    order = rng.permutation(40).tolist()
    batches = []
    for kind in (False, True):
        images = [position for position in order if groups[position] == kind]
        batches += [images[begin : begin + 4] for begin in range(0, len(images) - 3, 4)]
    expected = [position for batch in rng.permutation(batches).tolist() for position in batch]
    for rank in (0, 1):
        sampler = EpochSampler(40, 2, 7, rank, 2, groups)
        sampler.set_epoch(2)
        assert list(sampler) == [(2, position) for position in expected[rank::2]]


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
    assert len(set(positions)) == length


def test_resuming_within_an_epoch():
    """Only the epoch that was begun goes on behind its batches: those before and after it are whole."""

    def epoch(number: int) -> list[tuple[int, int]]:
        sampler = EpochSampler(12, 2, 7)
        sampler.set_epoch(number)
        return list(sampler)

    sampler = EpochSampler(12, 2, 7)
    sampler.resume(3, 4)
    assert list(sampler) == epoch(3)[8:]
    assert len(sampler) == len(epoch(3)) == 12
    for number in (4, 2, 0):
        sampler.set_epoch(number)
        assert list(sampler) == epoch(number)
    sampler.set_epoch(3)
    assert list(sampler) == epoch(3)[8:]
