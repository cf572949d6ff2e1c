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
        max_steps=-1,
        should_stop=False,
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


def test_after_the_last_epoch_it_leaves_too(tmp_path: Path):
    """The evaluation of the best weights is still to come, and whoever sent the signal does not wait for it."""
    callback, fake = KeepLast(tmp_path, None), trainer(9)
    callback.received, fake.current_epoch = signal.SIGTERM, 2
    with pytest.raises(Stopped):
        callback.on_train_epoch_end(fake, None)  # type: ignore[arg-type]
    assert len(fake.saved) == 1


AGE = 60.0  # seconds


@pytest.mark.parametrize(
    ("every", "settings", "expected"),
    [
        (None, {}, 0),
        (None, {"current_epoch": 2}, 1),
        (None, {"should_stop": True}, 1),
        (None, {"max_steps": 6}, 1),
        (None, {"max_steps": 7}, 0),
        (3, {}, 1),
        (4, {}, 0),
    ],
)
def test_an_epoch_without_an_evaluation_is_written_only_where_it_matters(
    tmp_path: Path, every: int | None, settings: dict[str, Any], expected: int
):
    """The last one is, whatever it ends by; and one that ends with a step that `every` means."""
    fake = trainer(6)
    vars(fake).update(settings)
    KeepLast(tmp_path, every, age=AGE).on_train_epoch_end(fake, None)  # type: ignore[arg-type]
    assert len(fake.saved) == expected


def test_an_evaluation_is_kept_and_an_old_checkpoint_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(keep_last.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    callback, fake, counts = KeepLast(tmp_path, None, age=AGE), trainer(6), list[int]()
    now[0] += 100  # until training begins
    callback.on_train_start(fake, None)  # type: ignore[arg-type]
    for passed, evaluated in ((59, False), (0, True), (59, False), (1, False), (59, False), (100, False)):
        now[0] += passed
        if evaluated:
            callback.on_validation_end(fake, None)  # type: ignore[arg-type]
        callback.on_train_epoch_end(fake, None)  # type: ignore[arg-type]
        counts.append(len(fake.saved))
    assert counts == [0, 1, 1, 2, 2, 3]
    ended(callback, fake)
    callback.every = 6
    ended(callback, fake)
    assert len(fake.saved) == 4
    now[0] += 59
    callback.on_train_epoch_end(trainer(7), None)  # type: ignore[arg-type]
    assert callback.saved == now[0] - 59, "one within an epoch counts as well"


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("mine", [False, True])
def test_several_processes_write_together_whatever_their_clocks_say(tmp_path: Path, mine: bool, others: bool):
    fake = trainer(6, others=False)
    answers = iter([False, others])  # of the other process: whether it was told to leave, and what its clock says
    fake.strategy.reduce_boolean_decision = lambda ours, all: (ours and next(answers)) if all else ours or next(answers)
    KeepLast(tmp_path, None, age=0.0 if mine else AGE).on_train_epoch_end(fake, None)  # type: ignore[arg-type]
    assert len(fake.saved) == (mine or others)


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
        assert fake.asked == [bool(mine)] + [True] * (code is None and batch_idx is None), "is the last one old?"
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
