"""What ended a run: a time limit leaves it to go on, early stopping finishes it, and the result says so."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Run

from queryinst.lightning import trainer
from queryinst.lightning.module import QueryInstModule

COMMAND = [*TINY, "callbacks.pictures=0"]
STOP = "+callbacks.extra.stop._target_=pytorch_lightning.callbacks.EarlyStopping"
EARLY = [STOP, "+callbacks.extra.stop.monitor=val/segm_AP", "+callbacks.extra.stop.mode=max"]


def folder_of(workplace: Path) -> Path:
    (folder,) = workplace.glob("outputs/*")
    return folder


def result(workplace: Path) -> Any:
    return json.loads((folder_of(workplace) / "result.json").read_text())


def test_a_run_at_its_time_limit_goes_on_with_the_same_command(
    workplace: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    """Each command has its time: what Lightning's timer remembers would end every later one at once."""
    command = [*COMMAND, "+trainer.extra.max_time=00:00:00:00"]
    for step in (1, 2):
        code, text = run("train", *command)
        assert code == 128 + signal.SIGALRM, text
        assert f"stopped at trainer.extra.max_time; the same command goes on from step {step}\n" in text
        assert not (folder_of(workplace) / "result.json").exists()
    monkeypatch.setattr(trainer, "_limit", lambda extra: 1e9)
    code, text = run("train", *command)
    assert code == 0, text
    assert "resumed at step 2" in text
    assert (result(workplace)["ended"], result(workplace)["steps"]) == ("schedule", 12)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["+trainer.extra.max_time=8h"], "trainer.extra.max_time takes DD:HH:MM:SS, such as 00:08:00:00: "),
        (
            ["+callbacks.extra.mine._target_=pytorch_lightning.callbacks.Timer"],
            "callbacks.extra: Lightning's Timer would end the run as if it were finished; give +trainer.extra.max_time",
        ),
    ],
)
def test_a_time_limit_that_is_none(workplace: Path, run: Run, settings: list[str], sentence: str):
    code, text = run("train", *COMMAND, *settings)
    assert (code, text.count("\n")) == (2, 1)
    assert text.startswith(f"error: {sentence}")


def test_early_stopping_is_the_end_of_a_run_also_where_it_was_killed_then(workplace: Path, run: Run):
    command = [*COMMAND, *EARLY, "+callbacks.extra.stop.stopping_threshold=-1"]
    code, text = run("train", *command)
    assert code == 0, text
    assert "ended by early stopping at step 6, in epoch 1\n" in text
    assert (result(workplace)["ended"], result(workplace)["steps"]) == ("early stopping", 6)
    first = result(workplace)["metrics"]
    (folder_of(workplace) / "result.json").unlink()
    code, text = run("train", *command)
    assert code == 0, text
    assert (result(workplace)["ended"], result(workplace)["steps"]) == ("early stopping", 6)
    assert result(workplace)["metrics"] == first
    assert torch.load(folder_of(workplace) / "last.ckpt", weights_only=True)["global_step"] == 6


def test_a_number_of_steps_is_an_end_too(workplace: Path, run: Run):
    code, text = run("train", *COMMAND, "+trainer.extra.max_steps=7")
    assert code == 0, text
    assert (result(workplace)["ended"], result(workplace)["steps"]) == ("max_steps", 7)


def test_ctrl_c_before_the_first_checkpoint_says_what_it_costs(
    workplace: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    def pressed(self: QueryInstModule, batch: Any, batch_idx: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(QueryInstModule, "training_step", pressed)
    code, text = run("train", *COMMAND)
    assert code == 130, text
    assert "stopped before the first checkpoint; the same command begins again\n" in text


def test_a_trial_is_evaluated_as_it_was_and_says_so(workplace: Path, run: Run):
    code, text = run("train", *COMMAND, "schedule.epochs=1", "trainer.max_train_batches=1", "trainer.max_val_batches=1")
    assert code == 0, text
    code, text = run("evaluate", f"checkpoint={folder_of(workplace)}/best.ckpt")
    assert code == 0, text
    assert re.match(r"note: \d+ of \d+ images, as in this run \(trainer\.max_val_batches=1\); images=FOLDER ", text)
    assert "\nboundary " in text
    code, text = run("evaluate", f"checkpoint={folder_of(workplace)}/best.ckpt", "boundary=false")
    assert "boundary" not in text
