"""Where training is and when it will end."""

import math
import sys
import time
from datetime import datetime, timedelta
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from queryinst.lightning.module import LOG_EVERY

SAY_EVERY = 60.0  # seconds between lines where there is no terminal


class RunProgress(pl.callbacks.ProgressBar):
    """One bar for the whole run in a terminal; elsewhere a line an epoch, and a line a minute within long epochs.

    The end is estimated from the time per step of this process, evaluations included.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        # In a notebook lines, too: rich would take it for a terminal, and its bar wants ipywidgets there.
        self.console = console or Console(stderr=True, force_terminal=sys.stderr.isatty(), force_jupyter=False)
        self.enabled = True
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._begun, self._first_step, self._said = 0.0, 0, 0.0
        self._loss = self._scores = self._speed = ""

    def disable(self) -> None:  # Lightning calls this on all ranks but the first
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        if self.enabled:
            self.console.print(*args, **kwargs)

    def say(self, text: str) -> None:
        """Print plain text above the bar."""
        if self.enabled:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun = self._said = time.monotonic()
        self._first_step = trainer.global_step
        if self.enabled and self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[status]}"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=self.console)
            self._task = self._bar.add_task("", total=self._total(trainer), completed=trainer.global_step, status="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.enabled:
            return
        if batch_idx % LOG_EVERY in (0, LOG_EVERY - 1):
            self._read(trainer)
        if self._bar:
            self._bar.update(
                self._task,
                completed=trainer.global_step,
                description=self._where(trainer),
                status=self._status(trainer),
            )
        elif time.monotonic() - self._said > SAY_EVERY:
            self._say_where(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        scores = [
            f"{label} AP {float(metrics[key]):.3f}"
            for label, key in (("mask", "val/segm_AP"), ("box", "val/bbox_AP"))
            if key in metrics
        ]
        self._scores = "  ".join(scores)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._read(trainer)
        if self.enabled and not self._bar:
            self._say_where(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _say_where(self, trainer: pl.Trainer) -> None:
        self._said = time.monotonic()
        self.say(f"{self._where(trainer)}  {self._status(trainer)}")

    def _where(self, trainer: pl.Trainer) -> str:
        return (
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}/{self._total(trainer)}"
        )

    def _read(self, trainer: pl.Trainer) -> None:
        """What the module and its callbacks have logged. It waits for the device, so not at every step."""
        loss = trainer.callback_metrics.get("train/loss")
        speed = trainer.callback_metrics.get("train/images_per_second")
        self._loss = f"loss {float(loss):.2f}" if loss is not None else ""
        self._speed = f"{float(speed):.0f} images/s" if speed is not None else ""

    def _status(self, trainer: pl.Trainer) -> str:
        parts = [self._loss, self._scores, self._speed]
        done = trainer.global_step - self._first_step
        if done:
            left = (time.monotonic() - self._begun) / done * (self._total(trainer) - trainer.global_step)
            end = datetime.now() + timedelta(seconds=left)
            parts.append(f"{_clock(left)} left, until {end:%a %H:%M}" if left else "")
        return "  ".join(part for part in parts if part)

    @staticmethod
    def _total(trainer: pl.Trainer) -> int:
        return math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches) * int(trainer.max_epochs or 0)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
