"""Pruning: a run that is a trial of a search ends early where its evaluations say that it is not worth going on."""

from collections.abc import Callable

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from queryinst.errors import Pruned


class Pruning(pl.Callback):
    """Asks after each evaluation, and ends the run when its checkpoint is written: it can go on any time.

    Args:
        judge: takes the number of epochs and the metric; says whether the run shall end. Asked by the first process.
        metric: an evaluation's number, as in result.json.
    """

    def __init__(self, judge: Callable[[int, float], bool], metric: str) -> None:
        self.judge, self.metric = judge, metric
        self.reason = ""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        value = trainer.callback_metrics.get(f"val/{self.metric}")
        if trainer.state.fn != TrainerFn.FITTING or value is None:
            return
        epoch = trainer.current_epoch + 1
        ends = trainer.is_global_zero and self.judge(epoch, float(value))
        if trainer.strategy.reduce_boolean_decision(bool(ends), all=False):
            self.reason = f"after epoch {epoch}, with {self.metric} {float(value):.3f}"

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Not at an epoch's end, where the checkpoint is still to come; and so never after the last epoch."""
        if self.reason:
            raise Pruned(self.reason)
