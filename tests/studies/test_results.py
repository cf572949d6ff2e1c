"""result.json: whole or not at all, plain JSON, and everything that one needs to know about a run."""

import importlib.metadata
import json
import math
import platform
from pathlib import Path

import pytest
import torch

import queryinst
from queryinst.config import TrainConfig
from queryinst.settings import restore
from queryinst.studies import results
from queryinst.studies.results import describe, write


def test_nan_becomes_null_and_nothing_else_changes(tmp_path: Path):
    write(tmp_path / "result.json", {"a": {"b": [1, 2.5, math.nan]}, "c": math.inf, "d": "x", "e": (True, None)})
    assert json.loads((tmp_path / "result.json").read_text()) == {
        "a": {"b": [1, 2.5, None]},
        "c": None,
        "d": "x",
        "e": [True, None],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path):
    write(tmp_path / "result.json", {"a": 1})
    with pytest.raises(TypeError):
        write(tmp_path / "result.json", {"a": object()})
    assert json.loads((tmp_path / "result.json").read_text()) == {"a": 1}


def test_a_description_is_enough_to_repeat_the_run(tmp_path: Path):
    config = TrainConfig(seed=3)
    write(tmp_path / "result.json", describe(config, {"seed": 3}, "0123abcd"))
    found = json.loads((tmp_path / "result.json").read_text())
    assert restore(TrainConfig, found["config"]) == config
    assert (found["id"], found["identity"], found["name"]) == ("0123abcd", {"seed": 3}, config.name)
    assert found["versions"] == results.versions()
    assert found["git"] == results.git_state()
    assert found["hardware"] == results.hardware()


def test_versions_of_what_results_depend_on():
    packages = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "numpy", "pycocotools")
    known = {"queryinst": queryinst.__version__, "python": platform.python_version()}
    assert results.versions() == known | {name: importlib.metadata.version(name) for name in packages}


def test_threads_and_gpus_are_those_of_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"GPU {index}")
    found = results.hardware()
    assert (found["threads"], found["gpus"], found["system"]) == (3, ["GPU 0", "GPU 1"], platform.platform())


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("flags: x\nmodel name\t: EPYC: 7\nmodel name\t: other\n", "EPYC: 7"),
        ("flags: x\n", "another"),
        (None, "another"),
    ],
)
def test_the_processor_is_named_by_the_system_or_by_python(
    text: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "cpuinfo"
    if text:
        file.write_text(text)
    monkeypatch.setattr(results, "Path", lambda path: {"/proc/cpuinfo": file}[path])
    monkeypatch.setattr(platform, "processor", lambda: "another")
    assert results.hardware()["processor"] == name
