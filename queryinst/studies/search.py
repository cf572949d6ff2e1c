"""A search: Optuna chooses the settings of each trial by what the trials before gave, and a trial is a plain run.

It is a sweeper of Hydra's: ask for as many trials as run at once, have the launcher do them as the jobs of any sweep,
tell what came of them. Other commands and other machines may do trials of the same study meanwhile. What a killed
command has left is taken up by the next: the same settings are the same run, which goes on where it was.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from queryinst.errors import UserError
from queryinst.settings import walk
from queryinst.studies import devices
from queryinst.studies.call import TRIAL, add, call
from queryinst.studies.grid import config_of
from queryinst.studies.identity import identity, run_folder
from queryinst.studies.job import RESULT
from queryinst.studies.search_study import JOURNAL, keep, open_study, require_optuna, sampler_of, settings_of
from queryinst.studies.space import Space
from queryinst.studies.sweep import Record, records

if TYPE_CHECKING:  # an extra
    from optuna.trial import FrozenTrial

LOCKS = "search"  # folder of a study in which each command that searches holds a file


@dataclass(frozen=True)
class Asked:
    """A trial that is to be run."""

    number: int
    words: list[str]
    run: str  # name of its run folder; empty where its settings are wrong


class Search(Sweeper):
    """Hydra's sweeper of a search; see `SearchConfig` for what it takes."""

    config: Any  # what Hydra composed, of all trials
    hydra_context: Any
    launcher: Any

    def __init__(self, **given: Any) -> None:
        self.given = given

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.hydra_context, self.config, self.schema = hydra_context, config, task_function.schema
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Do what is left of the study's trials."""
        require_optuna()
        self.settings = settings_of(self.given)
        if self.config.get("dry_run"):
            raise UserError("dry_run=true: which runs a search makes is not known before it; leave that out")
        words = [*(f"{key}={value}" for key, value in (self.settings.params or {}).items()), *arguments]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        self.space = Space.of(parser.parse_overrides(words))
        self.folder = Path(call()["folder"])
        place, name = self.settings.storage or (self.folder / JOURNAL).as_posix(), self.folder.name
        self.study = open_study(self.settings, place, name, self._about())
        pruner = {"name": self.settings.pruner, "startup": self.settings.startup, "warmup": self.settings.warmup}
        add(search={"storage": place, "study": name, "metric": self.settings.metric, "pruner": pruner})
        with _searching(self.folder):
            self._go_on(self._left_behind(), [])
            while (batch := self._ask()) != ([], []):
                self._go_on(*batch)
        keep(self.study, self.settings, self.folder)
        self._say()

    def _about(self) -> dict[str, Any]:
        """What makes this search another one: what may be chosen, and what is fixed but for what defines no result."""
        free = {key for key, entry, _ in walk(self.schema()) if not entry.metadata.get("identity", True)} | {"logger"}
        fixed = {key: value for key, value in self.space.fixed().items() if key.lstrip("+~") not in free}
        return {"space": {key: self.space.words[key] for key in self.space.varied}, "fixed": fixed}

    def _ask(self) -> tuple[list[Asked], list[tuple[int, int]]]:
        """The next trials, and those that are the run of another which is not at its end; fewer near the study's end.

        Of those whose run is known already, tell at once.
        """
        together = self.settings.at_once or devices.at_once(self.config.hydra.launcher)
        asked: list[Asked] = []
        twins: list[tuple[int, int]] = []
        while not twins and len(asked) < together and len(self.study.get_trials(deepcopy=False)) < self.settings.trials:
            trial = self.study.ask()
            trial.set_user_attr("call", call()["id"])
            self.study.sampler = sampler_of(self.settings, trial.number)
            self.space.suggest(trial)
            made = self._made(trial.number, trial.params)
            twin = self._twin(made)
            trial.set_user_attr("run", made.run)
            if twin is None:
                asked.append(made)
            elif twin.state.is_finished():
                self._tell_as(trial.number, twin.number)
            else:
                twins.append((trial.number, twin.number))
        return asked, twins

    def _made(self, number: int, params: dict[str, Any]) -> Asked:
        words = self.space.overrides(params)
        config = config_of(self, self.schema, words)
        try:
            return Asked(number, words, run_folder(config, identity(config)).name if config else "")
        except UserError:  # of which the job will say so
            return Asked(number, words, "")

    def _twin(self, made: Asked) -> "FrozenTrial | None":
        """A trial before it that is the same run."""
        for trial in self.study.get_trials(deepcopy=False) if made.run else []:
            if trial.number < made.number and trial.user_attrs.get("run") == made.run:
                return trial
        return None

    def _tell_as(self, number: int, other: int) -> None:
        """The end of a trial that is the run of another: as that ended; where it has not, as nothing."""
        from optuna.trial import TrialState

        twin = next(trial for trial in self.study.get_trials(deepcopy=False) if trial.number == other)
        ended = twin.state in (TrialState.COMPLETE, TrialState.PRUNED)
        value = twin.value if twin.state == TrialState.COMPLETE else None
        self.study.tell(number, value, state=twin.state if ended else TrialState.FAIL)
        print(f"[trial {number}] is the run of trial {twin.number}", flush=True)

    def _left_behind(self) -> list[Asked]:
        """Trials that a command has begun which is gone: those of commands that still run hold their file."""
        from optuna.trial import TrialState

        found = []
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if not _gone(self.folder, trial.user_attrs.get("call", "")):
                continue
            if self.space.varied.keys() - trial.params.keys():  # it was not even chosen
                self.study.tell(trial.number, state=TrialState.FAIL)
                continue
            self.study._storage.set_trial_user_attr(trial._trial_id, "call", call()["id"])
            found.append(self._made(trial.number, trial.params))
        return found

    def _go_on(self, asked: Sequence[Asked], twins: Sequence[tuple[int, int]]) -> None:
        """Run trials and tell what came of them. One that was stopped stays open, for the same command to go on."""
        jobs = [[*one.words, f"+hydra.job.env_set.{TRIAL}={one.number}"] for one in asked]
        for done in self.launcher.launch(jobs, initial_job_idx=asked[0].number) if jobs else []:
            _ = done.return_value  # raises what went wrong with us
        found = {record.trial: record for record in records()}
        for one in asked:
            self._tell(one, found.get(one.number))
        for number, twin in twins:
            self._tell_as(number, twin)
        keep(self.study, self.settings, self.folder)

    def _tell(self, one: Asked, record: Record | None) -> None:
        from optuna.trial import TrialState

        if record is None or record.status in ("stopped", "running"):
            return
        if record.status == "pruned":
            self.study.tell(one.number, state=TrialState.PRUNED)
            return
        value = _value(Path(record.folder) / RESULT, self.settings.metric) if record.status == "finished" else None
        self.study.tell(one.number, value, state=None if value is not None else TrialState.FAIL)

    def _say(self) -> None:
        """The best trial so far, and how to have that run again."""
        from optuna.trial import TrialState

        trials = self.study.get_trials(deepcopy=False)
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
        ends = ", ".join(f"{count} {state.name.lower()}" for state, count in counts.items() if count)
        print(f"\n{len(trials)} of {self.settings.trials} trials: {ends}")
        if done:
            best = self.study.best_trial
            chosen = " ".join(f"{key}={value}" for key, value in best.params.items())
            print(f"best: trial {best.number}, {self.settings.metric} {best.value:.3f}: {chosen}", flush=True)


@contextlib.contextmanager
def _searching(folder: Path) -> Iterator[None]:
    """Hold a file, by which others see that this command runs; left behind, that it has run."""
    path = folder / LOCKS / f"{call()['id']}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path):
        yield


def _gone(folder: Path, command: str) -> bool:
    """Whether a command that searched is no more; False where that cannot be seen from here."""
    path = folder / LOCKS / f"{command}.lock"
    if not command or not path.exists():
        return False
    with contextlib.suppress(filelock.Timeout), filelock.FileLock(path, blocking=False):
        return True
    return False


def _value(result: Path, metric: str) -> float | None:
    """What counts of a finished run; None where it has no such number."""
    try:
        value = json.loads(result.read_text())["metrics"].get(metric)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
