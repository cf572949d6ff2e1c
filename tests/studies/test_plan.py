"""What a run will cost: its network as it is counted, its time from runs that are finished."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from queryinst.config import DataConfig, ShapesConfig, TrainConfig
from queryinst.studies import plan as planned
from queryinst.studies.identity import identity
from queryinst.studies.plan import Plan, plan

FLOPS = 200


@pytest.fixture(autouse=True)
def _counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planned, "_counted", lambda model, backbone, side: (side, FLOPS))


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    config = TrainConfig(output=str(tmp_path), data=DataConfig(shapes=ShapesConfig(train=8, val=1)))
    config.schedule.epochs = 10
    return config


def finish(of: TrainConfig, name: str, **changed: Any) -> None:
    """A run of 2 epochs, 3 images a step, 4 steps an epoch: 24 images; of 100 operations, in 6 minutes."""
    result = {"identity": identity(of), "steps": 8, "flops": 100, "minutes": 6.0}
    result |= {"config": {"schedule": {"epochs": 2}, "data": {"batch_size": 3}}} | changed
    folder = Path(of.output) / name
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result))


def test_time_grows_with_images_and_operations(config: TrainConfig, tmp_path: Path):
    finish(config, "a")
    expected = 6.0 / (24 * 100) * 12 * 10 * FLOPS
    assert plan(config, tmp_path / "x") == Plan("new", 800, FLOPS, pytest.approx(expected))


def test_the_median_of_several_runs_counts(config: TrainConfig, tmp_path: Path):
    for name, minutes in (("a", 6.0), ("b", 7.0), ("c", 90.0)):
        finish(config, name, minutes=minutes)
    assert plan(config, tmp_path / "x").minutes == pytest.approx(7.0 / (24 * 100) * 12 * 10 * FLOPS)


@pytest.mark.parametrize(("side", "whole"), [(800, 800), (801, 832), (64, 64)])
def test_an_image_is_counted_with_its_padding_to_a_multiple_of_32(
    config: TrainConfig, tmp_path: Path, side: int, whole: int
):
    config.augmentation.test_short_side = side
    assert plan(config, tmp_path / "x") == Plan("new", whole, FLOPS, None)


@pytest.mark.parametrize(
    ("files", "state"),
    [([], "new"), (["last.ckpt"], "begun"), (["last.ckpt", "result.json"], "finished"), (["best.ckpt"], "new")],
)
def test_a_run_is_new_begun_or_finished(config: TrainConfig, tmp_path: Path, files: list[str], state: str):
    (tmp_path / "elsewhere" / "x").mkdir(parents=True)
    for name in files:
        (tmp_path / "elsewhere" / "x" / name).touch()
    assert plan(config, tmp_path / "elsewhere" / "x").state == state


@pytest.mark.parametrize(
    "changed",
    [
        {"identity": {}},
        {"identity": {"data": "other"}},
        {"steps": 0},
        {"flops": 0},
        {"minutes": 0},
        {"config": {}},
        {"steps": "many"},
        {"minutes": None},
    ],
)
def test_a_run_on_other_data_or_a_damaged_one_is_no_help(config: TrainConfig, tmp_path: Path, changed: dict[str, Any]):
    finish(config, "a", **changed)
    assert plan(config, tmp_path / "x").minutes is None


def test_a_trial_on_a_few_batches_is_no_help_for_a_whole_run(config: TrainConfig, tmp_path: Path):
    trial = dataclasses.replace(config, trainer=dataclasses.replace(config.trainer, max_train_batches=1))
    finish(trial, "a")
    assert plan(config, tmp_path / "x").minutes is None
    assert plan(trial, tmp_path / "x").minutes is not None


def test_data_that_is_not_here_is_said(config: TrainConfig, tmp_path: Path):
    assert plan(config, tmp_path / "x").missing == "", "it will be made"
    config.data = DataConfig(root=str(tmp_path / "gone"))
    assert plan(config, tmp_path / "x").missing.startswith(
        f"the data folder {tmp_path}/gone does not exist (data.root="
    )
    config.data.root = str(tmp_path)
    (tmp_path / "annotations").mkdir()
    for name in ("train2017", "val2017", "annotations/instances_val2017.json"):
        (tmp_path / name).mkdir()
    missing = plan(config, tmp_path / "x").missing
    assert missing.startswith(f"{tmp_path}/annotations/instances_train2017.json not there (data.root=")
    (tmp_path / "annotations/instances_train2017.json").touch()
    assert plan(config, tmp_path / "x").missing == ""
