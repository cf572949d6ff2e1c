"""A Lightning Trainer from our settings."""

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint, Timer
from pytorch_lightning.loggers import Logger

from queryinst.config import OptimizerConfig, ScheduleConfig
from queryinst.errors import UserError, nearest
from queryinst.lightning.callbacks.keep_last import AtomicCheckpointIO, KeepLast
from queryinst.lightning.callbacks.patience import Patience
from queryinst.trainer_config import TrainerConfig

BEST, LAST = "best.ckpt", "last.ckpt"


def build_trainer(
    config: TrainerConfig,
    optimizer: OptimizerConfig,
    schedule: ScheduleConfig,
    callbacks: list[pl.Callback],
    loggers: list[Logger],
    folder: Path,
) -> pl.Trainer:
    """The Trainer of a training run, which keeps `best.ckpt` (by val/segm_AP) and `last.ckpt` in `folder`."""
    if config.threads:
        torch.set_num_threads(config.threads)
    keepers: list[pl.Callback] = [
        ModelCheckpoint(
            folder,
            "best",
            monitor="val/segm_AP",
            mode="max",
            enable_version_counter=False,
            save_on_train_epoch_end=False,
        ),
        KeepLast(folder / LAST, config.checkpoint_every, _limit(config.extra), 60 * config.checkpoint_minutes),
    ]
    if config.patience is not None:
        keepers.insert(0, Patience(config.patience))
    if config.ema is not None:  # before those who save: a step's average belongs to its checkpoint
        keepers.insert(0, EMAWeightAveraging(decay=config.ema))
    plugins: list[Any] = [AtomicCheckpointIO(light=folder / BEST)]
    if SLURMEnvironment.detect():  # Lightning would answer the signal by a checkpoint of its own and prefer that one
        try:
            plugins.append(SLURMEnvironment(auto_requeue=False))
        except RuntimeError as error:  # of a number of tasks that it does not take
            raise UserError(f"this job of SLURM does not suit Lightning: {error}") from error
    settings: dict[str, Any] = {
        "accelerator": config.accelerator,
        "devices": devices(config.devices),
        "num_nodes": config.num_nodes,
        "strategy": config.strategy,
        "precision": config.precision,
        "accumulate_grad_batches": config.accumulate,
        "check_val_every_n_epoch": config.evaluate_every,
        "limit_train_batches": config.max_train_batches,
        "limit_val_batches": config.max_val_batches,
        "max_epochs": schedule.epochs,
        "gradient_clip_val": optimizer.clip_norm or None,
        "logger": loggers or False,
        "callbacks": [*callbacks, *keepers],
        "default_root_dir": folder,
        "log_every_n_steps": 1,  # the module decides which steps to log
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "sync_batchnorm": config.sync_batchnorm,
        "plugins": plugins,
        "use_distributed_sampler": False,  # our samplers know their rank, and repeat no image in evaluation
    }
    decided = next((name for name in config.extra if name in settings), None)
    if decided:
        raise UserError(f"trainer.extra.{decided} is decided by a setting of its own; see queryinst/config.py")
    if any(isinstance(callback, Timer) for callback in callbacks):
        raise UserError(
            "callbacks.extra: Lightning's Timer would end the run as if it were finished; give "
            "+trainer.extra.max_time=DD:HH:MM:SS, after which the same command goes on"
        )
    return trainer_of(settings | {name: value for name, value in config.extra.items() if name != "max_time"})


def _limit(extra: dict[str, Any]) -> float | None:
    """`max_time` in seconds. Lightning's own timer ends a run as if it were finished; `KeepLast` leaves and goes on."""
    if extra.get("max_time") is None:
        return None
    try:
        return Timer(extra["max_time"]).time_remaining()
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise UserError(f"trainer.extra.max_time takes DD:HH:MM:SS, such as 00:08:00:00: {error}") from error


def trainer_of(settings: dict[str, Any]) -> pl.Trainer:
    """`pl.Trainer(**settings)`, with a sentence where Lightning does not take them."""
    quiet()
    try:
        return pl.Trainer(**settings)
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        known = set(pl.Trainer.__init__.__annotations__)
        wrong = [name for name in settings if name not in known]
        hint = f"; '{wrong[0]}' is no argument of pytorch_lightning.Trainer{nearest(wrong[0], known)}" if wrong else ""
        raise UserError(f"the trainer cannot be made: {error}{hint}") from error


def devices(text: str) -> int | str | list[int]:
    """`1`, `auto`, or a list such as `0,2`, as Lightning wants it."""
    if text == "auto":
        return text
    try:
        numbers = [int(part) for part in str(text).split(",")]
    except ValueError:
        raise UserError(f"trainer.devices takes a number, a list such as 0,2, or auto; got '{text}'") from None
    return numbers if len(numbers) > 1 or "," in text else numbers[0]


def quiet() -> None:
    """Leave out what Lightning says on every run and what does not concern the user."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*LeafSpec.* is deprecated.*",
        ".*in eval mode at the start of training.*",  # the frozen part of a backbone
        ".*ended before the epoch ended and your dataloader is not resumable.*",  # its sampler begins where it ended
        ".*It is recommended to use `self.log.*sync_dist=True.*",  # the evaluator gives every process the same numbers
    ):
        warnings.filterwarnings("ignore", message)
