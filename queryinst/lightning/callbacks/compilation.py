"""`torch.compile` for training only: evaluation has the numbers that it has without."""

import pytorch_lightning as pl
import torch

from queryinst.lightning.module import QueryInstModule
from queryinst.models.compiled import compile_parts, require_compiler


class Compilation(pl.Callback):
    """Compiles the network where training begins, and lets it run as it is written outside of training steps.

    So a checkpoint has one result, whether its run was compiled or not, and nobody waits for code of another mode of
    the network. Whoever calls `fit` sets PyTorch's stance to "default" again.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        require_compiler(pl_module.device)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, QueryInstModule)
        compile_parts(pl_module.model)

    def on_train_batch_start(self, *arguments: object) -> None:
        torch.compiler.set_stance("default")

    def on_train_batch_end(self, *arguments: object) -> None:
        torch.compiler.set_stance("force_eager")
