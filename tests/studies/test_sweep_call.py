"""What the processes of a sweep know of the command: its study's name, what varies, and where records go."""

import json
import os
import time

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from queryinst.studies import sweep


@pytest.fixture(autouse=True)
def _no_call(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(sweep.CALL, "{}")


@pytest.mark.parametrize(
    ("words", "name", "varied"),
    [
        (["-m", "model.num_stages=1,2"], "num_stages", ["model.num_stages"]),
        (["seed=0,1", "--multirun", "optimizer.lr=0.1,0.2"], "seed-lr", ["seed", "optimizer.lr"]),
        (["-m", "model.num_stages=1", "seed=range(0,3)"], "seed", ["seed"]),
        (["-m", "+study=stages", "seed=0,1"], "stages", ["seed"]),
        (["-m", "+study=stages,grid", "seed=0,1"], "runs", ["study", "seed"]),
        (["-m", "+experiment=1x_pro100", "seed=0,1"], "1x_pro100-seed", ["seed"]),
        (["-m", "+study=stages", "+experiment=1x_pro100"], "1x_pro100-stages", []),
        (["-m", "+experiment=a,b", "seed=0"], "experiment", ["experiment"]),
        (["-m", "a=[", "seed=0,1"], "seed", ["seed"]),
        (["-m"], "runs", []),
    ],
)
def test_a_study_is_named_and_the_call_is_remembered(
    words: list[str], name: str, varied: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(time, "time", lambda: 1234.56)
    assert sweep.begin(words) == [*words, f"study_name={name}"]
    assert sweep.call() == {"id": f"1235-{os.getpid()}", "varied": varied}


def test_a_name_that_is_given_stays(monkeypatch: pytest.MonkeyPatch):
    words = ["-m", "study_name=mine", "seed=0,1"]
    assert sweep.begin(words) == words
    assert sweep.call()["varied"] == ["seed"]


def test_a_process_without_a_sweep_knows_of_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(sweep.CALL)
    assert sweep.call() == {}


@pytest.mark.parametrize(
    ("params", "more"), [(None, []), ({"model.num_stages": "1,2", "lr": "1,2"}, ["model.num_stages", "lr"])]
)
def test_what_varies_in_a_file_varies_as_well(
    params: dict[str, str] | None, more: list[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(sweep.CALL, '{"id": "then-7", "varied": ["seed"]}')
    config = OmegaConf.create({"hydra": {"sweeper": {"params": params}, "sweep": {"dir": "outputs/studies/mine"}}})
    sweep.Start().on_multirun_start(config)
    assert sweep.call() == {"id": "then-7", "varied": ["seed", *more], "folder": "outputs/studies/mine"}


def test_a_job_is_labelled_by_what_varies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(sweep.CALL, json.dumps({"varied": ["+seed", "data.side"]}))
    words = ["seed=0", "model.width=8", "+data.side=96=x", "side=3"]
    assert sweep.label(words) == ["seed=0", "+data.side=96=x"]


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
