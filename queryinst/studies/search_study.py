"""The study of a search: its settings, its storage, and what of it is kept for people and for `compare`."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from queryinst.errors import UserError, nearest
from queryinst.settings import check_ranges, setting, walk
from queryinst.studies.judge import open_storage, pruner_of

if TYPE_CHECKING:  # an extra
    from optuna import Study
    from optuna.samplers import BaseSampler

JOURNAL = "search.journal"  # Optuna's own file, in the study's folder, where no storage is given
TRIALS = "search/trials.json"  # what came of the trials, for `compare`


@dataclass
class SearchConfig:
    """`hydra.sweeper`, where a search it is (conf/hydra/sweeper/search.yaml)."""

    trials: int = setting(20, "trials of the study, of all commands and machines together", at_least=1)
    at_once: int | None = setting(
        None, "trials that are chosen and run together; empty: as many jobs as joblib runs at once", at_least=1
    )
    sampler: str = setting("tpe", "who chooses", choices=("tpe", "random"))
    startup: int = setting(10, "trials that are drawn at random, and end before any is pruned", at_least=0)
    pruner: str = setting("median", "who ends a trial early", choices=("none", "median", "halving"))
    warmup: int = setting(1, "epochs of a trial in which it is not pruned", at_least=0)
    seed: int = setting(0, "seed of the sampler", at_least=0, at_most=2**31 - 1)
    direction: str = setting("maximize", "of the metric", choices=("maximize", "minimize"))
    metric: str = setting("segm_AP", "number of an evaluation that is looked at, as in result.json")
    storage: str | None = setting(
        None, "URL of a database, or a journal file, that several machines share; empty: a file in the study's folder"
    )
    params: dict[str, str] | None = setting(None, "settings and what they may be, beside those of the command line")


def settings_of(given: Mapping[str, Any]) -> SearchConfig:
    """The settings of a search, checked. Raises UserError."""
    known = [key for key, _, _ in walk(SearchConfig())]
    for key in given:
        if key not in known:
            raise UserError(f"unknown setting 'hydra.sweeper.{key}'{nearest(key, known)}")
    try:
        config: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SearchConfig), dict(given)))
    except OmegaConfBaseException as error:
        raise UserError(f"hydra.sweeper: {str(error).splitlines()[0]}") from None
    try:
        check_ranges(config)
    except UserError as error:
        raise UserError(f"hydra.sweeper.{error}") from None
    return config


def require_optuna() -> Any:
    """Optuna, kept from telling what we tell. Raises UserError where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna, which is not installed: pip install 'queryinst[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def open_study(settings: SearchConfig, place: str, name: str, about: Mapping[str, Any]) -> "Study":
    """The study of that name, begun or gone on with.

    Args:
        settings: of the search.
        place: of the storage.
        name: of the study.
        about: what a search is: what may be chosen, what is fixed, and which number counts.

    Raises:
        UserError: the storage cannot be opened, or another search has that name.
    """
    optuna = require_optuna()
    try:
        study = optuna.create_study(
            study_name=name,
            storage=open_storage(place),
            pruner=pruner_of(settings.pruner, settings.startup, settings.warmup),
            direction=settings.direction,
            load_if_exists=True,
        )
    except UserError:
        raise
    except Exception as error:  # of any database's driver
        shown = place.rpartition("@")[2]  # without a password
        raise UserError(
            f"hydra.sweeper.storage={shown} cannot be opened: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from None
    about = json.loads(json.dumps({**about, "metric": settings.metric, "direction": settings.direction}))
    before = study.user_attrs.get("about")
    if before is None:
        study.set_user_attr("about", about)
    elif before != about:
        differ = [key for key in about if about[key] != before.get(key)]
        raise UserError(
            f"the study '{name}' was begun by another search: it had {_shown(before, differ)}, and now it is "
            f"{_shown(about, differ)}; give a study_name of its own, or what it had"
        )
    return study


def _shown(about: Mapping[str, Any], keys: list[str]) -> str:
    values = (about.get(key) for key in keys)
    return " ".join(
        " ".join(f"{name}={text}" for name, text in value.items()) if isinstance(value, dict) else str(value)
        for value in values
    )


def sampler_of(settings: SearchConfig, number: int) -> "BaseSampler":
    """Of one trial: its own draws, whoever asks and however often the search was interrupted before."""
    from optuna.samplers import RandomSampler, TPESampler

    seed = (settings.seed * 1_000_003 + number) % 2**32
    if settings.sampler == "random":
        return RandomSampler(seed=seed)
    return TPESampler(seed=seed, n_startup_trials=settings.startup, multivariate=False, constant_liar=True)


def keep(study: "Study", settings: SearchConfig, folder: Path) -> None:
    """Write what came of all trials, so that it can be read without Optuna and without its storage."""
    trials = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state.name == "COMPLETE" else None,
            "params": trial.params,
            "run": trial.user_attrs.get("run", ""),
            "reports": trial.intermediate_values,
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    content = {
        "metric": settings.metric,
        "direction": settings.direction,
        "importance": importance(study),
        "trials": trials,
    }
    path = folder / TRIALS
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    partial.replace(path)


def importance(study: "Study") -> dict[str, float]:
    """How much of what makes the best trials good each setting accounts for (PED-ANOVA); empty with too few trials."""
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.trial import TrialState

    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(done) < 4:
        return {}
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, 2 / len(done)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # too few trials to tell, and then it says 0
        found = evaluator.evaluate(study)
    total = sum(found.values())
    return {key: value / total for key, value in found.items()} if total > 0 else {}
