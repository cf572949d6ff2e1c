"""In the process of a trial: evaluations are reported to the search, which may say that it is not worth going on."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queryinst.errors import UserError

if TYPE_CHECKING:  # an extra
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage

JUDGE = "QUERYINST_JUDGE"  # environment of a trial's process


class Judge:
    """Called with the number of an epoch and what its evaluation gave: whether the run shall end here.

    A report that the storage does not take, since it is busy or gone, never ends a training.
    """

    def __init__(self, storage: str, study: str, number: int, metric: str, pruner: dict[str, Any]) -> None:
        self.metric, self.number = metric, number
        self._place = storage, study, pruner

    def __call__(self, epoch: int, value: float) -> bool:
        import optuna

        storage, name, pruner = self._place
        try:
            study = optuna.load_study(study_name=name, storage=open_storage(storage), pruner=pruner_of(**pruner))
            frozen = next(trial for trial in study.get_trials(deepcopy=False) if trial.number == self.number)
            trial = optuna.trial.Trial(study, frozen._trial_id)
            if epoch not in frozen.intermediate_values:
                trial.report(value, epoch)
            return bool(trial.should_prune())
        except Exception as error:  # of any database's driver
            reason = (str(error).splitlines() or [""])[0]
            print(f"epoch {epoch} is not reported to the search: {type(error).__name__} {reason}", flush=True)
            return False


def judge() -> Judge | None:
    """The judge of this process; None where the run is no trial of a search."""
    found = os.environ.get(JUDGE)
    return Judge(**json.loads(found)) if found else None


def open_storage(place: str) -> "BaseStorage | str":
    """A database by its URL, otherwise a journal file. Raises UserError."""
    if "://" in place:
        return place
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(place))
    except OSError as error:
        raise UserError(f"hydra.sweeper.storage={place} cannot be opened: {error.strerror}") from None


def pruner_of(name: str, startup: int, warmup: int) -> "BasePruner":
    """Optuna's pruner: none before `startup` trials have ended, nor in a trial's first `warmup` epochs."""
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup + 1)
    if name == "halving":
        return pruners.SuccessiveHalvingPruner(min_resource=warmup + 1)
    return pruners.NopPruner()
