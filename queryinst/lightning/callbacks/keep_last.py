"""`last.ckpt`: from where a run goes on, bit for bit, whenever and however it ended."""

import contextlib
import errno
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO

from queryinst.errors import Stopped, UserError
from queryinst.lightning.loggers import flush
from queryinst.lightning.module import LOG_EVERY

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # what a cluster sends before it takes the machine away


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the file, then renames: a file is the old one or the new one, never a part.

    Lightning's own writes to the system's temporary folder first, and from another disk renaming is copying.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        path = Path(path)
        partial = path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except (OSError, RuntimeError) as error:  # torch says RuntimeError where writing fails
            full = isinstance(error, RuntimeError) or error.errno == errno.ENOSPC
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            if isinstance(error, RuntimeError) and "writing file" not in str(error):
                raise
            kept = f"the last good one stays: {path}" if path.exists() else "there is none yet"
            raise UserError(
                f"the checkpoint {path} cannot be written ({'no space left' if full else error}); {kept}. "
                "Make room, and the same command goes on"
            ) from None


class KeepLast(pl.Callback):
    """Writes `last.ckpt` every so many optimizer steps and after every epoch; on SIGTERM or SIGUSR1 soon, and leaves.

    Args:
        path: of the checkpoint.
        every: optimizer steps between checkpoints within an epoch; None: only after epochs.
    """

    def __init__(self, path: Path, every: int | None) -> None:
        self.path, self.every = path, every
        self.received = 0  # the signal

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over from Lightning, which has its handlers by now and takes them back at the end."""
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

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)
        if trainer.current_epoch < (trainer.max_epochs or 0) and self._leaving(trainer, LOG_EVERY - 1):
            raise Stopped(self.received or SIGNALS[0])

    def _save(self, trainer: pl.Trainer) -> None:
        flush(trainer.loggers)
        trainer.save_checkpoint(self.path)

    def _leaving(self, trainer: pl.Trainer, batch_idx: int) -> bool:
        """Whether any process was told to leave; several ask each other only now and then, for it makes them wait."""
        if trainer.world_size == 1:
            return bool(self.received)
        if (batch_idx + 1) % LOG_EVERY:
            return False
        return trainer.strategy.reduce_boolean_decision(bool(self.received), all=False)
