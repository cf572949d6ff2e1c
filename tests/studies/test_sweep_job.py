"""One job of a sweep: planned, skipped, failed, or run. In place of Python, a script of the shell that says what a job
would say and ends as it would.
"""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from queryinst.config import DataConfig, ShapesConfig, TrainConfig
from queryinst.studies import devices, sweep, sweep_table
from queryinst.studies.call import CALL, TRIAL
from queryinst.studies.identity import identity, run_folder
from queryinst.studies.plan import Plan

STUDY = Path("outputs/studies/mine")
WORDS = ["seed=0", "+data.side=96", "model.width=8"]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory of its own, and job number 3 of a sweep over two settings."""
    monkeypatch.chdir(tmp_path)
    program = [(tmp_path / "python").as_posix(), "my_train.py"]
    call = {"id": "then-7", "program": program, "varied": ["seed", "+data.side"], "folder": STUDY.as_posix()}
    monkeypatch.setenv(CALL, json.dumps(call))
    node = {
        "overrides": {"task": WORDS, "hydra": ["hydra.mode=MULTIRUN", "hydra.searchpath=[x]"]},
        "job": {"num": 3},
        "launcher": {},
    }
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": node}))


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig(data=DataConfig(shapes=ShapesConfig(train=1, val=1)))


@pytest.fixture
def folder(config: TrainConfig) -> Path:
    return run_folder(config, identity(config))


def record(path: Path) -> dict[str, Any]:
    """What became of the job: the only file of its folder but for logs, in full."""
    assert [other.name for other in path.parent.iterdir() if other.suffix != ".log"] == [path.name]
    text = path.read_text()
    content: dict[str, Any] = json.loads(text)
    assert text == json.dumps(content, indent=2) + "\n"
    return content


def expected(status: str, folder: Path | None, **more: Any) -> dict[str, Any]:
    known = {"overrides": WORDS[:2], "folder": folder.as_posix() if folder else "", "status": status, "call": "then-7"}
    return known | {"number": 3, "before": False, "said": "", "minutes": None, "plan": None, "trial": None} | more


def test_a_job_that_cannot_be_made(config: TrainConfig):
    sweep.run_job(None, "the width does not fit")
    path = STUDY / "failed-09b69bfc.json"
    assert record(path) == expected("failed", None, said="the width does not fit")
    config.weights = "nowhere.ckpt"
    sweep.run_job(config)
    assert record(path)["said"] == "weights=nowhere.ckpt cannot be read: No such file or directory"


def test_a_dry_run_is_a_plan(config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sweep, "plan", lambda config, folder: Plan(folder.name, config.seed, 2, 0.5))
    config.dry_run, config.seed = True, 5
    folder = run_folder(config, identity(config))
    folder.mkdir(parents=True)
    (folder / "result.json").touch()
    sweep.run_job(config)
    plan = {"state": folder.name, "parameters": 5, "flops": 2, "minutes": 0.5, "missing": ""}
    assert record(STUDY / "planned" / f"{folder.name}.json") == expected("planned", folder, plan=plan)


def test_a_finished_run_is_skipped(config: TrainConfig, folder: Path, capsys: pytest.CaptureFixture[str]):
    folder.mkdir(parents=True)
    (folder / "result.json").touch()
    sweep.run_job(config)
    assert record(STUDY / f"{folder.name}.json") == expected("finished", folder, before=True)
    assert capsys.readouterr().out == f"[seed=0 +data.side=96] finished before: {folder}\n"


def test_a_job_in_which_nothing_varies_is_called_run(
    config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv(CALL, json.dumps({"id": "", "program": [], "varied": [], "folder": STUDY.as_posix()}))
    folder.mkdir(parents=True)
    (folder / "result.json").touch()
    sweep.run_job(config)
    assert capsys.readouterr().out == f"[run] finished before: {folder}\n"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What runs in place of Python; it takes a minute and a half."""
    path = tmp_path / "python"
    path.touch(0o755)
    monkeypatch.setattr(time, "monotonic", itertools.count(100.0, 90.0).__next__)
    return path


def begin(script: Path, config: TrainConfig, lines: str) -> None:
    script.write_text(f"#!/bin/sh\n{lines}\n")
    sweep.run_job(config)


def test_a_job_is_a_process_of_its_own(
    script: Path,
    config: TrainConfig,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("OURS", "kept")
    monkeypatch.setattr(devices, "_cores", lambda: 6)
    for name in ("OMP_NUM_THREADS", "PYTHONUNBUFFERED"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices, "jobs_at_once", lambda: 3)
    path, log = STUDY / f"{folder.name}.json", STUDY / f"{folder.name}.log"
    STUDY.mkdir(parents=True)
    log.write_text("said before\n")
    begin(
        script,
        config,
        f'printf "%s\\n" "$@" > words; env > environment; cp {path} record; echo one; printf "\\377\\n \\n\\n" >&2; '
        f"mkdir -p {folder}; echo > {folder}/result.json; printf tw; sleep 0.3; echo o",
    )
    told = ["hydra.searchpath=[x]", "hydra.mode=RUN", "hydra.job.num=3"]
    assert Path("words").read_text().split() == ["my_train.py", *WORDS, *told]
    lines = set(Path("environment").read_text().splitlines())
    assert lines >= {
        "OURS=kept",
        "OMP_NUM_THREADS=2",
        "SLURM_JOB_NAME=bash",
        f"QUERYINST_PARENT={os.getpid()}",
        f"QUERYINST_ASKED={folder.as_posix()}",
        "PYTHONUNBUFFERED=1",
    }
    assert json.loads(Path("record").read_text()) == expected("running", folder)
    assert record(path) == expected("finished", folder, minutes=1.5)
    assert log.read_bytes() == b"said before\none\n\xff\n \n\ntwo\n"
    name = "[seed=0 +data.side=96]"
    assert capsys.readouterr().out == f"{name} starts: {folder}, log {log}\n{name} one\n{name} \ufffd\n{name} two\n"


def test_what_a_sweep_says_is_there_at_once_where_it_is_said_to_a_file(
    script: Path, config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    with Path("said").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        begin(script, config, f"cp said begun; echo one; mkdir -p {folder}; touch {folder}/result.json")
        name = "[seed=0 +data.side=96]"
        starts = f"{name} starts: {folder}, log {STUDY}/{folder.name}.log\n"
        assert Path("begun").read_text() == starts
        assert Path("said").read_text() == f"{starts}{name} one\n"
        sweep.run_job(config)
        assert Path("said").read_text().endswith(f"one\n{name} finished before: {folder}\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("code", ["exit", "kill"])
def test_a_job_that_was_stopped(script: Path, config: TrainConfig, folder: Path, number: int, code: str):
    """By its own word, or before it could say one."""
    begin(script, config, f"exit {128 + number}" if code == "exit" else f"kill -{number} $$; sleep 10")
    said = f"exit code {128 + number if code == 'exit' else -number}"
    assert record(STUDY / f"{folder.name}.json") == expected("stopped", folder, said=said, minutes=1.5)


def test_a_job_that_was_pruned(script: Path, config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """It is a trial of a search, and its process is told how to report to it."""
    told = {"storage": "x.journal", "study": "mine", "metric": "segm_AP", "pruner": {"name": "none"}}
    monkeypatch.setenv(CALL, json.dumps({**json.loads(os.environ[CALL]), "search": told}))
    monkeypatch.setenv(TRIAL, "12")
    begin(script, config, 'echo "$QUERYINST_JUDGE" > judge; exit 3')
    pruned = expected("pruned", folder, minutes=1.5, trial=12) | {"number": 12}
    assert record(STUDY / f"{folder.name}.json") == pruned
    assert json.loads(Path("judge").read_text()) == {**told, "number": 12}
    assert sweep_table.report() == 0


def test_ctrl_c_ends_the_sweep_as_well(script: Path, config: TrainConfig, folder: Path):
    with pytest.raises(KeyboardInterrupt):
        begin(script, config, "exit 130")
    stopped = expected("stopped", folder, said="exit code 130", minutes=1.5)
    assert record(STUDY / f"{folder.name}.json") == stopped


@pytest.mark.parametrize(("lines", "code"), [("exit 0", 0), ("mkdir -p {}; touch {}/result.json; exit 2", 2)])
def test_a_job_that_failed_says_its_last_twelve_lines(
    script: Path, config: TrainConfig, folder: Path, lines: str, code: int
):
    begin(script, config, f'for i in $(seq 20); do printf "\\n$i \\377\\n"; done; {lines.format(folder, folder)}')
    end = f"exit code {code}" if code else f"it ended without an error, but left no result.json in {folder}"
    said = "\n".join([*(f"{number} \ufffd" for number in range(9, 21)), end])
    assert record(STUDY / f"{folder.name}.json") == expected("failed", folder, said=said, minutes=1.5)


class Job:
    """Of `subprocess.Popen` the waiting, with what happens each time."""

    def __init__(self, *ends: int | type[KeyboardInterrupt]) -> None:
        self.ends = iter(ends)

    def wait(self) -> int:
        end = next(self.ends)
        if isinstance(end, int):
            return end
        raise end


@pytest.mark.parametrize(
    ("ends", "code"), [([0], 0), ([3], 3), ([KeyboardInterrupt, 0], 130), ([KeyboardInterrupt, 143], 143)]
)
def test_after_ctrl_c_a_job_has_time_to_save(ends: list[Any], code: int):
    assert sweep._end_of(Job(*ends)) == code


def test_records_are_those_of_this_command_in_the_order_of_its_jobs(monkeypatch: pytest.MonkeyPatch):
    for number, name in ((10, "a"), (2, "planned/b"), (3, "c")):
        path = STUDY / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(expected("finished", Path(name)) | {"number": number}))
    (STUDY / "d.json").write_text(json.dumps(expected("finished", None, call="another")))
    (STUDY / "d.log").touch()
    found = sweep.records()
    assert [(record.number, record.folder) for record in found] == [(2, "planned/b"), (3, "c"), (10, "a")]
    assert found[1] == sweep.Record(WORDS[:2], "c", "finished", "then-7", 3)
    monkeypatch.setenv(CALL, '{"id": "then-7"}')
    assert sweep.records() == []
