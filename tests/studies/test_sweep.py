"""Several runs by one command: named, planned, run apart from each other, skipped, resumed, and told in a table."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from conftest import BRIEF, ROOT, SHORT, SMALLER, TINY, Run
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from queryinst.config import TrainConfig
from queryinst.studies import plan, sweep
from queryinst.studies.call import CALL
from queryinst.studies.command import CONF, compose
from queryinst.studies.identity import identity, run_folder

pytestmark = pytest.mark.usefixtures("forked")
STUDIES = sorted(path.stem for path in (CONF / "study").glob("*.yaml") if path.stem != "search")


@pytest.fixture(autouse=True)
def _no_call(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(CALL, "{}")


def records(workplace: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in workplace.glob("outputs/studies/*/*.json")]
    return sorted(found, key=lambda record: record["number"])


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_composes_and_runs_nothing_when_dry(
    run: Run, workplace: Path, study: str, monkeypatch: pytest.MonkeyPatch
):
    if study != "stages":  # counting a network takes a second
        monkeypatch.setattr(plan, "_counted", lambda model, backbone, side: (1, 1))
    text = (CONF / "study" / f"{study}.yaml").read_text()
    assert re.search(rf"python -m queryinst.train -m (\+experiment=\w+ )?\+study={study}\b", text)
    assert f"python -m queryinst.compare {study}" in text
    settings = ["model.num_proposals=4,6"] if study in ("proposals", "grid") else []
    settings += ["schedule=shapes_short,shapes"] if study == "schedule" else []
    settings += ["model=tiny_video"] if study == "association" else []
    data = "shapes_video_tiny" if study == "association" else "shapes_tiny"
    code, said = run("train", "-m", f"+study={study}", *settings, f"data={data}", "dry_run=true")
    assert code == 0, said
    jobs = {"stages": 10, "proposals": 4, "schedule": 4, "grid": 6, "association": 6, "signals": 42}[study]
    assert f"{jobs} of {jobs} jobs planned" in said
    assert "no finished run on the same data" in said
    assert len(set(re.findall(rf"{data}-[0-9a-f]{{8}}", said))) == jobs
    assert not list(workplace.glob(f"outputs/{data}-*"))


def test_lists_of_options_are_told_as_they_were_given(run: Run):
    """In brackets, which the terminal's markup would take for its own."""
    words = ["signals=none,[denoising,box_target]", "model.num_stages=2,3"]
    code, said = run("train", "-m", *words, "data=shapes_tiny", "dry_run=true")
    assert code == 0, said
    assert said.count("signals=[denoising,box_target] model.num_stages=") == 2


def test_a_sweep_ends_what_can_end_and_says_what_failed(run: Run, workplace: Path):
    """One job ends, two fail in their process or before it; a second call skips what is finished."""
    settings = [*SHORT, "model.num_heads=4,5", "data.min_image_side=32,5000"]
    code, said = run("train", "-m", *settings)
    assert code == 1, said
    assert [record["status"] for record in records(workplace)] == ["finished", "failed", "failed", "failed"]
    first, second, third, _ = records(workplace)
    assert first["overrides"] == ["model.num_heads=4", "data.min_image_side=32"]
    assert (workplace / first["folder"] / "result.json").exists()
    assert "has no image to train on" in second["said"]
    assert second["said"].endswith("exit code 2")
    assert third["said"] == "model.num_heads must divide model.width; got 5 heads for width 32"
    assert "1 of 4 jobs finished" in said
    assert re.search(r"model.num_heads=4 data.min_image_side=32 +shapes_tiny-\w+ +finished +0\.\d+ +0\.\d+", said)
    assert "[model.num_heads=4 data.min_image_side=32] epoch 1/1" in said
    log = workplace / "outputs/studies/num_heads-min_image_side" / f"{Path(first['folder']).name}.log"
    assert "epoch 1/1  step 6/6" in log.read_text()

    assert run("train", *SHORT, "model.num_heads=4", "data.min_image_side=30")[0] == 0
    code, said = run("train", "-m", *SHORT, "model.num_heads=4", "data.min_image_side=32,30")
    assert code == 0, said
    for side in (32, 30):
        assert f"[data.min_image_side={side}] finished before: outputs/shapes_tiny-" in said
    assert "2 of 2 jobs finished" in said
    (run_config,) = workplace.glob(f"{first['folder']}/config.yaml")
    assert OmegaConf.load(run_config).study_name == "num_heads-min_image_side"

    code, said = run("train", "-m", *SHORT, "schedule.epochs=1,4", "dry_run=true")
    assert code == 0
    states = dict(re.findall(r"schedule.epochs=(\d) +\S+ +(\w+) ", said))
    assert states == {"1": "finished", "4": "new"}
    assert re.search(r"not finished, together +0\.\d\d", said)


def test_a_killed_sweep_goes_on(workplace: Path, run: Run):
    """The sweep alone is killed: its job saves and leaves; the same command ends as if nothing had happened."""
    command = [*TINY, "trainer.max_train_batches=5", "callbacks.pictures=0", "trainer.checkpoint_every=1", "seed=0"]
    words = [sys.executable, "-m", "queryinst.train", "-m", *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, cwd=workplace, env=environment, stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + 120
        while not list(workplace.glob("outputs/shapes_tiny-*/last.ckpt")):
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < until, "no checkpoint within two minutes"
            time.sleep(0.01)
        process.kill()
    (folder,) = workplace.glob("outputs/shapes_tiny-*")
    log = workplace / "outputs/studies/runs" / f"{folder.name}.log"
    while "stopped; the same command goes on from step" not in log.read_text():
        assert time.monotonic() < until, "the job did not leave"
        time.sleep(0.1)
    time.sleep(0.5)  # it lets go of its lock
    assert [record["status"] for record in records(workplace)] == ["running"]
    before = torch.load(folder / "last.ckpt", weights_only=True)["global_step"]

    code, said = run("train", "-m", *command)
    assert code == 0, said
    assert f"resumed at step {before}" in said
    resumed = torch.load(folder / "last.ckpt", weights_only=True)
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    code, said = run("train", *command, "output=again")
    assert code == 0, said
    (again,) = workplace.glob("again/*")
    assert again.name == folder.name
    whole = torch.load(again / "last.ckpt", weights_only=True)
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
    assert json.loads((again / "result.json").read_text())["metrics"] == metrics


def test_two_jobs_at_once(run: Run, workplace: Path):
    code, said = run("train", "-m", *SHORT, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1")
    assert code == 0, said
    assert [record["status"] for record in records(workplace)] == ["finished", "finished"]
    assert len(list(workplace.glob("outputs/shapes_tiny-*/result.json"))) == 2
    assert "2 of 2 jobs finished" in said


def test_two_processes_inside_a_job_of_a_cluster(run: Run, workplace: Path):
    """By submitit's executor for this machine, as its executor for SLURM would; the job itself uses two devices."""
    two = ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10"]
    code, said = run("train", "-m", *SHORT, *two, *launcher, "seed=1")
    assert code == 0, said
    (record,) = records(workplace)
    assert record["status"] == "finished"
    (log,) = workplace.glob("outputs/studies/runs/*.log")
    assert "4 images a step on 2 devices" in log.read_text()
    assert "1 of 1 jobs finished" in said


def test_the_configuration_for_slurm_is_one_that_submitit_takes(tmp_path: Path):
    from submitit.slurm.slurm import SlurmExecutor

    ConfigStore.instance().store(name="config_schema", node=TrainConfig)
    words = ["hydra/launcher=slurm", "hydra.launcher.partition=gpu", "study_name=x"]
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        launcher = hydra.compose("config", words, return_hydra_config=True).hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.tasks_per_node, launcher.gpus_per_node, launcher.partition) == (1, 8, "gpu")
    assert launcher.max_num_timeout > 0, "a job that is out of time goes on in the queue"
    known = SlurmExecutor._valid_parameters()
    shared = {"timeout_min", "mem_gb", "name", "tasks_per_node", "submitit_folder", "_target_", "max_num_timeout"}
    assert {str(key) for key in launcher} <= known | shared


def test_within_a_job_of_slurm_lightning_starts_its_own_processes(monkeypatch: pytest.MonkeyPatch):
    from lightning_fabric.plugins.environments import SLURMEnvironment

    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "queryinst")
    assert SLURMEnvironment.detect()
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name, value in sweep.alone().items():
        monkeypatch.setenv(name, value)
    assert not SLURMEnvironment.detect()


def test_a_single_dry_run(run: Run, workplace: Path):
    code, said = run("train", *BRIEF, "dry_run=true")
    assert code == 0, said
    folder = run_folder(config := compose("config", TrainConfig, BRIEF), identity(config))
    assert folder.name in said
    assert re.search(r"new +3\.95 +0\.\d+", said)
    assert not (workplace / "outputs").exists()


def test_a_study_is_added(run: Run):
    code, said = run("train", "-m", "study=stages")
    assert code == 2
    assert said == "error: a study is added, not changed: write +study=stages\n"


def test_a_job_ends_with_its_sweep(tmp_path: Path):
    """The child of a process that is killed is told so."""
    child = (
        "import time; from queryinst.studies.processes import end_with_parent; "
        "end_with_parent(); print(1, flush=True); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys; os.environ['QUERYINST_PARENT'] = str(os.getpid()); "
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE); "
        "p.stdout.readline(); print(p.pid, flush=True); p.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout
        number = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while Path(f"/proc/{number}/stat").exists() and Path(f"/proc/{number}/stat").read_text().split()[2] != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_dry_run_says_that_its_data_is_not_there(run: Run, workplace: Path):
    sentence = "note: without its data this cannot be trained here: the data folder gone does not exist"
    for words in (["dry_run=true"], ["-m", "seed=1,2", "dry_run=true"]):
        code, said = run("train", *SMALLER, "data=coco", "data.root=gone", *words)
        assert code == 0, said
        assert said.count(sentence) == 1
