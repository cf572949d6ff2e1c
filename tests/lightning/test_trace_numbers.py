"""What a trace keeps of a step, and what it says of numbers that are broken."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from conftest import random_batch, small_model
from torch import Tensor
from torch.overrides import TorchFunctionMode

from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.lightning.trace import Trace
from queryinst.ops import ranks
from queryinst.structures import Batch, Matches, StageOutput

CRITERION = Criterion(CriterionConfig())
INF, NAN = float("inf"), float("nan")


@dataclass
class Step:
    """What the losses of a step are made of."""

    batch: Batch
    stages: list[StageOutput]
    masks: list[Tensor]
    matches: Matches
    losses: Tensor

    def trace(self) -> Trace:
        return Trace(7, self.batch, self.stages, self.masks, [self.matches.image] * 2, self.losses, [])


@pytest.fixture
def step() -> Step:
    model, batch = small_model(), random_batch([2, 1])
    output = model(batch.images, batch.sizes)
    matches = CRITERION.match(output.stages, batch.targets, batch.sizes)
    masks = list(model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels)))).values())
    losses = CRITERION(output.stages, masks, matches, batch.targets, batch.sizes)
    return Step(batch, output.stages, masks, matches, losses)


def test_all_of_a_step_is_kept_and_nothing_of_its_graph(step: Step):
    """The graph would stay in memory until the next step."""
    trace = step.trace()
    assert (trace.step, trace.batch) == (7, step.batch)
    assert all(images is step.matches.image for images in trace.images)
    kept = [trace.losses, *trace.masks, *(t for stage in trace.stages for t in (stage.logits, stage.boxes))]
    made = [step.losses, *step.masks, *(t for stage in step.stages for t in (stage.logits, stage.boxes))]
    for one, other in zip(kept, made, strict=True):
        assert other.requires_grad
        assert not one.requires_grad
        assert torch.equal(one, other)
    rest = [t for stage in trace.stages for t in vars(stage).values() if t is not None]
    assert not any(tensor.requires_grad for tensor in rest)
    assert all(stage.queries.numel() == stage.mask_queries.numel() == 0 for stage in trace.stages)
    assert trace.finite
    assert trace.is_good()
    assert trace.broken_output(CRITERION) is None


@pytest.mark.parametrize("broken", [INF, -INF, NAN])
def test_one_loss_that_is_not_finite_is_found(step: Step, broken: float):
    losses = step.losses.detach().clone()
    losses[1, 2] = broken
    trace = replace(step, losses=losses).trace()
    assert not trace.finite
    assert not trace.is_good()
    error = trace.broken_output(CRITERION)
    assert str(error) == f"the loss 'giou' of stage 2 is {broken}"
    assert error is not None
    assert error.image is None


def test_what_broke_a_loss_is_named_with_its_image(step: Step):
    losses = torch.full_like(step.losses, NAN)
    masks = [mask.detach().clone() for mask in step.masks]
    masks[1][2, 0, 0] = INF
    error = replace(step, losses=losses, masks=masks).trace().broken_output(CRITERION)
    assert error is not None
    assert (str(error), error.image) == ("stage 2 gives NaN or infinite masks", 1)


def test_a_loss_that_is_broken_on_another_process_counts(step: Step, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ranks, "mean", lambda values: values + INF)
    trace = step.trace()
    assert not trace.finite
    assert not trace.is_good()
    assert trace.broken_output(CRITERION) is None, "the other one says it"
    assert str(trace.broken_gradient()) == "gradients overflow", "no gradient was seen to be broken"


@pytest.mark.parametrize("judge", [True, False])
def test_the_norm_is_that_of_all_gradients(step: Step, judge: bool):
    gradients = {"a": torch.tensor([3.0, 4.0]), "b": torch.tensor([[12.0]])}
    trace = step.trace()
    assert trace.gradients(gradients, judge).item() == 13
    assert trace.finite
    assert trace.is_good()


@pytest.mark.parametrize("broken", [INF, NAN])
def test_gradients_that_are_not_finite_are_named_where_they_are_judged(step: Step, broken: float):
    gradients = {name: torch.tensor([1.0, broken if name in ("b", "d") else 0.0]) for name in "abcd"}
    judged, left = step.trace(), step.trace()
    assert not judged.gradients(gradients, judge=True).isfinite()
    assert not judged.finite
    assert not judged.is_good()
    assert str(judged.broken_gradient()) == "2 gradients are NaN or infinite, first that of b,"
    left.gradients(gradients, judge=False)
    assert left.finite
    assert left.is_good()


def test_a_norm_that_overflows_is_broken_though_no_gradient_is(step: Step):
    trace = step.trace()
    total = trace.gradients({name: torch.tensor([1.5e19]) for name in "abcd"}, judge=True)
    assert total == INF
    assert not trace.finite
    assert not trace.is_good()
    assert str(trace.broken_gradient()) == "gradients overflow"


def test_a_broken_loss_stays_one_where_the_gradients_are_good(step: Step):
    trace = replace(step, losses=step.losses * NAN).trace()
    trace.gradients({"a": torch.ones(1)}, judge=True)
    assert not trace.finite
    assert not trace.is_good()


class Moves(TorchFunctionMode):
    """Where tensors are sent, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = list[Any]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") == "to":
            self.seen.append((args[1:], kwargs))
        return func(*args, **(kwargs or {}))


def test_numbers_are_on_their_way_to_the_host_and_nobody_waits(step: Step):
    moves = Moves()
    with moves:
        step.trace().gradients({"a": torch.ones(1)}, judge=True)
    assert moves.seen == [(("cpu",), {"non_blocking": True})] * 2, "the losses, the norms"


@pytest.mark.parametrize(("row", "name"), [(2, "denoising"), (3, "recollection")])
def test_a_broken_loss_of_what_else_is_learned_from_is_named(step: Step, row: int, name: str):
    losses = torch.cat([step.losses, torch.ones(2, step.losses.shape[1])])
    losses[row, 1] = NAN
    others = ["denoising", "recollection"]
    trace = Trace(7, step.batch, step.stages, step.masks, [step.matches.image] * 2, losses, others)
    assert not trace.is_good()
    assert str(trace.broken_output(CRITERION)) == f"a loss of {name} is NaN or infinite"
