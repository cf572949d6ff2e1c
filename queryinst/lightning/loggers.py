"""Where curves and pictures go: a CSV file, TensorBoard, Weights & Biases, several, or nowhere."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from queryinst.config import LoggerConfig


def build_loggers(config: LoggerConfig, folder: Path, run_id: str, name: str, first_step: int) -> list[Logger]:
    """The loggers that `config` asks for.

    Args:
        folder: of the run; everything is written below it.
        run_id: identity of the run, and W&B's run id, so that a resumed run continues its own curves.
        name: of the run.
        first_step: where training begins; more than 0 when it resumes. CSV rows from there on are written again.
    """
    loggers: list[Logger] = []
    if config.csv:
        loggers.append(CsvLogger(folder / "metrics.csv", first_step))
    if config.tensorboard:
        loggers.append(
            TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False, purge_step=first_step)
        )
    if config.wandb.enabled:
        online = config.wandb.mode == "online" or (config.wandb.mode == "auto" and has_account())
        loggers.append(
            WandbLogger(
                name=name,
                id=run_id,
                save_dir=folder,
                project=config.wandb.project,
                entity=config.wandb.entity,
                tags=config.wandb.tags,
                offline=not online,
                resume="allow",
                log_model=False,
            )
        )
    return loggers


@rank_zero_only
def flush(loggers: list[Logger]) -> None:
    """Put on disk what belongs to the steps before a checkpoint: a resumed run does not log them again."""
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.flush()


@rank_zero_only
def close(loggers: list[Logger], failed: bool) -> None:
    """End the W&B run, marked as failed where it did."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            logger.experiment.summary["failed"] = failed
            wandb.finish(exit_code=int(failed))


def has_account() -> bool:
    """Whether W&B knows who we are, so that a run can go online."""
    import wandb

    return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)


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
            with path.open(newline="") as file:
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
