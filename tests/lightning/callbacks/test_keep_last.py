"""When `last.ckpt` is written, and how a run ends in good order when it is told to."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from queryinst.errors import Stopped
from queryinst.lightning.callbacks import keep_last
from queryinst.lightning.callbacks.keep_last import KeepLast
from queryinst.lightning.module import LOG_EVERY


def trainer(step: int, last_batch: bool = False, accumulate: int = 1, others: bool | None = None) -> Any:
    """What the callback reads of a Trainer; `others`: whether another process has received a signal."""
    progress = SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=last_batch))
    asked, saved = list[bool](), list[Path]()

    def agree(told: bool, all: bool) -> bool:
        asked.append(told)
        return (told and bool(others)) if all else (told or bool(others))

    return SimpleNamespace(
        global_step=step,
        accumulate_grad_batches=accumulate,
        fit_loop=SimpleNamespace(epoch_loop=progress),
        world_size=1 if others is None else 2,
        strategy=SimpleNamespace(reduce_boolean_decision=agree),
        current_epoch=1,
        max_epochs=3,
        loggers=[],
        asked=asked,
        saved=saved,
        save_checkpoint=saved.append,
    )


def ended(callback: KeepLast, fake: Any, batch_idx: int = 0) -> int:
    callback.on_train_batch_end(fake, None, None, None, batch_idx)  # type: ignore[arg-type]
    return len(fake.saved)


def test_every_so_many_steps(tmp_path: Path):
    assert [ended(KeepLast(tmp_path, 3), trainer(step)) for step in range(1, 7)] == [0, 0, 1, 0, 0, 1]
    assert ended(KeepLast(tmp_path, None), trainer(3)) == 0
    assert ended(KeepLast(tmp_path, 3), trainer(3, last_batch=True)) == 0, "the evaluation comes first"
    accumulating = [ended(KeepLast(tmp_path, 1), trainer(3, accumulate=3), batch_idx) for batch_idx in range(6)]
    assert accumulating == [0, 0, 1, 0, 0, 1], "gradients are not kept"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_leaves(tmp_path: Path, number: signal.Signals):
    callback = KeepLast(tmp_path / "last.ckpt", None)
    before = {of: signal.getsignal(of) for of in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        callback.on_train_start(trainer(1), None)  # type: ignore[arg-type]
        os.kill(os.getpid(), number)
        waiting, leaving = trainer(1, last_batch=True), trainer(2)
        assert ended(callback, waiting) == 0
        with pytest.raises(Stopped) as caught:
            ended(callback, leaving)
        assert caught.value.code == 128 + number
        assert leaving.saved == [tmp_path / "last.ckpt"]
        with pytest.raises(Stopped):
            callback.on_train_epoch_end(waiting, None)  # type: ignore[arg-type]
        assert waiting.saved == [tmp_path / "last.ckpt"]
    finally:
        for of, handler in before.items():
            signal.signal(of, handler)


def test_after_the_last_epoch_there_is_nothing_to_leave(tmp_path: Path):
    callback, fake = KeepLast(tmp_path, None), trainer(9)
    callback.received, fake.current_epoch = signal.SIGTERM, 3
    callback.on_train_epoch_end(fake, None)  # type: ignore[arg-type]
    assert len(fake.saved) == 1


@pytest.mark.parametrize(
    ("mine", "others", "code"),
    [
        (signal.SIGUSR1, False, 128 + signal.SIGUSR1),
        (0, True, 128 + signal.SIGTERM),
        (signal.SIGUSR1, True, 128 + signal.SIGUSR1),
        (0, False, None),
    ],
)
def test_several_processes_leave_together(tmp_path: Path, mine: int, others: bool, code: int | None):
    """One that was told takes the others along; they ask each other every 20 steps, and after every epoch."""
    callback = KeepLast(tmp_path, None)
    callback.received = mine
    for batch_idx in (0, LOG_EVERY - 2, LOG_EVERY, 2 * LOG_EVERY - 2):
        early = trainer(5, others=others)
        assert ended(callback, early, batch_idx) == 0
        assert early.asked == []
    for batch_idx in (LOG_EVERY - 1, 2 * LOG_EVERY - 1, None):
        fake = trainer(5, others=others)
        if code is None:
            end(callback, fake, batch_idx)
        else:
            with pytest.raises(Stopped) as caught:
                end(callback, fake, batch_idx)
            assert caught.value.code == code
        assert fake.asked == [bool(mine)]
        assert len(fake.saved) == (code is not None or batch_idx is None)


def end(callback: KeepLast, fake: Any, batch_idx: int | None) -> None:
    """A batch ends; or, where it has no index, an epoch."""
    if batch_idx is None:
        callback.on_train_epoch_end(fake, None)  # type: ignore[arg-type]
    else:
        ended(callback, fake, batch_idx)


def test_what_was_logged_is_on_disk_before_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A resumed run does not log again what came before it."""
    done, fake = list[Any](), trainer(3)
    monkeypatch.setattr(keep_last, "flush", done.append)
    fake.save_checkpoint, fake.loggers = done.append, ["a logger"]
    callback = KeepLast(tmp_path / "last.ckpt", 1)
    callback.on_train_epoch_end(fake, None)  # type: ignore[arg-type]
    assert done == [["a logger"], tmp_path / "last.ckpt"]
