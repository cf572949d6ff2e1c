"""The criterion end to end: normalisation, what gets gradient, and the edges."""

import pytest
import torch
from conftest import random_batch, small_model
from torch import Tensor

from queryinst.criterion.criterion import Criterion
from queryinst.criterion.matcher import NonFiniteError
from queryinst.criterion_config import CriterionConfig
from queryinst.models.queryinst import QueryInst
from queryinst.structures import UNKNOWN, Batch, StageOutput


def losses_of(model: QueryInst, batch: Batch, config: CriterionConfig | None = None) -> Tensor:
    criterion = Criterion(config or CriterionConfig())
    output = model(batch.images, batch.sizes)
    matches = criterion.match(output.stages, batch.targets, batch.sizes)
    masks = model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels))))
    return criterion(output.stages, list(masks.values()), matches, batch.targets, batch.sizes)


@pytest.mark.parametrize(
    "counts", [[2, 3], [0, 3], [0, 0], [9, 1]], ids=["plain", "one empty", "all empty", "more than queries"]
)
def test_every_parameter_gets_a_gradient(counts: list[int]):
    """Also without ground truth: distributed training waits for every gradient."""
    model = small_model()
    losses = losses_of(model, random_batch(counts))
    assert losses.shape == (2, 4)
    assert losses.isfinite().all()
    losses.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("counts", [[0, 0], [0, 1]])
def test_batchnorm_statistics_move_with_ground_truth_and_stay_without(counts: list[int]):
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items() if ".mask." in key and "running" in key}
    assert len(before) == 4, "mean and variance of a mask convolution in each of two stages"
    losses_of(model, random_batch(counts))
    after = model.state_dict()
    assert {torch.equal(value, after[key]) for key, value in before.items()} == {sum(counts) == 0}


@pytest.mark.parametrize(("column", "name"), [(0, "class"), (1, "l1"), (2, "giou"), (3, "mask")])
def test_each_term_has_its_own_weight(column: int, name: str):
    model, batch = small_model().eval(), random_batch([2, 3])
    expected = losses_of(model, batch)
    expected[:, column] *= 9 / getattr(CriterionConfig(), f"{name}_weight")
    torch.testing.assert_close(losses_of(model, batch, CriterionConfig(**{f"{name}_weight": 9.0})), expected)


def test_two_images_are_the_mean_of_each_alone():
    """With as many objects in each: the sums add up and the divisor is their number."""
    model = small_model().eval()
    both, alone = random_batch([3, 3]), []
    for index in range(2):
        part = slice(3 * index, 3 * index + 3)
        targets = both.targets
        alone.append(
            Batch(
                both.images[index : index + 1],
                both.sizes[index : index + 1],
                both.sizes[index : index + 1],
                [index],
                type(targets)(
                    targets.boxes[part], targets.labels[part], targets.masks[part], targets.mask_boxes[part], [3]
                ),
                [],
            )
        )
    torch.testing.assert_close(
        losses_of(model, both), sum(losses_of(model, one) for one in alone) / 2, rtol=1e-4, atol=1e-5
    )


def test_one_pixel_objects():
    """Two in one image. A box of one pixel is right, one of 2 x 2 has a quarter of it; the second image is empty."""
    batch = random_batch([2, 0])
    batch.targets.boxes[:] = torch.tensor([[10.0, 10, 11, 11], [40, 50, 41, 51]])
    batch.targets.labels[:] = torch.tensor([1, 2])
    batch.targets.masks[:] = 0
    batch.targets.masks[0, 10, 10] = batch.targets.masks[1, 50, 40] = 1
    boxes = torch.tensor([[[40.0, 50, 42, 52], [0, 0, 64, 64], [10, 10, 11, 11]]]).repeat(2, 1, 1)
    logits = torch.full((2, 3, 3), -100.0)
    logits[0, 0, 2] = logits[0, 2, 1] = 100.0
    unused = torch.zeros(2, 3, 1)
    stages, criterion = [StageOutput(logits, boxes, unused, unused)], Criterion(CriterionConfig())
    matches = criterion.match(stages, batch.targets, batch.sizes)
    assert (matches.query.tolist(), matches.target.tolist()) == ([[0, 2]], [[1, 0]])
    quarter, round_one = torch.full((4, 4), -100.0), torch.full((4, 4), 100.0)
    quarter[:2, :2] = 100.0
    round_one[::3, ::3] = -100.0  # RoIAlign's bilinear pixel is less than half there
    for masks, dice in ((torch.stack([quarter, round_one]), 0), (torch.full((2, 4, 4), -100.0), 2)):
        losses = criterion(stages, [masks], matches, batch.targets, batch.sizes)
        expected = [[0, 5 * (1 / 64 + 1 / 64) / 2, 2 * (1 - 1 / 4) / 2, 8 * dice / 2]]
        torch.testing.assert_close(losses, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_one_pixel_objects_teach_the_network():
    batch = random_batch([2, 0])
    batch.targets.boxes[:] = torch.tensor([10.0, 10, 11, 11])
    batch.targets.masks[:] = 0
    batch.targets.masks[:, 10, 10] = 1
    model = small_model()
    losses_of(model, batch).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_what_is_not_finite_is_named():
    model, batch = small_model(), random_batch([2, 0, 1])
    output = model(batch.images, batch.sizes)
    matches = Criterion(CriterionConfig()).match(output.stages, batch.targets, batch.sizes)
    masks = [torch.zeros(3, 28, 28) for _ in output.stages]
    good, bad = torch.ones(2, 4), torch.ones(2, 4)
    bad[1, 2] = float("inf")

    def image(sentence: str, losses: Tensor = bad) -> int | None:
        with pytest.raises(NonFiniteError) as caught:
            Criterion(CriterionConfig()).require_finite(
                losses, output.stages, masks, [matches.image] * len(masks), batch.targets
            )
        assert str(caught.value) == sentence
        return caught.value.image

    Criterion(CriterionConfig()).require_finite(good, output.stages, masks, [matches.image] * len(masks), batch.targets)
    assert image("the loss 'giou' of stage 2 is inf") is None
    masks[1][2, 3, 3] = float("nan")
    assert image("stage 2 gives NaN or infinite masks") == 2
    output.stages[1].boxes.data[1, 2, 0] = float("inf")
    assert image("stage 2 gives NaN or infinite boxes") == 1, "an image without ground truth, too"
    output.stages[0].logits.data[1, 4, 0] = float("nan")
    assert image("stage 1 gives NaN or infinite logits") == 1
    batch.targets.boxes[2, 0] = float("nan")
    assert image("the ground truth has NaN or infinite boxes") == 2


def test_an_object_without_a_mask_teaches_its_box_and_class_only():
    model, batch = small_model().eval(), random_batch([2, 3])
    whole = losses_of(model, batch)
    batch.targets.masks[:] = UNKNOWN
    none = losses_of(model, batch)
    assert none[:, :3].equal(whole[:, :3])
    assert none[:, 3].tolist() == [0, 0]
    none.sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == [], "distributed training waits for every gradient"
    batch = random_batch([2, 3])
    batch.targets.masks[1:] = UNKNOWN
    one = losses_of(model, batch)
    assert ((one[:, 3] > 0) & (one[:, 3] < whole[:, 3])).all()
