"""`last.ckpt`: from where a run goes on, bit for bit, whenever and however it ended."""

import contextlib
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from queryinst.errors import Stopped, UserError, fullness
from queryinst.lightning.loggers import flush
from queryinst.lightning.module import LOG_EVERY

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # what a cluster sends before it takes the machine away
# In a checkpoint: what only going on needs, by far the most of it.
RESUMING = ("optimizer_states", "lr_schedulers", "loops", "callbacks", "current_model_state", "averaging_state")
STOPPING = "stopping"  # in a checkpoint: whether a callback, as of early stopping, has ended the training


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file, then renames: a file is the old one or the new one, never a part.

    Lightning's own writes to the system's temporary folder first, and from another disk renaming is copying.

    Args:
        light: a checkpoint that nobody goes on from, written without what only that needs. Lightning's
            `save_weights_only` would leave out averaged weights as well.
    """

    def __init__(self, light: Path | None = None) -> None:
        self.light = light and light.resolve()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        if path.resolve() == self.light:  # Lightning makes it absolute
            checkpoint = {name: value for name, value in checkpoint.items() if name not in RESUMING}
        partial = path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError where writing fails
            full = fullness(error)
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and not full:
                raise
            kept = f"the last good one stays: {path}" if path.exists() else "there is none yet"
            raise UserError(
                f"the checkpoint {path} cannot be written ({full or error}); {kept}. "
                "Make room, and the same command goes on"
            ) from None


class KeepLast(Checkpoint):  # Lightning's base class: after all others, early stopping too, has an epoch's end
    """Writes `last.ckpt` every so many optimizer steps, after epochs that matter, and at the end; on SIGTERM or SIGUSR1
    soon, and leaves.

    An epoch matters where there was an evaluation in it, which would be lost, or where the last checkpoint has become
    old: with a large network on little data, writing takes longer than an epoch. A time limit is a signal that the run
    gives itself, SIGALRM: it leaves and goes on in the same way.

    Args:
        path: of the checkpoint.
        every: optimizer steps between checkpoints; None: only after epochs.
        seconds: of training in this process, after which it leaves; None: no limit.
        age: seconds from which on the last checkpoint is old.
    """

    def __init__(self, path: Path, every: int | None, seconds: float | None = None, age: float = 0.0) -> None:
        self.path, self.every, self.seconds, self.age = path, every, seconds, age
        self.received = 0  # the signal
        self.evaluated = False  # since the last checkpoint
        self.began = self.saved = time.monotonic()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[STOPPING] = trainer.should_stop  # or what had ended in good time would go on for an epoch more

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lightning has not given the checkpoint to the other callbacks yet: here is where the folder is now."""
        trainer.should_stop = bool(checkpoint.get(STOPPING))
        states, here = checkpoint.get("callbacks", {}), self.path.parent.resolve()
        paths = (
            Path(state["dirpath"]) for state in states.values() if isinstance(state, dict) and state.get("dirpath")
        )
        for there in {path for path in paths if path.name == here.name}:
            states = checkpoint["callbacks"] = _moved(states, str(there), str(here))
        for state in states.values():
            if isinstance(state, dict) and state.get("best_k_models"):
                _forget_what_is_gone(state)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which has its handlers by now and takes them back at the end."""
        self.began = self.saved = time.monotonic()  # what is in an older checkpoint cannot be lost any more
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not stepped or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return  # gradients are not in a checkpoint; and after the last batch comes the evaluation, then the end
        leaving = self._leaving(trainer, batch_idx)
        if leaving or (self.every and trainer.global_step % self.every == 0):
            self._save(trainer)
        if leaving:
            raise Stopped(self.received or SIGNALS[0])

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.evaluated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the last epoch too it leaves where it was told to: an evaluation of all stages is still to come."""
        leaving = self._leaving(trainer, LOG_EVERY - 1)
        if leaving or self.evaluated or _is_last(trainer) or self._is_due(trainer):
            self._save(trainer)
        if leaving:
            raise Stopped(self.received or SIGNALS[0])

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """Whether the steps or the minutes between checkpoints have passed; by the clocks of all processes together."""
        if self.every and trainer.global_step % self.every == 0:
            return True
        old = time.monotonic() - self.saved >= self.age
        return trainer.strategy.reduce_boolean_decision(old, all=False)

    def _save(self, trainer: pl.Trainer) -> None:
        flush(trainer.loggers)
        trainer.save_checkpoint(self.path)
        self.saved, self.evaluated = time.monotonic(), False

    def _leaving(self, trainer: pl.Trainer, batch_idx: int) -> bool:
        """Whether any process was told to leave; several ask each other only now and then, for it makes them wait."""
        if self.seconds is not None and time.monotonic() - self.began >= self.seconds:
            self.received = self.received or signal.SIGALRM
        if trainer.world_size == 1:
            return bool(self.received)
        if (batch_idx + 1) % LOG_EVERY:
            return False
        return trainer.strategy.reduce_boolean_decision(bool(self.received), all=False)


def _is_last(trainer: pl.Trainer) -> bool:
    """Whether training ends with this epoch: by the schedule, by `max_steps`, or because a callback said so."""
    steps = 0 <= trainer.max_steps <= trainer.global_step
    return trainer.should_stop or steps or trainer.current_epoch + 1 >= (trainer.max_epochs or 0)


def _moved(state: Any, there: str, here: str) -> Any:
    """The state of callbacks with every path below the folder `there` as one below `here`."""
    if isinstance(state, dict):
        return {_moved(key, there, here): _moved(value, there, here) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_moved(value, there, here) for value in state)
    if isinstance(state, str) and (state == there or state.startswith(there + os.sep)):
        return here + state.removeprefix(there)
    return state


def _forget_what_is_gone(state: dict[str, Any]) -> None:
    """Of a ModelCheckpoint: the score of files that somebody has removed would keep others from being written."""
    if not any(Path(path).exists() for path in state["best_k_models"]):
        state |= {"best_model_score": None, "best_model_path": ""}
        for name in ("best_k_models", "kth_best_model_path", "kth_value"):
            state.pop(name, None)
