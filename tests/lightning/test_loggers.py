"""Loggers: CSV that survives a resume, W&B without an account, several at once."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from queryinst.config import LoggerConfig, WandbConfig
from queryinst.lightning.loggers import CsvLogger, build_loggers, close


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_grows_by_columns_and_rows(tmp_path: Path):
    logger = CsvLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"loss": 3.0}, 1)
    logger.log_metrics({"loss": 2.0}, 2)
    logger.log_metrics({"AP": 0.5}, 2)
    logger.log_metrics({"loss": 1.0}, 3)
    assert rows(logger.path) == [
        {"step": "1", "loss": "3.0", "AP": ""},
        {"step": "2", "loss": "2.0", "AP": ""},
        {"step": "2", "loss": "", "AP": "0.5"},
        {"step": "3", "loss": "1.0", "AP": ""},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_csv_resumes_without_losing_or_repeating(tmp_path: Path):
    logger = CsvLogger(tmp_path / "metrics.csv")
    for step in range(6):
        logger.log_metrics({"loss": float(step)}, step)
    resumed = CsvLogger(tmp_path / "metrics.csv", first_step=4)  # steps 4 and 5 were lost with the process
    for step in range(4, 8):
        resumed.log_metrics({"loss": step + 0.5}, step)
    assert [row["step"] for row in rows(logger.path)] == [str(step) for step in range(8)]
    assert rows(logger.path)[4]["loss"] == "4.5"


def test_none_and_several(tmp_path: Path):
    assert build_loggers(LoggerConfig(), tmp_path, "id", "run", 0) == []
    both = build_loggers(LoggerConfig(csv=True, tensorboard=True), tmp_path, "id", "run", 0)
    assert [type(logger) for logger in both] == [CsvLogger, TensorBoardLogger]
    for logger in both:
        logger.log_metrics({"loss": 1.0}, 1)
        logger.finalize("success")
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.parametrize("failed", [False, True])
def test_wandb_offline_has_the_runs_identity_and_its_end(tmp_path: Path, failed: bool):
    config = LoggerConfig(wandb=WandbConfig(enabled=True, mode="offline", project="p", tags=["t"]))
    (logger,) = build_loggers(config, tmp_path, "0123abcd", "shapes-0123abcd", 0)
    assert isinstance(logger, WandbLogger)
    logger.log_hyperparams({"model.num_stages": 2})
    logger.log_metrics({"val/segm_AP": 0.25}, 3)
    close([logger], failed)
    (record,) = tmp_path.glob("wandb/offline-run-*-0123abcd/run-0123abcd.wandb")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(record)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert '"0123abcd"' in text
    assert "model.num_stages" in text
    assert "0.25" in text
    exits = [json.loads(line) for line in text.splitlines() if '"exit' in line.lower()]
    assert exits
    assert exits[-1]["exit"].get("exit_code", 0) == int(failed)
