"""A search: what it may choose, ask and tell, going on, pruning, and the same run only once.

In place of a training, a launcher that says what each trial gave.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock
import pytest
from conftest import Run
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.studies import call, search, search_study
from queryinst.studies.judge import JUDGE, Judge, judge, open_storage
from queryinst.studies.search import Search
from queryinst.studies.search_study import SearchConfig, settings_of
from queryinst.studies.sources import CONF
from queryinst.studies.space import Space
from queryinst.studies.sweep import Record

optuna = pytest.importorskip("optuna")
STUDY = Path("outputs/studies/mine")
Gives = Callable[[dict[str, str]], Any]


def space(*words: str) -> Space:
    return Space.of(OverridesParser.create().parse_overrides(list(words)))


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("interval(1e-5,1e-3)", optuna.distributions.FloatDistribution(1e-5, 1e-3)),
        ("interval(1,5)", optuna.distributions.FloatDistribution(1.0, 5.0)),
        ("int(interval(1,5))", optuna.distributions.IntDistribution(1, 5)),
        ("tag(log,interval(1e-5,1e-3))", optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True)),
        ("tag(log,int(interval(1,500)))", optuna.distributions.IntDistribution(1, 500, log=True)),
        ("range(1,8,3)", optuna.distributions.IntDistribution(1, 7, step=3)),
        ("range(8,1,-3)", optuna.distributions.IntDistribution(2, 8, step=3)),
        ("range(0.1,0.5,0.1)", optuna.distributions.FloatDistribution(0.1, 0.4, step=0.1)),
        ("range(1,8)", optuna.distributions.IntDistribution(1, 7)),
        ("choice(50,100,50)", optuna.distributions.CategoricalDistribution(["50", "100"])),
        ("50,100", optuna.distributions.CategoricalDistribution(["50", "100"])),
        (
            "choice(true,[1,2],'a b')",
            optuna.distributions.CategoricalDistribution(["True", "[1,2]", r"a\ b"]),
        ),
    ],
)
def test_what_a_sweep_means_to_a_search(word: str, kind: Any):
    assert space(f"+a.b={word}").varied == {"+a.b": kind}


def test_a_glob_is_a_choice_among_the_options_of_a_group():
    loader: Any = type("Loader", (), {"get_group_options": lambda *_, **__: ["shapes", "shapes_tiny", "coco"]})()
    (override,) = OverridesParser.create(config_loader=loader).parse_overrides(["data=glob(shapes*)"])
    kind = optuna.distributions.CategoricalDistribution(["shapes", "shapes_tiny"])
    assert Space.of([override]).varied == {"data": kind}


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("a=interval(2,1)", r"a=interval\(2,1\) cannot be searched: .*low <= high"),
        ("a=tag(log,interval(0,1))", r"cannot be searched: .*low > 0"),
        ("a=range(3,3)", r"cannot be searched: there is no value in it"),
        ("a=3", "a search needs something to choose"),
    ],
)
def test_what_cannot_be_searched(word: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        space(word)


def test_a_trial_is_told_all_words_of_the_command_with_what_was_chosen():
    words = space("a=1", "~b", "c=interval(0,1)", "d=x,y", "a='2 3'", "d=[1,2]", "+e=choice(1,2)")
    assert space("a=range(0.1,0.5,0.1)").overrides({"a": 0.30000000000000004}) == ["a=0.3"]
    assert words.overrides({"c": 1e-05, "+e": "2"}) == ["a='2 3'", "~b", "c=1e-05", "d=[1,2]", "+e=2"]
    assert words.fixed() == {"a": "'2 3'", "~b": "", "d": "[1,2]"}


def test_the_settings_are_those_of_the_file_and_checked():
    file = OmegaConf.to_container(OmegaConf.load(CONF / "hydra" / "sweeper" / "search.yaml"))
    assert isinstance(file, dict)
    assert file.pop("_target_") == "hydra_plugins.queryinst.Search"
    assert file == asdict(SearchConfig())
    for given, sentence in (
        ({"trialss": 3}, "unknown setting 'hydra.sweeper.trialss'; did you mean 'trials'"),
        ({"trials": 0}, "hydra.sweeper.trials must be at least 1; got 0"),
        ({"sampler": "bayes"}, "hydra.sweeper.sampler takes one of tpe, random; got 'bayes'"),
        ({"trials": "many"}, "hydra.sweeper: Value 'many'"),
    ):
        with pytest.raises(UserError, match=sentence):
            settings_of(given)


class Launcher:
    """Does the jobs of a sweep by writing down what became of them."""

    def __init__(self, gives: Gives) -> None:
        self.gives = gives
        self.batches: list[list[int]] = []

    def launch(self, jobs: list[list[str]], initial_job_idx: int) -> list[Any]:
        batch = []
        for words in jobs:
            values = dict(word.partition("=")[::2] for word in words)
            number = int(values[f"+hydra.job.env_set.{call.TRIAL}"])
            gives = self.gives(values)
            status = gives if isinstance(gives, str) else "finished"
            folder = Path("outputs") / f"run-{number}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "result.json").write_text(json.dumps({"metrics": {"segm_AP": gives}}))
            record = Record(words, folder.as_posix(), status, call.call()["id"], number, trial=number)
            (STUDY / f"run-{number}.json").write_text(json.dumps(asdict(record)))
            batch.append(number)
        assert batch[0] == initial_job_idx
        self.batches.append(batch)
        return []


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    begin(monkeypatch, "first")
    monkeypatch.setattr(search, "config_of", config_of)


def begin(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Another call of the command."""
    monkeypatch.setenv(call.CALL, json.dumps({"id": name, "varied": ["seed"], "folder": STUDY.as_posix()}))


def config_of(sweeper: Any, schema: Any, words: list[str]) -> TrainConfig | None:
    """Of a trial: its settings are wrong where the seed is 7."""
    values = dict(word.partition("=")[::2] for word in words)
    config = TrainConfig(seed=int(values.get("seed", 0)))
    config.optimizer.lr = float(values.get("optimizer.lr", 1))
    return None if config.seed == 7 else config


def searched(gives: Gives, *words: str, **settings: Any) -> tuple[Launcher, list[Any]]:
    """Search, and give the launcher with all trials of the study."""
    sweeper = Search(**settings)
    sweeper.config = OmegaConf.create({"hydra": {"launcher": {}}, "dry_run": False})
    sweeper.hydra_context = type("Context", (), {"config_loader": None})
    sweeper.schema = TrainConfig
    sweeper.launcher = launcher = Launcher(gives)
    sweeper.sweep(list(words))
    return launcher, sweeper.study.get_trials()


def test_a_search_finds_what_is_best(capsys: pytest.CaptureFixture[str]):
    """TPE comes closer to the best than the random trials that it begins with."""
    launcher, trials = searched(
        lambda values: 1 - abs(float(values["optimizer.lr"]) - 0.3), "optimizer.lr=interval(0,1)", trials=30, at_once=2
    )
    assert launcher.batches == [[number, number + 1] for number in range(0, 30, 2)]
    assert max(trial.value for trial in trials) > max(trial.value for trial in trials[:10]) > 0
    assert sum(trial.value > 0.9 for trial in trials[10:]) > 10
    said = capsys.readouterr().out
    assert "30 of 30 trials: 30 complete" in said
    assert f"best: trial {max(trials, key=lambda trial: trial.value).number}, segm_AP 0.99" in said
    kept = json.loads((STUDY / "search" / "trials.json").read_text())
    assert [trial["value"] for trial in kept["trials"]] == [trial.value for trial in trials]
    assert kept["importance"] == {"optimizer.lr": 1.0}


def test_the_same_command_goes_on_and_repeats_nothing(monkeypatch: pytest.MonkeyPatch):
    """Whether in one go or in three: the same settings, since each trial has draws of its own."""
    words, settings = ["optimizer.lr=interval(0,1)"], {"startup": 2}
    whole = [t.params for t in searched(lambda v: float(v["optimizer.lr"]), *words, trials=6, **settings)[1]]
    for path in (STUDY / "search.journal", *STUDY.glob("*.json")):
        path.unlink()
    for trials, batches in ((2, [[0], [1]]), (2, []), (6, [[2], [3], [4], [5]])):
        begin(monkeypatch, f"call-{trials}-{len(batches)}")
        launcher, found = searched(lambda v: float(v["optimizer.lr"]), *words, trials=trials, **settings)
        assert launcher.batches == batches
    assert [trial.params for trial in found] == whole
    assert len({trial.params["optimizer.lr"] for trial in found}) == 6


def test_the_same_settings_are_one_run():
    """A space of two runs and seven trials: each run once, also where both are asked for together."""
    launcher, trials = searched(
        lambda values: int(values["seed"]) / 10, "seed=3,5", trials=7, at_once=3, sampler="random"
    )
    ran = [number for batch in launcher.batches for number in batch]
    assert len(ran) == 2
    assert len(trials) == 7
    assert [trial.value for trial in trials] == [int(trial.params["seed"]) / 10 for trial in trials]


def test_what_became_of_a_trial_is_told(capsys: pytest.CaptureFixture[str]):
    gives = {"1": 0.5, "2": "failed", "3": "pruned", "4": "stopped", "5": None, "7": 0.9}
    _, trials = searched(lambda values: gives[values["seed"]], "seed=choice(1,2,3,4,5)", trials=40, sampler="random")
    states = {trial.params["seed"]: trial.state.name for trial in reversed(trials)}
    assert states == {"1": "COMPLETE", "2": "FAIL", "3": "PRUNED", "4": "RUNNING", "5": "FAIL"}
    assert "1 running" in capsys.readouterr().out


def test_a_trial_whose_settings_are_wrong_fails_and_the_others_go_on():
    _, trials = searched(
        lambda v: "failed" if v["seed"] == "7" else 0.5, "seed=range(6,9)", trials=12, sampler="random"
    )
    assert {trial.params["seed"]: trial.state.name for trial in trials} == {6: "COMPLETE", 7: "FAIL", 8: "COMPLETE"}


def test_what_a_command_left_behind_is_taken_up_where_it_is_gone(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(KeyboardInterrupt):
        searched(_interrupt, "optimizer.lr=interval(0,1)", trials=3)
    begin(monkeypatch, "second")
    with filelock.FileLock(STUDY / "search" / "first.lock"):  # the first runs on, as it were
        launcher, trials = searched(lambda values: 0.5, "optimizer.lr=interval(0,1)", trials=3)
    assert launcher.batches == [[1], [2]]
    assert [trial.state.name for trial in trials] == ["RUNNING", "COMPLETE", "COMPLETE"]
    begin(monkeypatch, "third")
    launcher, after = searched(lambda values: 0.7, "optimizer.lr=interval(0,1)", trials=3)
    assert launcher.batches == [[0]]
    assert [trial.value for trial in after] == [0.7, 0.5, 0.5]
    assert after[0].params == trials[0].params


def _interrupt(values: dict[str, str]) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "settings", "sentence"),
    [
        (["seed=1,3", "model=tiny"], {}, "it had seed=1,2, and now it is seed=1,3; give a study_name"),
        (["seed=1,2", "model=queryinst"], {}, "it had model=tiny, and now it is model=queryinst"),
        (["seed=1,2", "model=tiny"], {"metric": "bbox_AP"}, "it had segm_AP, and now it is bbox_AP"),
        (["seed=1,2", "model=tiny", "data.num_workers=3", "logger=csv"], {"trials": 2}, ""),
    ],
)
def test_another_search_needs_another_name(
    words: list[str], settings: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
):
    searched(lambda values: 0.5, "seed=1,2", "model=tiny", trials=1)
    begin(monkeypatch, "second")
    if not sentence:
        assert len(searched(lambda values: 0.5, *words, **settings)[1]) == 2
        return
    with pytest.raises(UserError, match=sentence):
        searched(lambda values: 0.5, *words, **settings)


@pytest.mark.parametrize("storage", ["sqlite:///shared.db", "shared.journal"])
def test_machines_share_a_study_by_its_storage(storage: str, monkeypatch: pytest.MonkeyPatch):
    first, _ = searched(lambda values: 0.5, "optimizer.lr=interval(0,1)", trials=2, storage=storage)
    monkeypatch.setenv(call.CALL, json.dumps({"id": "there", "varied": [], "folder": STUDY.as_posix()}))
    second, trials = searched(lambda values: 0.5, "optimizer.lr=interval(0,1)", trials=4, storage=storage)
    assert (first.batches, second.batches) == ([[0], [1]], [[2], [3]])
    assert len({trial.params["optimizer.lr"] for trial in trials}) == 4


def test_a_storage_that_cannot_be_opened_is_named_without_its_password():
    with pytest.raises(UserError, match=r"hydra.sweeper.storage=host/db cannot be opened: ") as raised:
        searched(lambda values: 0.5, "seed=1,2", storage="nosuch://me:secret@host/db")
    assert "secret" not in str(raised.value)


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"needs Optuna, which is not installed: pip install 'queryinst\[search\]'"):
        searched(lambda values: 0.5, "seed=1,2")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["+study=search", "hydra.sweeper.trialss=3"], "'hydra.sweeper.trialss'; did you mean 'hydra.sweeper.trials'"),
        (["hydra.sweeper.trials=3"], "hydra.sweeper.trials is a setting of another sweeper .* hydra/sweeper=search"),
        (["+study=search", "hydra.sweeper.trials=0"], "hydra.sweeper.trials must be at least 1"),
        (["+study=search"], "a search needs something to choose"),
    ],
)
def test_what_a_search_is_asked_wrongly_is_one_sentence(run: Run, workplace: Path, words: list[str], sentence: str):
    code, said = run("train", "-m", "data=shapes_tiny", *words)
    assert (code, said.count("\n")) == (2, 1)
    assert re.search(sentence, said)


def test_a_search_cannot_be_planned(run: Run, workplace: Path):
    code, said = run("train", "-m", "+study=search", "data=shapes_tiny", "seed=0,1", "dry_run=true")
    assert (code, said) == (
        2,
        "error: dry_run=true: which runs a search makes is not known before it; leave that out\n",
    )


def test_a_judge_prunes_what_is_worse_than_the_median(monkeypatch: pytest.MonkeyPatch):
    """Not in the first epochs, nor before some trials have ended; a report is made once."""
    assert judge() is None
    study = optuna.create_study(study_name="s", storage=open_storage("j.journal"), direction="maximize")
    pruner = {"name": "median", "startup": 2, "warmup": 1}
    place: dict[str, Any] = {"storage": "j.journal", "study": "s", "metric": "segm_AP", "pruner": pruner}
    pruned = []
    for number, values in enumerate(([0.1, 0.2, 0.3], [0.1, 0.3, 0.4], [0.0, 0.1], [0.0, 0.31, 0.1])):
        study.ask()
        monkeypatch.setenv(JUDGE, json.dumps({**place, "number": number}))
        judged = judge()
        assert judged
        pruned.append([judged(epoch, value) for epoch, value in enumerate(values, 1)])
        judged(1, 0.9)
        study.tell(number, values[-1])
    assert pruned == [[False] * 3, [False] * 3, [False, True], [False, False, True]]
    assert [next(iter(trial.intermediate_values.values())) for trial in study.get_trials()] == [0.1, 0.1, 0.0, 0.0]


def test_a_report_that_cannot_be_made_ends_no_training(capsys: pytest.CaptureFixture[str]):
    judged = Judge("sqlite:////nowhere/x.db", "s", 0, "segm_AP", {"name": "none", "startup": 0, "warmup": 0})
    assert judged(3, 0.5) is False
    assert "epoch 3 is not reported to the search: OperationalError" in capsys.readouterr().out


def test_a_database_that_is_gone_while_a_trial_is_looked_for_ends_no_training(capsys: pytest.CaptureFixture[str]):
    optuna.create_study(study_name="s", storage=open_storage("j.journal"))
    judged = Judge("j.journal", "s", 0, "segm_AP", {"name": "none", "startup": 0, "warmup": 0})
    assert judged(1, 0.5) is False  # it has no such trial
    assert search_study.importance(optuna.load_study(study_name="s", storage=open_storage("j.journal"))) == {}
