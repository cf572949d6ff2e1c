"""Several runs by one command: each a process of its own, none in the way of the others, and a table at the end.

Hydra says which jobs there are and launches them: one after another, by joblib on the cores or GPUs of a machine, or by
submitit on a cluster. A job here is only the starting of `python -m queryinst.train` with its own settings, so that it
is a plain run: it may use several devices, it is skipped where it is finished and resumed where it was interrupted, and
its memory and loggers end with it. What became of it is written to `outputs/studies/NAME/RUN.json`, its log beside.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.studies import devices
from queryinst.studies.identity import identity, run_folder
from queryinst.studies.job import RESULT
from queryinst.studies.plan import plan
from queryinst.studies.processes import PARENT

CALL = "QUERYINST_SWEEP"  # environment, for the processes of the jobs: what `begin` and `Start` know of the command
PLANNED = "planned"  # folder of the records of a dry run
SAID = 12  # last lines of a failed job's log in the table
STOPPED = {130, *(128 + number for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM))}


@dataclass(frozen=True)
class Record:
    """What became of a job; `RUN.json` of a study."""

    overrides: list[str]  # what distinguishes it from the other jobs
    folder: str  # of the run
    status: str  # planned, running, finished, failed, stopped
    call: str  # the command that it belonged to last
    number: int  # of the job in that command
    before: bool = False  # finished before that command
    said: str = ""  # why it failed
    minutes: float | None = None  # of this process
    plan: dict[str, Any] | None = None  # see queryinst.studies.plan, for a dry run


def begin(words: list[str]) -> list[str]:
    """Before Hydra sees a command line with -m: name the study after its group or what varies, and remember the call.

    Args:
        words: the command line without the program.

    Returns:
        the words, with `study_name=NAME` where none was given.
    """
    parsed = {}
    for word in words:
        try:
            (override,) = OverridesParser.create().parse_overrides([word])
            parsed[override.key_or_group] = override
        except (HydraException, ValueError):  # an option such as -m, or a mistake, of which Hydra will say what it is
            continue
    varied = [key for key, override in parsed.items() if override.is_sweep_override()]
    os.environ[CALL] = json.dumps({"id": f"{time.time():.0f}-{os.getpid()}", "varied": varied})
    if "study_name" in parsed:
        return words
    named = [str(parsed[group].value()) for group in ("experiment", "study") if group in parsed and group not in varied]
    keys = [] if "study" in parsed else [key.rpartition(".")[2] for key in varied]
    return [*words, f"study_name={'-'.join([*named, *keys]) or 'runs'}"]


def call() -> dict[str, Any]:
    """Of the command with -m that this process belongs to: `id`, `varied` (settings), `folder` (of the study)."""
    found: dict[str, Any] = json.loads(os.environ.get(CALL, "{}"))
    return found


class Start(Callback):
    """Hydra's callback that knows, before the first job, what the command line comes to."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        varied = [*call()["varied"], *(config.hydra.sweeper.params or {})]
        os.environ[CALL] = json.dumps({**call(), "varied": varied, "folder": config.hydra.sweep.dir})


def in_sweep() -> bool:
    """Whether Hydra is running a job of several (-m)."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def label(overrides: Sequence[str]) -> list[str]:
    """Of a job's overrides those that distinguish it from the other jobs of the sweep."""
    varied = {key.lstrip("+") for key in call()["varied"]}
    return [word for word in overrides if word.partition("=")[0].lstrip("+") in varied]


def run_job(config: TrainConfig | None, fault: str = "") -> None:
    """Do one job of a sweep: plan it, skip it, or run it in a process of its own; keep a record; never raise for it.

    Args:
        config: of the job; None where it cannot be made.
        fault: what is wrong with the settings then.
    """
    overrides = [str(word) for word in HydraConfig.get().overrides.task]
    keeper = _Keeper(Path(call()["folder"]), label(overrides))
    try:
        if config is None:
            raise UserError(fault)
        folder = run_folder(config, identity(config))
    except UserError as error:
        keeper.keep(f"failed-{zlib.crc32(keeper.name.encode()):08x}", "failed", said=str(error))
        return
    if config.dry_run:
        keeper.keep(folder.name, "planned", folder, plan=asdict(plan(config, folder)))
    elif (folder / RESULT).exists():
        print(f"[{keeper.name}] finished before: {folder}", flush=True)
        keeper.keep(folder.name, "finished", folder, before=True)
    else:
        _run(config, folder, overrides, keeper)


class _Keeper:
    """Writes the records of a study."""

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        self.folder, self.overrides = folder, overrides
        self.name = " ".join(overrides) or "run"
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, run: str, status: str, folder: Path | None = None, **more: Any) -> None:
        where = folder.as_posix() if folder else ""
        record = Record(self.overrides, where, status, call()["id"], HydraConfig.get().job.num, **more)
        path = self.folder / (PLANNED if status == "planned" else ".") / f"{run}.json"
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(record), indent=2) + "\n")
        partial.replace(path)


def _run(config: TrainConfig, folder: Path, overrides: list[str], keeper: _Keeper) -> None:
    log, begun = keeper.folder / f"{folder.name}.log", time.monotonic()
    keeper.keep(folder.name, "running", folder)
    print(f"[{keeper.name}] starts: {folder}, log {log}", flush=True)
    with devices.dealt(config.trainer.devices, devices.jobs_at_once()) as environment, log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "queryinst.train", *overrides],
            env={**os.environ, **environment, **alone(), PARENT: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            stdout=file,  # not to us: the job shall be able to say something when this process is gone
            stderr=subprocess.STDOUT,
        )
        said = threading.Thread(target=_echo, args=(process, log, file.tell(), keeper.name))
        said.start()
        code = _end_of(process)
        said.join()
    minutes = (time.monotonic() - begun) / 60
    if code == 0 and (folder / RESULT).exists():
        keeper.keep(folder.name, "finished", folder, minutes=minutes)
    elif code in STOPPED or code < 0:
        keeper.keep(folder.name, "stopped", folder, minutes=minutes, said=f"exit code {code}")
        if code == 130:
            raise KeyboardInterrupt
    else:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-SAID:]
        keeper.keep(folder.name, "failed", folder, minutes=minutes, said="\n".join([*lines, f"exit code {code}"]))


def alone() -> dict[str, str]:
    """Environment of a run within a job of SLURM: named as in a shell, Lightning starts a process a GPU itself."""
    return {"SLURM_JOB_NAME": "bash"} if "SLURM_JOB_ID" in os.environ else {}


def _echo(process: "subprocess.Popen[bytes]", log: Path, begin: int, name: str) -> None:
    """Print what a job adds to its log, line by line, until it ends."""
    with log.open(errors="replace") as file:
        file.seek(begin)
        part = ""
        while True:
            ended = process.poll() is not None
            part += file.read()
            *lines, part = part.split("\n")
            for line in filter(str.strip, lines):
                print(f"[{name}] {line}", flush=True)
            if ended:
                return
            time.sleep(0.2)


def _end_of(process: "subprocess.Popen[bytes]") -> int:
    """The exit code. Ctrl+C reaches the job as well: it is given the time to save."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        return process.wait() or 130


def records() -> list[Record]:
    """What became of the jobs of this command, in their order."""
    if "folder" not in call():
        return []  # it ended before its first job
    study = Path(call()["folder"])
    contents = (json.loads(path.read_text()) for path in [*study.glob("*.json"), *study.glob(f"{PLANNED}/*.json")])
    found = [Record(**content) for content in contents if content["call"] == call()["id"]]
    return sorted(found, key=lambda record: record.number)
