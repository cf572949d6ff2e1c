"""What the processes of a sweep know of the command that they belong to: which program, which study, what varies."""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

CALL = "QUERYINST_SWEEP"  # environment, for the processes of the jobs: what `begin` and `Start` know of the command
ASKED = "QUERYINST_ASKED"  # environment: the run that a sweep started this process for
TRIAL = "QUERYINST_TRIAL"  # environment of a job that is a trial of a search: its number
OF_SWEEP = ("hydra.mode", "hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweep")  # and not of a job
OF_TRIAL = f"hydra.job.env_set.{TRIAL}"


def begin(task: Callable[..., Any], words: Sequence[str], flags: Sequence[str]) -> None:
    """Before Hydra sees a command line: remember the program that was called, and with which flags of Hydra."""
    os.environ[CALL] = json.dumps(
        {"id": f"{time.time():.0f}-{os.getpid()}", "program": [*program(task, words), *flags], "varied": []}
    )


def program(task: Callable[..., Any], words: Sequence[str]) -> list[str]:
    """What was called, without its `words`: `python -m MODULE`, a script, or a command that an installation made.

    Python knows how it was started. Where somebody changed the words since, the main module says what it is.
    """
    called, before = sys.orig_argv, len(sys.orig_argv) - len(words)
    if called[before:] == list(words) and before > 1:
        return [sys.executable, *called[1:before]]
    of_task = getattr(task, "__globals__", {})
    main = of_task if of_task.get("__name__") == "__main__" else vars(sys.modules["__main__"])
    spec = main.get("__spec__")
    if spec is not None:
        return [sys.executable, "-m", spec.name.removesuffix(".__main__")]
    return [sys.executable, os.path.abspath(main.get("__file__") or sys.argv[0])]


def call() -> dict[str, Any]:
    """Of the command that this process belongs to: `id`, `program`, `varied` (settings), `folder` (of the study)."""
    found: dict[str, Any] = json.loads(os.environ.get(CALL, "{}"))
    return found


def is_sweep() -> bool:
    """Whether the command that this process belongs to runs several jobs, and has come so far."""
    return "folder" in call()


def add(**more: Any) -> None:
    """Remember more of the command."""
    os.environ[CALL] = json.dumps({**call(), **more})


class Start(Callback):
    """Hydra's callback that knows, before the first job, what the command line comes to."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Name the study after its group or what varies, where it has no name, and remember what varies."""
        words = as_written(config.hydra.overrides.task)
        parsed = {override.key_or_group: override for override in OverridesParser.create().parse_overrides(words)}
        varied = [key for key, override in parsed.items() if override.is_sweep_override()]
        if OmegaConf.select(config, "study_name") is None:
            once = [group for group in ("experiment", "study") if group in parsed and group not in varied]
            named = [str(parsed[group].value()) for group in once]
            keys = [] if "study" in parsed else [key.rpartition(".")[2] for key in varied]
            name = "-".join([*named, *keys]) or "runs"
            config.hydra.overrides.task.append(f"study_name={name}")
            config.study_name = name
        add(varied=[*varied, *(config.hydra.sweeper.get("params") or {})], folder=str(config.hydra.sweep.dir))


def as_written(words: Any) -> list[str]:
    """Overrides as Hydra keeps them: looked at one by one, `a=${b}` would be resolved, or fail, in the wrong place."""
    found: Any = OmegaConf.to_container(words, resolve=False)
    return [str(word) for word in found]


def label(overrides: Sequence[str]) -> list[str]:
    """Of a job's overrides those that distinguish it from the other jobs of the sweep."""
    varied = {key.lstrip("+") for key in call()["varied"]}
    return [word for word in overrides if word.partition("=")[0].lstrip("+") in varied]


def command_of(task: Sequence[str], hydra: Sequence[str], number: int) -> list[str]:
    """The command that does one job: the program that was called, told the settings of that job.

    Args:
        task: the job's own overrides.
        hydra: those of `hydra.*` and `hydra/*`, without which the job might be composed from other files, or otherwise;
            those that say how a sweep is run are not the job's.
        number: of the job.
    """
    kept = [word for word in hydra if not word.lstrip("+~").startswith((*OF_SWEEP, OF_TRIAL))]
    return [*call()["program"], *task, *kept, "hydra.mode=RUN", f"hydra.job.num={number}"]
