"""Loggers: CSV that survives a resume, W&B without an account, several at once."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SHORT, Run
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from queryinst.errors import Stopped, UserError
from queryinst.lightning import loggers
from queryinst.lightning.loggers import CsvLogger, begin, build_loggers, close
from queryinst.logger_config import LoggerConfig, WandbConfig


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
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert build_loggers(LoggerConfig(), tmp_path, "id", "run", 0) == []
    both = build_loggers(LoggerConfig(csv=True, tensorboard=True), tmp_path, "id", "run", 0)
    assert [type(logger) for logger in both] == [CsvLogger, TensorBoardLogger]
    for logger in both:
        logger.log_metrics({"loss": 1.0}, 1)
        logger.finalize("success")
    assert rows(tmp_path / "metrics.csv") == [{"step": "1", "loss": "1.0"}]
    (scalar,) = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert (scalar.step, scalar.value) == (1, 1.0)


def inspect(folder: Path) -> list[dict[str, Any]]:
    """The records of the only offline run below a folder, by W&B's own reader."""
    (record,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(record)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in text.splitlines()]


OFFLINE = LoggerConfig(wandb=WandbConfig(enabled=True, mode="offline", project="p", tags=["t", "tiny"]))


@pytest.mark.parametrize(
    ("fault", "code", "failed", "preempted"),
    [
        (None, 0, False, False),
        (UserError("no such thing"), 1, True, False),
        (ZeroDivisionError("a fault of ours"), 1, True, False),
        (KeyboardInterrupt(), 255, False, False),
        (Stopped(signal.SIGTERM), 143, False, True),
        (Stopped(signal.SIGUSR1), 128 + signal.SIGUSR1, False, True),
    ],
)
def test_wandb_offline_has_the_runs_identity_and_its_end(
    tmp_path: Path, fault: BaseException | None, code: int, failed: bool, preempted: bool
):
    loggers = build_loggers(OFFLINE, tmp_path, "0123abcd", "shapes-0123abcd", 0, "a_study", ["tiny", "x" * 99])
    assert [type(logger) for logger in loggers] == [WandbLogger]
    begin(loggers, {"model.num_stages": 2})
    loggers[0].log_metrics({"val/segm_AP": 0.5}, 2)
    loggers[0].log_metrics({"val/segm_AP": 0.25}, 3)
    close(loggers, fault)
    records = inspect(tmp_path)
    run = next(record["run"] for record in records if record["type"] == "run")
    assert (run["run_id"], run["display_name"], run["run_group"]) == ("0123abcd", "shapes-0123abcd", "a_study")
    assert run["tags"] == ["t", "tiny", "x" * 64]
    assert any(record.get("config", {}).get("update", {}).get("model.num_stages") == 2 for record in records)
    summary = {k: v for record in records for k, v in record.get("summary", {}).get("update", {}).items()}
    assert summary["val/segm_AP"] == {"max": 0.5}
    assert summary["failed"] is failed
    (end,) = (record["exit"] for record in records if record["type"] == "exit")
    assert end.get("exit_code", 0) == code
    assert any(record["type"] == "preempting" for record in records) == preempted


def test_a_run_takes_the_id_that_a_sweeps_agent_gives_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """And one that the agent stops is not handed out again."""
    import wandb

    given = {"WANDB_SWEEP_ID": "sweep123", "WANDB_RUN_ID": "agent123", "WANDB_PROJECT": "theirs", "WANDB_ENTITY": "we"}
    with monkeypatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        wandb.teardown()  # it has read the environment before
        loggers = build_loggers(OFFLINE, tmp_path, "0123abcd", "shapes", 0)
        begin(loggers, {"optimizer.lr": 0.1})
        close(loggers, Stopped(signal.SIGTERM))
    wandb.teardown()
    records = inspect(tmp_path)
    run = next(record["run"] for record in records if record["type"] == "run")
    assert [run[key] for key in ("run_id", "sweep_id", "project", "entity")] == ["agent123", "sweep123", "theirs", "we"]
    assert not any(record["type"] == "preempting" for record in records)


def test_what_wandb_does_not_take_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import wandb

    def refuse(*_: Any) -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(WandbLogger, "log_hyperparams", refuse)
    loggers = build_loggers(OFFLINE, tmp_path, "0123abcd", "run", 0)
    with pytest.raises(
        UserError, match=r"not take the run \(No API key configured\): run `wandb login`, or set logger"
    ):
        begin(loggers, {})
    close(loggers, UserError("that one"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mode", "key", "account"), [("online", "k", True), ("offline", "k", False), ("online", "", False)]
)
def test_auto_is_online_where_there_is_an_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, key: str, account: bool
):
    import wandb

    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr(wandb, "login", lambda **_: False)  # it looks for a key in the user's home
    (logger,) = build_loggers(LoggerConfig(wandb=WandbConfig(enabled=True)), tmp_path, "0123abcd", "run", 0)
    assert isinstance(logger, WandbLogger)
    assert logger._offline is not account


def test_a_row_that_a_full_disk_has_cut_is_not_a_row_of_another_step(tmp_path: Path):
    logger = CsvLogger(tmp_path / "metrics.csv")
    logger.log_metrics({"loss": 3.0}, 1)
    with logger.path.open("a") as file:
        file.write("2")  # of "20,2.5"
    CsvLogger(tmp_path / "metrics.csv", first_step=10)
    assert rows(logger.path) == [{"step": "1", "loss": "3.0"}]


@pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")])
def test_wandb_that_is_switched_off_is_left_out(
    trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    """A run goes on without it; here one that has but to evaluate."""
    (trained / "result.json").unlink()
    monkeypatch.setenv(name, value)
    code, text = run("train", *SHORT, "logger=[csv,wandb]", "logger.wandb.mode=online")
    assert code == 0, text
    assert f"W&B        left out: {name}={value}\n" in text
    assert not list(trained.glob("wandb*"))


@pytest.mark.parametrize("name", ["WANDB_MODE", "WANDB_DISABLED"])
def test_other_values_switch_nothing_off(monkeypatch: pytest.MonkeyPatch, name: str):
    for value in ("offline", "online", "false", "0", ""):
        monkeypatch.setenv(name, value)
        assert loggers.switched_off() == ""
