"""A training that no longer gets better ends; resumed, it has not forgotten how long it has waited."""

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import TINY, Run
from pytorch_lightning.callbacks import EarlyStopping

from queryinst.lightning import trainer
from queryinst.lightning.callbacks.patience import Patience
from queryinst.lightning.module import QueryInstModule
from queryinst.lightning.training import _why

COMMAND = [
    *TINY,
    "callbacks.pictures=0",
    "schedule.epochs=5",
    "trainer.max_train_batches=1",
    "trainer.max_val_batches=1",
]
APS = (0.2, 0.3, 0.3, 0.1, 0.9)  # of the evaluations
SENTENCE = "no mask AP above 0.300 in 2 evaluations in a row (trainer.patience=2)\n"


def test_only_a_better_one_counts():
    patience = Patience(2)
    answers = [(patience._evaluate_stopping_criteria(torch.tensor(ap))[0], patience.reason) for ap in APS[:4]]
    assert answers == [(False, ""), (False, ""), (False, ""), (True, SENTENCE.strip())]


@pytest.fixture
def _given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations with those numbers."""
    whole = QueryInstModule.log_dict

    def log(self: QueryInstModule, values: dict[str, Any]) -> None:
        fitting = self.trainer.state.fn == "fit"
        whole(self, values | ({"val/segm_AP": APS[self.trainer.current_epoch]} if fitting else {}))

    monkeypatch.setattr(QueryInstModule, "log_dict", log)


def outcome(workplace: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    (folder,) = workplace.glob("outputs/*")
    content = torch.load(folder / "last.ckpt", weights_only=True)
    result = json.loads((folder / "result.json").read_text())
    return (result["ended"], result["steps"], content["global_step"]), content["state_dict"]


@pytest.mark.usefixtures("_given")
def test_it_ends_the_run_and_going_on_changes_nothing(workplace: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    """Beside an EarlyStopping of the user's own on the same number; stopped after each epoch, the last one too."""
    own = "+callbacks.extra.stop._target_=pytorch_lightning.callbacks.EarlyStopping"
    words = ["+callbacks.extra.stop.monitor=val/segm_AP", "+callbacks.extra.stop.mode=max"]
    command = [*COMMAND, own, *words, "+callbacks.extra.stop.patience=9", "trainer.patience=2"]
    code, text = run("train", *command)
    assert code == 0, text
    assert f"ended by early stopping at step 4, in epoch 4: {SENTENCE}" in text
    ended, weights = outcome(workplace)
    assert ended == ("early stopping", 4, 4)

    (workplace / "outputs").rename(workplace / "before")
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_limit", lambda extra: 0.0)
        for step in (1, 2, 3, 4):
            code, text = run("train", *command)
            assert code == 128 + signal.SIGALRM, text
            assert f"goes on from step {step}\n" in text
    code, text = run("train", *command)
    assert code == 0, text
    assert f"ended by early stopping at step 4, in epoch 4: {SENTENCE}" in text
    again, resumed = outcome(workplace)
    assert again == ended
    assert all(torch.equal(weight, resumed[name]) for name, weight in weights.items())


def test_an_early_stopping_of_the_users_own_is_not_told_as_ours():
    callbacks = [EarlyStopping("val/segm_AP", mode="max"), Patience(2)]
    fake = SimpleNamespace(early_stopping_callbacks=callbacks)
    assert _why(fake) == ""  # type: ignore[arg-type]
    callbacks[1].wait_count = 2
    assert _why(fake).endswith(" in 2 evaluations in a row (trainer.patience=2)")  # type: ignore[arg-type]
