"""In bfloat16 a training step is the same step, within the tolerance of rounding."""

from pathlib import Path

import torch
from conftest import TINY, Run, random_batch, small_model
from torch import Tensor

from queryinst.config import CriterionConfig
from queryinst.criterion.criterion import Criterion
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Batch, Matches


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


def test_bfloat16_losses_are_those_of_float32():
    """With the same matching, which is a matter of order and not of digits. bfloat16 has two to three digits."""
    model, batch = small_model(), random_batch([2, 1])
    expected, matches = step(model, batch)
    losses, _ = step(model, batch, matches, bf16=True)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, rtol=0.05, atol=0.05)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_run_in_bfloat16(run: Run, workplace: Path):
    """With clipping, which Lightning does not let a fused optimizer have by its own ways."""
    settings = ("trainer.precision=bf16-mixed", "trainer.max_train_batches=3", "callbacks.pictures=0")
    code, said = run("train", *TINY, *settings, "schedule.epochs=1", "model.num_stages=1")
    assert code == 0, said
    assert list(workplace.glob("outputs/*/result.json"))
