"""Which checkpoints a run leaves, when, and what is in them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Run

from queryinst.config import OptimizerConfig, ScheduleConfig
from queryinst.lightning.callbacks.keep_last import RESUMING, KeepLast
from queryinst.lightning.trainer import build_trainer
from queryinst.trainer_config import TrainerConfig

COMMAND = [*TINY, "callbacks.pictures=0", "schedule.epochs=4", "trainer.evaluate_every=3", "trainer.ema=0.9"]
COMMAND += ["trainer.max_train_batches=1", "trainer.max_val_batches=1"]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict[int, dict[str, Any]]:
    """Every `last.ckpt`, by its step."""
    found: dict[int, dict[str, Any]] = {}
    whole = KeepLast._save

    def save(self: KeepLast, trainer: Any) -> None:
        whole(self, trainer)
        assert trainer.global_step not in found
        found[trainer.global_step] = torch.load(self.path, weights_only=True)

    monkeypatch.setattr(KeepLast, "_save", save)
    return found


def test_after_an_evaluation_and_at_the_end(workplace: Path, run: Run, written: dict[int, dict[str, Any]]):
    """And `best.ckpt` is of averaged weights, without the rest."""
    code, text = run("train", *COMMAND)
    assert code == 0, text
    assert list(written) == [3, 4]
    (path,) = workplace.glob("outputs/*/best.ckpt")
    best = torch.load(path, weights_only=True)
    assert written[3].keys() == best.keys() | set(RESUMING)
    average, current = (written[3][name] for name in ("state_dict", "current_model_state"))
    assert all(torch.equal(weight, average[name]) for name, weight in best["state_dict"].items())
    assert any(not torch.equal(weight, current[name]) for name, weight in best["state_dict"].items())


def test_after_every_epoch_where_that_is_asked_for(workplace: Path, run: Run, written: dict[int, dict[str, Any]]):
    code, text = run("train", *COMMAND, "trainer.checkpoint_minutes=0")
    assert code == 0, text
    assert list(written) == [1, 2, 3, 4]


def test_minutes_are_seconds_to_the_clock(tmp_path: Path):
    config = TrainerConfig(accelerator="cpu", checkpoint_minutes=2.5)
    made = build_trainer(config, OptimizerConfig(), ScheduleConfig(), [], [], tmp_path)
    assert [callback.age for callback in made.callbacks if isinstance(callback, KeepLast)] == [150]  # type: ignore[attr-defined]
