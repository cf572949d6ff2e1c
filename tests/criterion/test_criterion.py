"""The criterion end to end: normalisation, what gets gradient, and the edges."""

import pytest
import torch
from conftest import random_batch, small_model
from torch import Tensor

from queryinst.config import CriterionConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion.matcher import NonFiniteError
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Batch


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
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_without_ground_truth_batchnorm_statistics_stay():
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items() if ".mask." in key and "running" in key}
    losses_of(model, random_batch([0, 0]))
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_the_weights_of_the_terms():
    model, batch = small_model().eval(), random_batch([2, 3])
    plain = losses_of(model, batch)
    double = CriterionConfig(class_weight=4.0, l1_weight=10.0, giou_weight=4.0, mask_weight=16.0)
    torch.testing.assert_close(losses_of(model, batch, double), plain * 2)


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
    batch = random_batch([2, 0])
    batch.targets.boxes[:] = torch.tensor([10.0, 10, 11, 11])
    batch.targets.masks[:] = 0
    batch.targets.masks[:, 10, 10] = 1
    losses = losses_of(small_model(), batch)
    assert losses.isfinite().all()


def test_what_is_not_finite_is_named():
    model, batch = small_model(), random_batch([2, 0, 1])
    output = model(batch.images, batch.sizes)
    matches = Criterion(CriterionConfig()).match(output.stages, batch.targets, batch.sizes)
    masks = [torch.zeros(3, 28, 28) for _ in output.stages]
    good, bad = torch.ones(2, 4), torch.ones(2, 4)
    bad[1, 2] = float("inf")

    def image(sentence: str, losses: Tensor = bad) -> int | None:
        with pytest.raises(NonFiniteError, match=sentence) as caught:
            Criterion.require_finite(losses, output.stages, masks, matches, batch.targets)
        return caught.value.image

    Criterion.require_finite(good, output.stages, masks, matches, batch.targets)
    assert image("the loss 'giou' of stage 2 is inf") is None
    masks[1][2, 3, 3] = float("nan")
    assert image("stage 2 gives NaN or infinite masks") == 2
    output.stages[1].boxes.data[1, 2, 0] = float("inf")
    assert image("stage 2 gives NaN or infinite boxes") == 1, "an image without ground truth, too"
    output.stages[0].logits.data[1, 4, 0] = float("nan")
    assert image("stage 1 gives NaN or infinite logits") == 1
    batch.targets.boxes[2, 0] = float("nan")
    assert image("the ground truth has NaN or infinite boxes") == 2


def test_bfloat16_keeps_boxes_costs_and_losses_in_float32():
    """As Lightning's bf16-mixed does it: all of the step inside autocast."""
    model, batch, criterion = small_model(), random_batch([3, 0]), Criterion(CriterionConfig())
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch.images, batch.sizes)
        costs = criterion.match.costs(output.stages, batch.targets, batch.sizes)
        matches = criterion.match(output.stages, batch.targets, batch.sizes)
        masks = list(model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels)))).values())
        losses = criterion(output.stages, masks, matches, batch.targets, batch.sizes)
    assert output.stages[0].logits.dtype == torch.bfloat16, "the network itself is narrow"
    for values in (*(stage.boxes for stage in output.stages), costs, losses):
        assert values.dtype == torch.float32
        assert values.isfinite().all()
    losses.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
