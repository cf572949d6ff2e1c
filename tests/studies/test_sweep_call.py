"""What the processes of a sweep know of the command: which program, its study's name, what varies, where records go."""

import json
import os
import runpy
import sys
import time
from pathlib import Path

import pytest
from conftest import shapes_config
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from queryinst.errors import UserError
from queryinst.studies import call, sweep
from queryinst.studies.identity import identity, run_folder


@pytest.fixture(autouse=True)
def _no_call(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(call.CALL, '{"id": "then-7"}')


def composed(words: list[str], params: dict[str, str] | None = None, name: str | None = None) -> DictConfig:
    """Of a composed configuration what `Start` looks at."""
    hydra = {
        "sweeper": {"params": params},
        "sweep": {"dir": "outputs/studies/${study_name}"},
        "overrides": {"task": words},
    }
    return OmegaConf.create({"study_name": name, "hydra": hydra})


@pytest.mark.parametrize(
    ("words", "name", "varied"),
    [
        (["model.num_stages=1,2"], "num_stages", ["model.num_stages"]),
        (["seed=0,1", "optimizer.lr=0.1,0.2"], "seed-lr", ["seed", "optimizer.lr"]),
        (["model.num_stages=1", "seed=range(0,3)"], "seed", ["seed"]),
        (["+study=stages", "seed=0,1"], "stages", ["seed"]),
        (["+study=stages,grid", "seed=0,1"], "runs", ["study", "seed"]),
        (["+experiment=1x_pro100", "seed=0,1"], "1x_pro100-seed", ["seed"]),
        (["+study=stages", "+experiment=1x_pro100"], "1x_pro100-stages", []),
        (["+experiment=a,b", "seed=0"], "experiment", ["experiment"]),
        (["+study=search", "optimizer.lr=interval(1,2)"], "search", ["optimizer.lr"]),
        ([], "runs", []),
    ],
)
def test_a_study_is_named_and_the_call_is_remembered(words: list[str], name: str, varied: list[str]):
    config = composed(list(words))
    call.Start().on_multirun_start(config)
    assert config.hydra.overrides.task == [*words, f"study_name={name}"]
    assert call.call() == {"id": "then-7", "varied": varied, "folder": f"outputs/studies/{name}"}


def test_a_name_that_is_given_stays():
    """On the command line, or by a file that it names."""
    for words in (["study_name=mine", "seed=0,1"], ["+study=stages", "seed=0,1"]):
        config = composed(words, name="mine")
        call.Start().on_multirun_start(config)
        assert config.hydra.overrides.task == words
        assert call.call()["folder"] == "outputs/studies/mine"


def test_a_process_without_a_sweep_knows_of_none(monkeypatch: pytest.MonkeyPatch):
    assert not call.is_sweep()
    monkeypatch.delenv(call.CALL)
    assert call.call() == {}
    assert not call.is_sweep()


@pytest.mark.parametrize(
    ("params", "more"), [(None, []), ({"model.num_stages": "1,2", "lr": "1,2"}, ["model.num_stages", "lr"])]
)
def test_what_varies_in_a_file_varies_as_well(params: dict[str, str] | None, more: list[str]):
    call.Start().on_multirun_start(composed(["seed=0,1"], params))
    assert call.call()["varied"] == ["seed", *more]
    assert call.is_sweep()


def test_a_job_is_labelled_by_what_varies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(call.CALL, json.dumps({"varied": ["+seed", "data.side"]}))
    words = ["seed=0", "model.width=8", "+data.side=96=x", "side=3"]
    assert call.label(words) == ["seed=0", "+data.side=96=x"]


def test_a_call_is_remembered_with_its_program_and_flags(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(time, "time", lambda: 1234.56)
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "pkg.train", "-m", "--config-dir=x", "seed=0,1"])
    call.begin(print, ["-m", "--config-dir=x", "seed=0,1"], ["--config-dir=x"])
    program = [sys.executable, "-m", "pkg.train", "--config-dir=x"]
    assert call.call() == {"id": f"1235-{os.getpid()}", "program": program, "varied": []}


@pytest.mark.parametrize(
    "started",
    [
        ["-m", "queryinst.train"],
        ["my_train.py"],
        ["-X", "dev", "-W", "error", "my_train.py"],
        ["/venv/bin/my-train"],
        ["-c", "import queryinst.train as t; t.main()"],
        ["-m", "coverage", "run", "-m", "queryinst.train"],
    ],
)
def test_the_program_is_what_was_called(started: list[str], monkeypatch: pytest.MonkeyPatch):
    for words in (["-m", "seed=0,1"], []):
        monkeypatch.setattr(sys, "orig_argv", ["python3", *started, *words])
        assert call.program(print, words) == [sys.executable, *started]


def test_where_the_words_were_changed_the_main_module_says_what_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "orig_argv", ["python", "x.py", "--theirs"])
    package = tmp_path / "own_package"
    package.mkdir()
    for name in ("__init__", "__main__", "training"):
        (package / f"{name}.py").write_text("def task(config): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["-m", "seed=0,1"]
    for module in ("own_package.training", "own_package"):
        task = runpy.run_module(module, run_name="__main__")["task"]
        assert call.program(task, words) == [sys.executable, "-m", module]
    monkeypatch.chdir(tmp_path)
    task = runpy.run_path("own_package/training.py", run_name="__main__")["task"]
    assert call.program(task, words) == [sys.executable, str(package / "training.py")]


@pytest.mark.parametrize(
    ("hydra", "kept"),
    [
        (["hydra.mode=MULTIRUN", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra/sweeper=basic"], []),
        (["hydra.sweeper.params.seed='0,1'", "+hydra.sweeper.params={}", "hydra.sweep.dir=x", "~hydra.sweep"], []),
        (["hydra.searchpath=[file://x]", "hydra.job.chdir=true", "hydra/job_logging=none"], [0, 1, 2]),
        (["+hydra.job.env_set.A=1", "hydra.run.dir=x", "hydra.verbose=true", "hydra.output_subdir=y"], [0, 1, 2, 3]),
    ],
)
def test_a_job_is_told_what_matters_to_it(hydra: list[str], kept: list[int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(call.CALL, json.dumps({"program": ["python", "my_train.py", "--config-dir=x"]}))
    command = call.command_of(["seed=1", "+a=2"], hydra, 3)
    told = [hydra[index] for index in kept]
    end = ["hydra.mode=RUN", "hydra.job.num=3"]
    assert command == ["python", "my_train.py", "--config-dir=x", "seed=1", "+a=2", *told, *end]


@pytest.mark.parametrize(("mode", "several"), [(RunMode.MULTIRUN, True), (RunMode.RUN, False), (None, False)])
def test_hydra_says_whether_there_are_several_jobs(
    mode: RunMode | None, several: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": {"mode": mode}}))
    assert sweep.in_sweep() is several


def test_only_a_job_of_slurm_is_given_another_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert sweep.alone() == {}
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert sweep.alone() == {"SLURM_JOB_NAME": "bash"}


def test_a_job_that_became_another_run_is_not_trained(monkeypatch: pytest.MonkeyPatch):
    config = shapes_config()
    sweep.check_asked(config)
    monkeypatch.setenv(call.ASKED, run_folder(config, identity(config)).as_posix())
    sweep.check_asked(config)
    config.seed = 3
    with pytest.raises(UserError, match=r"would be the run outputs/run-\w{8}, but its sweep asked for outputs/run-"):
        sweep.check_asked(config)
