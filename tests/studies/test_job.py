"""One run: skipped when finished, kept from other processes, and nothing written before the data is checked."""

import json
from pathlib import Path

import filelock
import pytest
from conftest import TINY

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.studies import job
from queryinst.studies.command import compose
from queryinst.studies.identity import identity, run_folder


@pytest.fixture
def config() -> TrainConfig:
    return compose("config", TrainConfig, TINY)


def folder_of(config: TrainConfig) -> Path:
    return run_folder(config, identity(config))


def test_a_finished_run_is_reported_and_left_alone(
    workplace: Path, config: TrainConfig, capsys: pytest.CaptureFixture[str]
):
    folder = folder_of(config)
    folder.mkdir(parents=True)
    text = json.dumps({"metrics": {"segm_AP": 0.625, "bbox_AP": None}})
    (folder / job.RESULT).write_text(text)
    assert job.run(config) == folder
    out = capsys.readouterr().out
    assert f"this run is finished: {folder}, mask AP 0.625" in out
    assert (folder / job.RESULT).read_text() == text
    assert [path.name for path in folder.iterdir()] == [job.RESULT]


def test_two_processes_do_not_train_one_run(workplace: Path, config: TrainConfig):
    folder = folder_of(config)
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / ".lock"), pytest.raises(UserError, match="another process is training this run"):
        job.run(config)


def test_bad_data_is_found_before_a_folder_is_made(workplace: Path, config: TrainConfig):
    (workplace / "data/shapes_tiny/annotations/instances_val.json").write_text("{")
    with pytest.raises(UserError, match=r"holds other data|cannot be read as JSON"):
        job.run(config)
    assert not (workplace / "outputs").exists()


def test_a_folder_that_cannot_be_written(workplace: Path, config: TrainConfig):
    (workplace / "blocked").write_text("a file")
    config.output = "blocked/outputs"
    with pytest.raises(UserError, match=r"run folder .* cannot be written"):
        job.run(config)
