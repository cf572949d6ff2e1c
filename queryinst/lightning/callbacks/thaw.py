"""Frozen stages of the backbone that train too from some epoch on, once what started fresh has learned something."""

import copy
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from queryinst.errors import UserError
from queryinst.lightning.module import QueryInstModule
from queryinst.slots import said


class Thaw(pl.Callback):
    """Thaws the backbone before the first step of an epoch, or where a run goes on that has come so far.

    The epoch alone says whether, so that it needs no state. The optimizer has had these parameters from the
    beginning (`thawing`), for its state is known by their places; without gradients it left them alone.

    Args:
        epoch: from which on, counted from 0.
        say: prints a line of text.
    """

    def __init__(self, epoch: int, say: Callable[[str], None]) -> None:
        self.epoch, self.say = epoch, say
        self._thawed = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        strategy = trainer.strategy  # of those that inherit DDPStrategy, DeepSpeed wraps otherwise
        if not isinstance(strategy, SingleDeviceStrategy) and type(strategy) is not DDPStrategy:
            raise UserError(
                f"backbone.thaw cannot be had with {type(strategy).__name__}, which decides at the beginning what is "
                "trained: choose trainer.strategy=ddp, or leave backbone.thaw out"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In the middle of an epoch, where a run may go on, no epoch starts."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._thawed or trainer.current_epoch < self.epoch:
            return
        assert isinstance(pl_module, QueryInstModule)
        backbone: Any = pl_module.model.backbone
        backbone.thaw()
        if isinstance(trainer.strategy, DDPStrategy):
            wrap_again(trainer.strategy, pl_module)
        self._thawed = True
        if trainer.is_global_zero:
            self.say(f"backbone   from epoch {self.epoch + 1} on its frozen stages train too (backbone.thaw)")


def wrap_again(strategy: DDPStrategy, module: pl.LightningModule) -> None:
    """DistributedDataParallel averages the gradients of what wanted one when it was made, so another one is made.

    The old one goes first: with it go the hooks that it has put on the parameters.
    """
    strategy.model = module
    strategy.configure_ddp()


def thawing(backbone: nn.Module) -> frozenset[str]:
    """The names of the parameters that `thaw()` will let train, found out on a copy.

    Raises:
        UserError: there is no such method, it fails, or it lets nothing train.
    """
    name = type(backbone).__name__
    if not callable(getattr(backbone, "thaw", None)):
        raise UserError(
            f"backbone.thaw needs a backbone that can thaw, and {name} has no method `thaw()` (queryinst/parts.py: "
            "BackbonePart): inherit queryinst.models.backbone.Backbone, or leave backbone.thaw out"
        )
    try:
        thawed: Any = copy.deepcopy(backbone)
        thawed.thaw()
    except Exception as error:  # whatever the user's code does
        raise UserError(f"backbone.thaw: {name} fails in thaw(): {said(error)}") from error
    before = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    names = frozenset(name for name, parameter in thawed.named_parameters() if parameter.requires_grad) - before
    if not names:
        raise UserError(f"backbone.thaw: there is nothing frozen in {name} that its thaw() lets train; leave it out")
    return names
