"""Denoising, a one-to-many branch and recollection: what each puts before the stages."""

import pytest
import torch
from conftest import SMALL, random_batch, random_targets, small_model
from torch import Tensor, nn

from queryinst.config import ModelConfig
from queryinst.errors import UserError
from queryinst.models.groups import Group, Start
from queryinst.models.signals import Denoising, OneToMany, Signals
from queryinst.signals_config import DenoisingConfig, OneToManyConfig, RecollectionConfig, SignalsConfig
from queryinst.structures import StageOutput, Targets

SIZES = torch.tensor([[64, 64], [64, 64]])


def denoised(targets: Targets, **settings: float | bool) -> tuple[Group, Start]:
    group = Denoising(DenoisingConfig(**settings), 16, 3)(targets, SIZES[:1].expand(len(targets.counts), 2))  # type: ignore[arg-type]
    assert group.start
    return group, group.start


@pytest.mark.parametrize(
    ("number", "negatives", "copies"),
    [(12, True, (2, 6)), (12, False, (4, 12)), (17, True, (2, 8)), (1, True, (1, 1)), (1, False, (1, 1))],
)
def test_each_image_has_as_many_copies_of_its_objects_as_fit(number: int, negatives: bool, copies: tuple[int, int]):
    targets, kinds = random_targets([3, 1]), 1 + negatives
    group, start = denoised(targets, number=number, negatives=negatives)
    sizes = [3 * copies[0] * kinds, copies[1] * kinds]
    assert start.boxes.shape == (2, max(sizes), 4)
    assert start.absent is not None
    assert (~start.absent).sum(1).tolist() == sizes
    assert group.given
    assert group.given.target[0].bincount().tolist() == [copies[0]] * 3 + [copies[1]]


def test_a_copy_sees_its_positives_and_negatives_and_no_other_copy():
    _, start = denoised(random_targets([2, 1]), number=8)
    assert start.hidden is not None
    seen = [["".join(".x"[value] for value in row) for row in image] for image in (~start.hidden).int().tolist()]
    assert seen[0] == ["xxxx...."] * 4 + ["....xxxx"] * 4
    assert seen[1] == ["xx......"] * 2 + ["..xx...."] * 2 + ["....xx.."] * 2 + ["......xx"] * 2
    _, start = denoised(random_targets([2, 1, 0]), number=4)
    assert start.hidden is not None
    assert start.absent is not None
    assert start.absent.any(1).tolist() == [False, False, True]
    assert torch.equal(~start.hidden[2], torch.eye(4, dtype=torch.bool)), "who is absent sees itself, or there were NaN"


def test_each_positive_is_given_the_object_that_it_was_made_of():
    """Without noise a query's box is that of its object, and its features are those of the class."""
    targets = random_targets([3, 1])
    made = Denoising(DenoisingConfig(number=12, box_noise=0.0, label_noise=0.0), 16, 3)
    group = made(targets, SIZES)
    assert group.start
    assert group.given
    image, query, target = group.given.image, group.given.query[0], group.given.target[0]
    torch.testing.assert_close(group.start.boxes[image, query], targets.boxes[target])
    torch.testing.assert_close(group.start.queries[image, query], made.labels(targets.labels[target]))
    assert target.bincount().tolist() == [2, 2, 2, 6]
    assert len(set(zip(image.tolist(), query.tolist(), strict=True))) == 12, "a query has one object"
    first = torch.tensor([0, 0, 0, 1])  # the image of each object
    assert torch.equal(image, first[target])


def test_noise_moves_corners_by_up_to_its_share_and_negatives_further():
    boxes = torch.tensor([[20.0, 24.0, 40.0, 34.0]])
    targets = Targets(boxes, torch.zeros(1, dtype=torch.int64), torch.ones(1, 8, 8, dtype=torch.uint8), boxes, [1])
    _, start = denoised(targets, number=4000, box_noise=0.5)
    half = torch.tensor([10.0, 5.0, 10.0, 5.0])
    share = ((start.boxes[0] - boxes) / half).abs().view(2000, 2, 4)  # copies, kinds
    assert share[:, 0].max() <= 0.5
    assert 0.49 < share[:, 0].amax() < share[:, 1].amax() <= 1
    assert share[:, 1].min() >= 0.5
    assert 0.2 < share[:, 0].mean() < 0.3
    moved = (start.boxes[0] - boxes).view(2000, 2, 4)
    assert 0.45 < (moved > 0).float().mean() < 0.55, "out and in"


def test_noised_boxes_stay_boxes_within_their_images():
    targets, sizes = random_targets([4, 4], height=48, width=64), torch.tensor([[48, 64], [48, 64]])
    group = Denoising(DenoisingConfig(number=800, box_noise=0.99), 16, 3)(targets, sizes)
    assert group.start
    assert group.given
    boxes = group.start.boxes
    assert (boxes >= 0).all()
    assert (boxes <= torch.tensor([64, 48, 64, 48])).all()
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    positive = boxes[group.given.image, group.given.query[0]]
    assert (positive[..., 2:] > positive[..., :2]).all()


def test_labels_are_drawn_anew_as_often_as_asked_for():
    made = Denoising(DenoisingConfig(label_noise=0.3), 16, 3)
    labels = torch.full((30_000,), 2)
    changed = made._labels(labels)
    assert 0.18 < (changed != 2).float().mean() < 0.22, "one in three that are drawn anew is as before"
    assert changed.unique().tolist() == [0, 1, 2]


@pytest.mark.parametrize("counts", [[0], [0, 0]])
def test_images_without_objects_have_no_noised_ones(counts: list[int]):
    """The group is there all the same: processes that train together need a gradient of each parameter."""
    made = Denoising(DenoisingConfig(), 16, 3)
    group = made(random_targets(counts), SIZES[: len(counts)])
    assert group.start
    assert group.given
    assert group.start.boxes.shape == (len(counts), 0, 4)
    assert group.given.query.shape == (1, 0)
    group.start.queries.sum().backward()
    assert made.labels.weight.grad is not None


def test_a_one_to_many_branch_has_queries_of_its_own():
    model = ModelConfig(**SMALL)
    branch = OneToMany(OneToManyConfig(num_proposals=9, times=4, weight=0.5), model)
    group = branch(SIZES)
    assert group.start
    assert group.start.boxes.shape == (2, 9, 4)
    assert (group.times, group.given, group.weight, group.start.hidden) == (4, None, 0.5, None)
    assert {name for name, _ in branch.named_parameters()} == {"queries.boxes", "queries.features"}


def test_groups_come_as_they_are_asked_for():
    config = SignalsConfig(DenoisingConfig(masks=False), OneToManyConfig(), RecollectionConfig(weight=2.0))
    head = small_model().stages[0].box
    signals = Signals(config, ModelConfig(**SMALL), 3, head)
    groups = signals(random_batch([1, 2]).targets, SIZES)
    assert [group.name for group in groups] == signals.names == ["denoising", "one_to_many", "recollection"]
    assert [group.masks for group in groups] == [False, True, True]
    assert [group.weight for group in groups] == [1.0, 1.0, 2.0]
    assert groups[2].start is None
    nothing = Signals(SignalsConfig(), ModelConfig(**SMALL), 3, head)
    assert nothing(random_batch([1, 2]).targets, SIZES) == []
    assert not nothing.state_dict()


class Plain(nn.Module):
    """A head that knows nothing of groups."""

    def forward(self, queries: Tensor, regions: Tensor, boxes: Tensor) -> StageOutput:
        raise NotImplementedError


def test_a_head_that_cannot_keep_groups_apart_is_refused():
    model = ModelConfig(**SMALL)
    model.box_head.name = "mine:Plain"
    with pytest.raises(UserError, match=r"^signals\.recollection needs a box head that .*name=mine:Pl"):
        Signals(SignalsConfig(recollection=RecollectionConfig()), model, 3, Plain())
    Signals(SignalsConfig(), model, 3, Plain())
