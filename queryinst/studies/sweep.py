"""Several runs by one command: each a process of its own, none in the way of the others, and a table at the end.

Hydra says which jobs there are and launches them: one after another, by joblib on the cores or GPUs of a machine, or by
submitit on a cluster. A job here is only the starting of the program that was called, with its own settings, so that it
is a plain run: it may use several devices, it is skipped where it is finished and resumed where it was interrupted, and
its memory and loggers end with it. What became of it is written to `outputs/studies/NAME/RUN.json`, its log beside.
"""

import json
import os
import signal
import subprocess
import threading
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from queryinst.config import TrainConfig
from queryinst.errors import PRUNED, UserError, room
from queryinst.studies import devices
from queryinst.studies.call import ASKED, TRIAL, as_written, call, command_of, label
from queryinst.studies.files import write_whole
from queryinst.studies.identity import identity, run_folder
from queryinst.studies.job import RESULT
from queryinst.studies.judge import JUDGE
from queryinst.studies.plan import plan
from queryinst.studies.processes import PARENT

PLANNED = "planned"  # folder of the records of a dry run
SAID = 12  # last lines of a failed job's log in the table
STOPPED = {130, *(128 + number for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM))}


@dataclass(frozen=True)
class Record:
    """What became of a job; `RUN.json` of a study."""

    overrides: list[str]  # what distinguishes it from the other jobs
    folder: str  # of the run
    status: str  # planned, running, finished, pruned, failed, stopped
    call: str  # the command that it belonged to last
    number: int  # of the job in that command, or of the trial in its search
    before: bool = False  # finished before that command
    said: str = ""  # why it failed
    minutes: float | None = None  # of this process
    plan: dict[str, Any] | None = None  # see queryinst.studies.plan, for a dry run
    trial: int | None = None  # of a search


def in_sweep() -> bool:
    """Whether Hydra is running a job of several (-m)."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def run_job(config: TrainConfig | None, fault: str = "") -> None:
    """Do one job of a sweep: plan it, skip it, or run it in a process of its own; keep a record; never raise for it.

    Args:
        config: of the job; None where it cannot be made.
        fault: what is wrong with the settings then.
    """
    node = HydraConfig.get()
    overrides = as_written(node.overrides.task)
    command = command_of(overrides, as_written(node.overrides.hydra), node.job.num)
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
        _run(config, folder, command, keeper)


class _Keeper:
    """Writes the records of a study."""

    def __init__(self, folder: Path, overrides: list[str]) -> None:
        self.folder, self.overrides = folder, overrides
        self.name = " ".join(overrides) or "run"
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, run: str, status: str, folder: Path | None = None, **more: Any) -> None:
        where = folder.as_posix() if folder else ""
        trial = int(os.environ[TRIAL]) if TRIAL in os.environ else None
        number = HydraConfig.get().job.num if trial is None else trial
        record = Record(self.overrides, where, status, call()["id"], number, trial=trial, **more)
        path = self.folder / (PLANNED if status == "planned" else ".") / f"{run}.json"
        path.parent.mkdir(exist_ok=True)
        with room(path):
            write_whole(path, json.dumps(asdict(record), indent=2) + "\n")


def _run(config: TrainConfig, folder: Path, command: list[str], keeper: _Keeper) -> None:
    log, begun = keeper.folder / f"{folder.name}.log", time.monotonic()
    keeper.keep(folder.name, "running", folder)
    print(f"[{keeper.name}] starts: {folder}, log {log}", flush=True)
    with devices.dealt(config.trainer.devices, devices.jobs_at_once()) as environment, log.open("ab") as file:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment, **alone(), **_from_us(folder)},
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
    elif code == PRUNED:
        keeper.keep(folder.name, "pruned", folder, minutes=minutes)
    elif code in STOPPED or code < 0:
        keeper.keep(folder.name, "stopped", folder, minutes=minutes, said=f"exit code {code}")
        if code == 130:
            raise KeyboardInterrupt
    else:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-SAID:]
        end = f"exit code {code}" if code else f"it ended without an error, but left no {RESULT} in {folder}"
        keeper.keep(folder.name, "failed", folder, minutes=minutes, said="\n".join([*lines, end]))


def _from_us(folder: Path) -> dict[str, str]:
    """Environment by which a job knows whose it is, and which run it was asked for."""
    ours = {PARENT: str(os.getpid()), ASKED: folder.as_posix(), "PYTHONUNBUFFERED": "1"}
    if TRIAL in os.environ:
        ours[JUDGE] = json.dumps({**call()["search"], "number": int(os.environ[TRIAL])})
    return ours


def check_asked(config: TrainConfig) -> None:
    """In the process of a job: it may have composed another run than its sweep did. Raises UserError."""
    asked = os.environ.get(ASKED)
    if asked and (folder := run_folder(config, identity(config)).as_posix()) != asked:
        raise UserError(
            f"this job would be the run {folder}, but its sweep asked for {asked}: a setting depends on when or where "
            "it is read (${now:}, ${hydra:}, a file that changed); give its value"
        )


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
