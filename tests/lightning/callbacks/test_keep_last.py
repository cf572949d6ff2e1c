"""A checkpoint is the old one or the new one, and a run ends in good order when it is told to."""

import errno
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from queryinst.errors import Stopped, UserError
from queryinst.lightning.callbacks.keep_last import AtomicCheckpointIO, KeepLast


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left"),
        (RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file"), "no space"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"a": 1}, path)

    def fail(content: Any, file: Any) -> None:
        file.write(b"half of it")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(UserError, match=rf"cannot be written \(.*{sentence}.*the last good one stays"):
        AtomicCheckpointIO().save_checkpoint({"a": 2}, path)
    monkeypatch.undo()
    assert torch.load(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="cannot be written .*there is none yet"):
        AtomicCheckpointIO().save_checkpoint({}, tmp_path / "run" / "last.ckpt")


def trainer(step: int, last_batch: bool = False, accumulate: int = 1) -> Any:
    progress = SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=last_batch))
    saved: list[Path] = []
    return SimpleNamespace(
        global_step=step,
        accumulate_grad_batches=accumulate,
        fit_loop=SimpleNamespace(epoch_loop=progress),
        world_size=1,
        current_epoch=1,
        max_epochs=3,
        loggers=[],
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
    assert ended(KeepLast(tmp_path, 1), trainer(3, accumulate=2), batch_idx=0) == 0, "gradients are not kept"
    assert ended(KeepLast(tmp_path, 1), trainer(3, accumulate=2), batch_idx=1) == 1


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
