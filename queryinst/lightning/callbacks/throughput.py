"""How fast training goes, and how much of the time it waits for data."""

import time
from typing import Any

import pytorch_lightning as pl

from queryinst.lightning.module import LOG_EVERY, QueryInstModule
from queryinst.structures import Batch


class Throughput(pl.Callback):
    """Logs `train/images_per_second` (all devices together) and `train/data_wait`, the share of time without a batch.

    Also keeps the seconds that the run has taken, over all its resumptions.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun = self._asked = time.perf_counter()
        self._waited, self._images, self._since = 0.0, 0, self._begun

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = state_dict["seconds"]

    def elapsed(self) -> float:
        """Seconds of training and evaluation so far."""
        return self.seconds + time.perf_counter() - self._begun

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begun = time.perf_counter()
        self._reset()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._reset()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        self._waited += time.perf_counter() - self._asked
        self._images += len(batch.images) * trainer.world_size

    def on_train_batch_end(  # type: ignore[override]  # it logs by itself
        self, trainer: pl.Trainer, pl_module: QueryInstModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._asked = time.perf_counter()
        if batch_idx % LOG_EVERY == LOG_EVERY - 1:
            passed, step = self._asked - self._since, trainer.global_step - 1
            speed = self._images / passed
            pl_module.write({"train/images_per_second": speed, "train/data_wait": self._waited / passed}, step)
            pl_module.log("train/images_per_second", speed, logger=False, batch_size=1)  # for those who watch
            self._reset()

    def _reset(self) -> None:
        self._asked = self._since = time.perf_counter()
        self._waited, self._images = 0.0, 0
