"""Compiled, or in bfloat16, a training step is the same step, within the tolerance of rounding."""

import dataclasses

import pytest
import torch
from conftest import random_batch, small_model
from torch import Tensor

from queryinst.config import CriterionConfig, TrainConfig
from queryinst.criterion.criterion import Criterion
from queryinst.models.compiled import compile_parts
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Batch, Matches
from queryinst.studies.command import compose
from queryinst.studies.identity import identity


def step(model: QueryInst, batch: Batch, matches: Matches | None = None, bf16: bool = False) -> tuple[Tensor, Matches]:
    """The losses, after a backward pass, and the matching they were computed with."""
    criterion = Criterion(CriterionConfig())
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        output = model(batch.images, batch.sizes)
        matches = matches or criterion.match(output.stages, batch.targets, batch.sizes)
        masks = model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels))))
        losses = criterion(output.stages, list(masks.values()), matches, batch.targets, batch.sizes)
    losses.sum().backward()
    return losses.detach(), matches


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # torch.compile looks at it itself
def test_compiled_losses_and_gradients_are_the_same():
    """Other numbers of objects too, none among them: the mask heads take any number of rows."""
    plain, compiled = small_model(), small_model()
    compiled.load_state_dict(plain.state_dict())
    names = list(plain.state_dict())
    compile_parts(compiled)
    assert list(compiled.state_dict()) == names
    for counts in ([2, 1], [3, 2], [0, 0]):
        batch = random_batch(counts)
        expected, matches = step(plain, batch)
        losses, own = step(compiled, batch)
        assert torch.equal(own.query, matches.query)
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
        for (name, one), two in zip(plain.named_parameters(), compiled.parameters(), strict=True):
            assert one.grad is not None, name
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-3, atol=1e-3 * float(one.grad.abs().max() + 1e-3))


def test_bfloat16_losses_are_those_of_float32():
    """With the same matching, which is a matter of order and not of digits. bfloat16 has two to three digits."""
    model, batch = small_model(), random_batch([2, 1])
    expected, matches = step(model, batch)
    losses, _ = step(model, batch, matches, bf16=True)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, rtol=0.05, atol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_compilation_is_part_of_a_runs_identity_only_where_it_is_asked_for(workplace: object):
    plain = compose("config", TrainConfig, ["data=shapes_tiny"])
    assert "trainer.compile" not in identity(plain)
    compiled = dataclasses.replace(plain, trainer=dataclasses.replace(plain.trainer, compile=True))
    assert identity(compiled) == {**identity(plain), "trainer.compile": True}
