"""result.json: whole or not at all, plain JSON, and everything that one needs to know about a run."""

import json
import math
from pathlib import Path

import pytest

from queryinst.config import TrainConfig
from queryinst.settings import restore
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
    assert found["hardware"]["threads"] >= 1
    assert found["hardware"]["processor"]
    assert {"torch", "numpy", "pycocotools"} <= found["versions"].keys()
    assert found["git"] is None or len(found["git"]["revision"]) == 40
