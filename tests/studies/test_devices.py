"""Threads and GPUs of a job beside others."""

import importlib
import os
import time
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from queryinst.errors import UserError
from queryinst.studies import devices


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Six cores and three GPUs."""
    monkeypatch.setattr(devices, "LOCKS", tmp_path)
    monkeypatch.setattr(devices, "_cores", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("launcher", "jobs"),
    [({}, 1), ({"n_jobs": None}, 1), ({"n_jobs": 4}, 4), ({"n_jobs": -1}, 6), ({"n_jobs": -2}, 5), ({"n_jobs": -9}, 1)],
)
def test_jobs_at_once_are_counted_as_joblib_counts_them(
    launcher: dict[str, int | None], jobs: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": {"launcher": launcher}}))
    assert devices.jobs_at_once() == jobs


def test_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch):
    with devices.dealt("1", 3) as first, devices.dealt("2", 3) as second:
        assert first == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "3"}
        assert second == {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "5,7"}
        waited = []

        def free(seconds: float) -> None:
            waited.append(seconds)
            if len(waited) == 2:
                raise TimeoutError

        monkeypatch.setattr(time, "sleep", free)
        with pytest.raises(TimeoutError), devices.dealt("1", 3):
            pass
    with devices.dealt("9", 3) as all_that_there_are:
        assert all_that_there_are["CUDA_VISIBLE_DEVICES"] == "3,5,7"


@pytest.mark.parametrize("wanted", ["auto", "0,2"])
def test_a_job_that_names_its_gpus_is_given_none(wanted: str):
    with devices.dealt(wanted, 3) as given:
        assert given == {"OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize("visible", ["", "-1"])
def test_without_gpus_only_threads_are_dealt_out(visible: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with devices.dealt("1", 7) as given:
        assert given == {"OMP_NUM_THREADS": "1"}


def test_threads_that_the_user_chose_stay(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    with devices.dealt("auto", 3) as given:
        assert given == {}


def test_the_locks_are_a_users_own(monkeypatch: pytest.MonkeyPatch):
    """Every user of a machine runs sweeps; a folder that the first one has made would be closed to the others."""
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    assert importlib.reload(devices).LOCKS.name == "queryinst-devices-4711"
    monkeypatch.undo()
    importlib.reload(devices)


def test_a_folder_of_another_user_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getuid", lambda: 4711)
    with pytest.raises(UserError, match=r"^GPUs are dealt out by locks in .*\(it is another user's\): set TMPDIR"):
        devices.dealt("1", 3).__enter__()


def test_a_job_alone_has_the_machine():
    with devices.dealt("1", 1) as given:
        assert given == {}
