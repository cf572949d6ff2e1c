"""Settings of how training is carried out; they are part of `queryinst.config.TrainConfig`."""

from dataclasses import dataclass
from typing import Any

from queryinst.settings import setting

ACCELERATORS = ("auto", "cpu", "gpu", "mps")  # Lightning's words


@dataclass
class TrainerConfig:
    accelerator: str = setting("auto", "what to compute on", choices=ACCELERATORS, identity=False)
    devices: str = setting("1", "number of devices, a list such as `0,2`, or `auto` for all", identity=False)
    num_nodes: int = setting(1, "machines", at_least=1, identity=False)
    strategy: str = setting("auto", "Lightning's strategy: `auto`, `ddp`, ...", identity=False)
    precision: str = setting(
        "32-true",
        "arithmetic of the network; matching, boxes and losses are always float32",
        choices=("32-true", "bf16-mixed", "16-mixed"),
    )
    compile: bool = setting(
        False, "torch.compile for training: minutes at the start; on a CPU it bought nothing", identity="set"
    )
    checkpoint_every: int | None = setting(
        1000,
        "optimizer steps between checkpoints within an epoch; null: only after epochs",
        at_least=1,
        identity=False,
    )
    checkpoint_minutes: float = setting(
        5.0,
        "minutes: after an epoch without an evaluation there is a checkpoint only if the last one is older than this",
        at_least=0,
        identity=False,
    )
    ema: float | None = setting(
        None, "keep and evaluate an exponential moving average of the weights with this decay", above=0, at_most=0.99999
    )
    sync_batchnorm: bool = setting(False, "statistics of BatchNorm over all devices (GPUs only)")
    accumulate: int = setting(1, "loader batches per optimizer step; divides `data.batch_size`", at_least=1)
    evaluate_every: int = setting(1, "epochs between evaluations", at_least=1)
    patience: int | None = setting(
        None,
        "end training after so many evaluations in a row without a better mask AP; empty: never",
        at_least=1,
        identity="set",
    )
    max_train_batches: int | None = setting(None, "stop each epoch after so many batches (for trials)", at_least=1)
    max_val_batches: int | None = setting(None, "evaluate on so many batches only (for trials)", at_least=1)
    threads: int | None = setting(
        None, "CPU threads of the network; empty: PyTorch's choice", at_least=1, at_most=1024, identity=False
    )
    extra: dict[str, Any] = setting({}, "other arguments of pytorch_lightning.Trainer: +trainer.extra.NAME=VALUE")
