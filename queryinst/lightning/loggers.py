"""Where curves and pictures go: a CSV file, TensorBoard, Weights & Biases, several, or nowhere."""

import csv
import io
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from queryinst.errors import Pruned, Stopped, UserError
from queryinst.logger_config import LoggerConfig

BEST_OF = ("val/segm_AP", "val/bbox_AP")  # W&B's table of runs shows their maximum, not their last value


def build_loggers(
    config: LoggerConfig,
    folder: Path,
    run_id: str,
    name: str,
    first_step: int,
    study: str | None = None,
    tags: Sequence[str] = (),
) -> list[Logger]:
    """The loggers that `config` asks for.

    Args:
        folder: of the run; everything is written below it.
        run_id: identity of the run, and W&B's run id, so that a resumed run continues its own curves.
        name: of the run.
        first_step: where training begins; more than 0 when it resumes. CSV rows from there on are written again.
        study: W&B's group.
        tags: W&B's, beside those of `config`.
    """
    loggers: list[Logger] = []
    if config.csv:
        loggers.append(CsvLogger(folder / "metrics.csv", first_step))
    if config.tensorboard:
        loggers.append(
            TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False, purge_step=first_step)
        )
    if config.wandb.enabled and not switched_off():
        loggers.append(_wandb(config, folder, run_id, name, study, tags))
    return loggers


def _wandb(
    config: LoggerConfig, folder: Path, run_id: str, name: str, study: str | None, tags: Sequence[str]
) -> WandbLogger:
    import wandb

    online = config.wandb.mode == "online" or (config.wandb.mode == "auto" and has_account())
    logger = WandbLogger(
        name=name,
        id=run_id,  # in a sweep of W&B its agent has chosen id, project and entity, and W&B leaves these out
        save_dir=folder.resolve(),  # W&B's own process may have begun elsewhere
        project=config.wandb.project,
        entity=config.wandb.entity,
        group=study,
        job_type="train",
        tags=list(dict.fromkeys(tag[:64] for tag in (*config.wandb.tags, *tags))),  # W&B takes no longer ones
        offline=not online,
        resume="allow",
        log_model=False,
        # A killed process takes with it what is not in the file yet; W&B waits 15 seconds.
        settings=wandb.Settings(x_transaction_log_flush_interval=1.0),
    )
    logger._wandb_init.pop("anonymous", None)  # Lightning gives it always, and W&B warns that it is of no use
    return logger


@rank_zero_only
def begin(loggers: list[Logger], settings: dict[str, Any]) -> None:
    """Give the loggers the flat hyperparameters of the run. Raises UserError where W&B does not take the run."""
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            logger.log_hyperparams(settings)
            continue
        import wandb

        try:
            logger.log_hyperparams(settings)
        except wandb.errors.Error as error:
            raise UserError(
                f"Weights & Biases does not take the run ({str(error).rstrip('.')}): run `wandb login`, or set "
                "logger.wandb.mode=offline"
            ) from error
        for metric in BEST_OF:
            logger.experiment.define_metric(metric, step_metric="trainer/global_step", step_sync=True, summary="max")


@rank_zero_only
def send_picture(loggers: list[Logger], name: str, picture: NDArray[np.uint8], step: int) -> None:
    """Give a picture (H, W, 3) RGB to the loggers that take pictures, each in its way."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [picture], step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step, dataformats="HWC")


@rank_zero_only
def flush(loggers: list[Logger]) -> None:
    """Put on disk what belongs to the steps before a checkpoint: a resumed run does not log them again."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.flush()


@rank_zero_only
def close(loggers: list[Logger], fault: BaseException | None) -> None:
    """Write what is left, and end the W&B run as what it is.

    W&B shows exit code 0 as finished, 255 as killed (Ctrl+C), and others as failed. A run that a signal ended is marked
    as preempted, which an agent of a sweep takes up again; but SIGTERM in a sweep is how its agent stops a run for
    good. Only a fault makes the summary's `failed` true.

    Args:
        fault: what ended the run before its end, if anything did.
    """
    fault = None if isinstance(fault, Pruned) else fault  # it ended as it should
    interrupted = isinstance(fault, KeyboardInterrupt)
    code = fault.code if isinstance(fault, Stopped) else 255 if interrupted else int(fault is not None)
    by_agent = code == 128 + signal.SIGTERM and "WANDB_SWEEP_ID" in os.environ
    flush(loggers)
    if not any(isinstance(logger, WandbLogger) for logger in loggers):
        return
    import wandb

    if wandb.run:  # None where it could not begin
        wandb.run.summary["failed"] = code == 1
        if isinstance(fault, Stopped) and not by_agent:
            wandb.run.mark_preempting()
        wandb.finish(exit_code=code)


def switched_off() -> str:
    """What in the environment says that W&B shall do nothing, whatever the settings say; usually nothing."""
    if os.environ.get("WANDB_MODE") == "disabled":
        return "WANDB_MODE=disabled"
    value = os.environ.get("WANDB_DISABLED", "")
    return f"WANDB_DISABLED={value}" if value.lower() in ("true", "1", "yes", "on") else ""


def has_account() -> bool:
    """Whether W&B knows who we are, so that a run can go online."""
    import wandb

    if os.environ.get("WANDB_MODE", "online") != "online":
        return False
    return bool(os.environ.get("WANDB_API_KEY") or wandb.login(prompt=False, verify=False))


class CsvLogger(Logger):
    """One row a logged step in `metrics.csv`, kept when a run resumes (Lightning's own logger starts the file afresh).

    A new metric becomes a new column: the file is then written again as a whole, beside the old one, and renamed.

    Args:
        path: the file.
        first_step: rows of this step and later come from a process that did not get to its next checkpoint; they go.
    """

    def __init__(self, path: Path, first_step: int = 0) -> None:
        super().__init__()
        self.path = path
        self.columns = ["step"]
        if path.exists():
            text = path.read_bytes().decode()
            with io.StringIO(
                text[: text.rfind("\n") + 1], newline=""
            ) as file:  # of a cut row "12" may be left of "120"
                reader = csv.DictReader(file)
                rows = [row for row in reader if row["step"].isdecimal() and int(row["step"]) < first_step]
                self.columns = list(reader.fieldnames or self.columns)
            self._write(rows)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The settings are in config.yaml already."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step or 0, **metrics}
        new = [name for name in row if name not in self.columns]
        if new or not self.path.exists():
            self.columns += new
            with self.path.open(newline="") if self.path.exists() else io.StringIO("") as file:
                rows = list(csv.DictReader(file))
            self._write(rows)
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)

    @rank_zero_only
    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)
