"""One run: skipped when finished, kept from other processes, and nothing written before the data is checked."""

import json
import re
from pathlib import Path

import filelock
import pytest
from conftest import shapes_config

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.studies import job
from queryinst.studies.identity import identity, run_folder


@pytest.fixture
def config() -> TrainConfig:
    return shapes_config()


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queryinst.lightning.training.train", lambda *_: pytest.fail("it trains"))


def folder_of(config: TrainConfig) -> Path:
    return run_folder(config, identity(config))


def finished(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(text)


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        ({"segm_AP": 0.625, "bbox_AP": None}, "mask AP 0.625, box AP 0.000"),
        ({"bbox_AP": 0.5, "segm_AP": 0.25}, "mask AP 0.250, box AP 0.500"),
        ({"segm_AP": 0.1}, "mask AP 0.100"),
    ],
)
def test_a_finished_run_is_reported_and_left_alone(
    workplace: Path, config: TrainConfig, capsys: pytest.CaptureFixture[str], metrics: dict[str, float], found: str
):
    folder, text = folder_of(config), json.dumps({"metrics": metrics})
    finished(folder, text)
    assert job.run(config) == folder
    assert capsys.readouterr().out == (
        f"this run is finished: {folder}, {found}\n"
        f"change a setting (seed=1, say) for another run, or delete {folder} to train it again\n"
    )
    assert (folder / "result.json").read_text() == text
    assert [path.name for path in folder.iterdir()] == ["result.json"]


def test_another_device_keeps_silent_about_a_finished_run(
    workplace: Path, config: TrainConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOCAL_RANK", "1")
    finished(folder_of(config), "{}")
    assert job.run(config) == folder_of(config)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"metrics": 3}', '{"metrics": {"segm_AP": "x"}}'])
def test_a_damaged_result(workplace: Path, config: TrainConfig, text: str):
    path = folder_of(config) / "result.json"
    finished(path.parent, text)
    said = rf"{re.escape(str(path))} is damaged \(.+\): delete it, and the same command evaluates the run again"
    with pytest.raises(UserError, match=f"^{said}$"):
        job.run(config)


def test_two_processes_do_not_train_one_run(workplace: Path, config: TrainConfig):
    folder = folder_of(config)
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / ".lock"), pytest.raises(UserError) as caught:
        job.run(config)
    assert str(caught.value) == (
        f"another process is training this run right now ({folder}); wait for it, or change a setting"
    )
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_bad_data_is_found_before_a_folder_is_made(workplace: Path, config: TrainConfig):
    (workplace / "data/shapes_tiny/images/val/000000500001.jpg").unlink()
    with pytest.raises(
        UserError, match=r"^1 of the 8 images of .*instances_val\.json do not exist, first image 500001 "
    ):
        job.run(config)
    assert not (workplace / "outputs").exists()


def test_a_folder_that_cannot_be_written(workplace: Path, config: TrainConfig):
    (workplace / "blocked").write_text("a file")
    config.output = "blocked/outputs"
    with pytest.raises(UserError) as caught:
        job.run(config)
    assert str(caught.value) == (
        f"the run folder {folder_of(config)} cannot be written (Not a directory); set output=FOLDER"
    )
