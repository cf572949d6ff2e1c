"""In bfloat16 a training step is the same step, within the tolerance of rounding."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import pytorch_lightning as pl
import torch
from conftest import TINY, Run, random_batch, small_model
from torch import Tensor

from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
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


def gradient(model: QueryInst) -> Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double()


def test_bfloat16_losses_and_gradients_are_those_of_float32():
    """With the same matching, which is a matter of order and not of digits. bfloat16 has two to three digits."""
    model, batch = small_model(), random_batch([2, 1])
    expected, matches = step(model, batch)
    exact = gradient(model)
    losses, _ = step(model, batch, matches, bf16=True)
    rounded = gradient(model)
    assert losses.dtype == torch.float32
    assert not torch.equal(losses, expected), "it was rounded"
    torch.testing.assert_close(losses, expected, rtol=0.02, atol=0.02)
    assert len(rounded) == len(exact) == sum(p.numel() for p in model.parameters())
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.8, "ReLUs open in one and not in the other"
    assert float(rounded.norm()) == pytest.approx(float(exact.norm()), rel=0.1)


class Watch(pl.Callback):
    """How a run trains: the types of features and weights, and the norm of the gradients that a step is taken with."""

    types: ClassVar[list[tuple[torch.dtype, torch.dtype]]] = []
    norms: ClassVar[list[float]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.types.clear()
        self.norms.clear()
        convolution = next(m for m in pl_module.modules() if isinstance(m, torch.nn.Conv2d))
        convolution.register_forward_hook(self.look)
        trainer.optimizers[0].register_step_post_hook(lambda *_: self.norms.append(norm(pl_module)))

    def look(self, convolution: Any, _: Any, features: Tensor) -> None:
        if convolution.training:
            self.types.append((features.dtype, convolution.weight.dtype))


def norm(network: torch.nn.Module) -> float:
    return float(torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None]))


def test_a_run_in_bfloat16(run: Run, workplace: Path):
    """With clipping, which Lightning does not let a fused optimizer have by its own ways; weights stay float32."""
    settings = ["trainer.precision=bf16-mixed", "trainer.max_train_batches=3", "callbacks.pictures=0"]
    settings += ["optimizer.clip_norm=0.5", "+callbacks.extra.watch._target_=test_bfloat16.Watch"]
    code, said = run("train", *TINY, *settings, "schedule.epochs=1", "model.num_stages=1")
    assert code == 0, said
    (folder,) = workplace.glob("outputs/*")
    assert set(Watch.types) == {(torch.bfloat16, torch.float32)}
    assert Watch.norms == pytest.approx([0.5] * 3, rel=1e-4)
    weights = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    floating = [value for value in weights.values() if value.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float32}
    assert all(value.isfinite().all() for value in floating)
