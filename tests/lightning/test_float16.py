"""In float16 gradients overflow now and then: the scaler leaves that step out, and the run goes on."""

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import random_batch
from pytorch_lightning.plugins import MixedPrecision
from test_trace import batches, conductor, fit

from queryinst.errors import UserError
from queryinst.lightning.module import QueryInstModule


def float16() -> MixedPrecision:
    """With a scaler that is right at every other step: where it was, its next scale is far too large for float16."""
    scaler = torch.amp.GradScaler("cpu", 16.0, growth_factor=2.0**30, backoff_factor=2.0**-30, growth_interval=1)
    return MixedPrecision("16-mixed", "cpu", scaler)


class Watch(pl.Callback):
    """After each step: whether the norm of its gradients was finite, whether it changed a weight, and a checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finite, self.moved = list[bool](), list[bool]()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.before = torch.nn.utils.parameters_to_vector(pl_module.parameters())

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.finite.append(math.isfinite(pl_module._norm))
        self.moved.append(not torch.equal(self.before, torch.nn.utils.parameters_to_vector(pl_module.parameters())))
        trainer.save_checkpoint(self.folder / f"after-{len(self.moved)}.ckpt")


@pytest.fixture(params=[False, True], ids=["at once", "deferred"])
def _judged(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueryInstModule, "_waits", request.param)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)


@pytest.mark.usefixtures("_judged")
def test_gradients_that_overflow_end_neither_the_run_nor_a_checkpoint(tmp_path: Path):
    watch = Watch(tmp_path)
    fit(conductor(tmp_path), batches(), watch, plugins=[float16()])
    assert watch.finite == watch.moved == [True, False, True, False, True]
    assert not list(tmp_path.glob("failed-step-*"))
    last = torch.load(tmp_path / "after-5.ckpt", weights_only=True)
    assert all(weight.isfinite().all() for weight in last["state_dict"].values())


@pytest.mark.usefixtures("_judged")
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")  # the first step is left out
def test_a_loss_that_is_not_finite_ends_the_run_all_the_same(tmp_path: Path):
    """No scale mends it. Nothing is matched, so that no cost shows it before."""
    module = conductor(tmp_path)
    module.model.stages[1].box.cls.bias.data[0] = float("nan")
    with pytest.raises(UserError, match=r"^stage 2 gives NaN or infinite logits at step 0 \(image 0\)"):
        fit(module, [random_batch([0, 0])] * 2, plugins=[float16()])
