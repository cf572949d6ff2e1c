"""Callbacks and loggers of other people that fail in use: one sentence that names the node."""

import sys
from pathlib import Path

import pytest
from conftest import SHORT, Run

from queryinst.errors import UserError
from queryinst.lightning.own import blamed
from queryinst.studies import ending

STOP = ["+callbacks.extra.stop.name=pytorch_lightning.callbacks:EarlyStopping", "+callbacks.extra.stop.args.mode=max"]
MINE = """
from pytorch_lightning.callbacks import Callback, LambdaCallback
from pytorch_lightning.loggers import Logger

class Broken(Logger):
    name, version = "mine", ""
    def log_hyperparams(self, params, *args, **kwargs): pass
    def log_metrics(self, metrics, step=None): raise ValueError("no disk\\nat home")

def late():
    def fail(*_): raise KeyError("epoch")
    return LambdaCallback(on_train_epoch_end=fail)
"""


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            [*STOP, "+callbacks.extra.stop.args.monitor=val/nothing"],
            "error: callbacks.extra.stop fails in on_train_epoch_end: RuntimeError: Early stopping conditioned on "
            "metric `val/nothing` which is not available.",
        ),
        (
            ["+logger.extra.mine.name=own_extras:Broken"],
            "error: logger.extra.mine fails in log_metrics: ValueError: no disk at home (",
        ),
        (
            ["+callbacks.extra.late.name=own_extras:late"],
            "error: callbacks.extra.late fails in on_train_epoch_end: KeyError: 'epoch' (",
        ),
    ],
    ids=["callback", "logger", "function"],
)
def test_one_sentence_names_the_node(
    workplace: Path, run: Run, monkeypatch: pytest.MonkeyPatch, settings: list[str], sentence: str
):
    monkeypatch.delenv(ending.TRACEBACK, raising=False)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    (workplace / "own_extras.py").write_text(MINE)
    monkeypatch.syspath_prepend(workplace)
    monkeypatch.delitem(sys.modules, "own_extras", raising=False)
    code, text = run("train", *SHORT, *settings)
    assert code == 2, text
    assert text.splitlines()[-1].startswith(sentence)
    assert text.splitlines()[-1].endswith("; with HYDRA_FULL_ERROR=1 before the command you see how it came there")
    assert "Traceback" not in text
    assert "Error executing job" not in text


def test_what_is_not_theirs_stays_ours():
    class Theirs:
        def hook(self) -> None:
            raise KeyError("theirs")

    theirs = Theirs()
    said = r"^callbacks\.extra\.a fails in hook: KeyError: 'theirs'"
    with pytest.raises(UserError, match=said) as caught, blamed({"callbacks.extra.a": theirs}):
        theirs.hook()
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(KeyError, match="ours"), blamed({"callbacks.extra.a": theirs}):
        raise KeyError("ours")
