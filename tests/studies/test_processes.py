"""Which of the processes of a run this is: exactly one of them is the first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SHORT

from queryinst.errors import UserError
from queryinst.studies.processes import exit_code, is_first, settle

NAMES = ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID")
OTHERS = ("GROUP_RANK", "WORLD_SIZE", "JSM_NAMESPACE_RANK", "SLURM_NTASKS", "SLURM_JOB_NAME")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.environ", {key: value for key, value in os.environ.items() if key not in NAMES + OTHERS})


def test_a_process_alone_is_the_first():
    assert is_first()
    assert exit_code(2) == 2


@pytest.mark.parametrize("name", NAMES)
def test_of_several_the_first_has_the_number_0_everywhere(name: str, monkeypatch: pytest.MonkeyPatch):
    for other in NAMES:
        monkeypatch.setenv(other, "0")
    assert is_first()
    assert exit_code(130) == 130
    monkeypatch.setenv(name, "1")
    assert not is_first()
    assert exit_code(130) == 0


@pytest.mark.parametrize("devices", ["1", "3,"])
@pytest.mark.parametrize("name", [*NAMES, "GROUP_RANK", "JSM_NAMESPACE_RANK"])
def test_alone_it_is_the_first_whatever_a_shell_has_left(name: str, devices: str):
    os.environ[name] = "1"
    settle(devices, 1)
    assert name not in os.environ
    assert is_first()


@pytest.mark.parametrize("left", [{"SLURM_PROCID": "1"}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}])
def test_alone_in_a_job_of_slurm_lightning_does_not_look_for_others(left: dict[str, str]):
    os.environ.update(left, SLURM_JOB_NAME="train")
    settle("1", 1)
    assert os.environ["SLURM_JOB_NAME"] == "bash"


def test_one_task_of_slurm_stays_one():
    os.environ.update(SLURM_PROCID="0", SLURM_NTASKS="1", SLURM_JOB_NAME="train")
    settle("1", 1)
    assert os.environ["SLURM_JOB_NAME"] == "train"


@pytest.mark.parametrize(
    ("environment", "devices", "nodes"),
    [
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}, "2", 1),
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, "auto", 1),
        ({"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "4"}, "2", 2),
        ({"NODE_RANK": "1"}, "1", 2),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train"}, "0,1", 1),
    ],
)
def test_one_of_several_stays_one_of_several(environment: dict[str, str], devices: str, nodes: int):
    os.environ.update(environment)
    before = dict(os.environ)
    settle(devices, nodes)
    assert os.environ == before
    assert not is_first()


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_where_slurm_starts_nothing_its_number_says_nothing(name: str):
    os.environ.update(SLURM_PROCID="1", SLURM_NTASKS="4", SLURM_JOB_NAME=name)
    settle("2", 1)
    assert is_first()


@pytest.mark.parametrize(
    ("environment", "devices", "sentence"),
    [
        (
            {"RANK": "1", "WORLD_SIZE": "4"},
            "1",
            "WORLD_SIZE=4 says that this is one of 4 processes, and trainer.devices=1 that it is alone: set "
            "trainer.devices=4 trainer.strategy=ddp (on several machines trainer.num_nodes too), or unset "
            "WORLD_SIZE RANK",
        ),
        (
            {"RANK": "1"},
            "2",
            "RANK=1 says that this is one of several processes, and no WORLD_SIZE of how many: unset RANK",
        ),
        ({"LOCAL_RANK": "1"}, "auto", "LOCAL_RANK=1 says that this is one of several processes, and no WORLD_SIZE"),
        (
            {"NODE_RANK": "1", "WORLD_SIZE": "2"},
            "2",
            "NODE_RANK=1 says that this is not the first machine, and trainer",
        ),
        (
            {"GROUP_RANK": "2", "WORLD_SIZE": "2"},
            "2",
            "GROUP_RANK=2 says that this is not the first machine, and trainer",
        ),
    ],
)
def test_a_number_that_fits_nothing_is_one_sentence(environment: dict[str, str], devices: str, sentence: str):
    os.environ.update(environment)
    with pytest.raises(UserError) as caught:
        settle(devices, 1)
    assert str(caught.value).startswith(sentence)


def test_a_run_in_such_a_shell_leaves_its_result(workplace: Path):
    left = {"RANK": "1", "SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}
    environment = {**os.environ, **left, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "queryinst.train", *SHORT]
    done = subprocess.run(words, cwd=workplace, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (folder,) = workplace.glob("outputs/*")
    assert {"result.json", "config.yaml", "metrics.csv"} <= {path.name for path in folder.iterdir()}
    assert "Warning" not in done.stderr
