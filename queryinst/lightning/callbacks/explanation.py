"""Why average precision is zero, said where it is and when that begins to be odd."""

from collections.abc import Callable

import pytorch_lightning as pl

from queryinst.lightning.module import QueryInstModule


class Explanation(pl.Callback):
    """Says the diagnosis of an evaluation whose AP is nearly 0: once while training, and once at its end.

    After the first epoch nobody expects more than 0, so that evaluation is passed over; and so is the last one of
    `fit`, since the evaluation of the best weights follows at once.

    Args:
        say: prints a line of text.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self._said = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, QueryInstModule)
        diagnosis = pl_module.evaluators[-1].diagnosis
        if not diagnosis or not trainer.is_global_zero:
            return
        if trainer.state.fn == "fit":
            if self._said or not 0 < trainer.current_epoch < int(trainer.max_epochs or 0) - 1:
                return
            self._said = True
        self.say(f"why AP is nearly 0: {diagnosis}")
