"""What a run leaves in its folder, and what is there after an error. Training itself is played by `Training`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import filelock
import pytest
from conftest import shapes_config
from omegaconf import OmegaConf

from queryinst.config import TrainConfig
from queryinst.data.datamodule import CocoDataModule
from queryinst.errors import UserError
from queryinst.evaluation.coco import STATS, table
from queryinst.lightning import training
from queryinst.settings import restore
from queryinst.studies import job, results
from queryinst.studies.identity import identity, run_folder, run_id
from queryinst.studies.revision import revision
from queryinst.video_config import VideoConfig

NAMES = ("circle", "square", "triangle", "star", "ring", "cross", "crescent", "hexagon")
METRICS = {f"{kind}_{name}": 0.25 for kind in ("bbox", "segm") for name in STATS}
METRICS |= {f"segm_AP/{name}": 0.125 for name in NAMES}
TRAINED = training.Trained(METRICS, [METRICS], "best.ckpt", 12, 1.26, 100, 200, 0.5, ["a.jpg"])


class Training:
    """In place of `queryinst.lightning.training.train`: keeps what it got, leaves files, and fails where asked to."""

    def __init__(self) -> None:
        self.leaves: list[str] = []
        self.error: BaseException | None = None
        self.got: tuple[Any, ...] = ()

    def __call__(self, config: TrainConfig, data: CocoDataModule, folder: Path, run: str) -> training.Trained:
        self.got = (config, data, folder, run)
        for name in self.leaves:
            (folder / name).touch()
        self.held = locked(folder)
        if self.error:
            raise self.error
        return TRAINED


def locked(folder: Path) -> bool:
    try:
        with filelock.FileLock(folder / job.LOCK, blocking=False):
            return False
    except filelock.Timeout:
        return True


@pytest.fixture
def fake(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Training:
    fake = Training()
    monkeypatch.setattr(training, "train", fake)
    return fake


@pytest.fixture
def config() -> TrainConfig:
    return shapes_config()


@pytest.fixture
def folder(config: TrainConfig) -> Path:
    return run_folder(config, identity(config))


def test_a_run_leaves_its_settings_and_its_result(
    fake: Training, config: TrainConfig, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert job.run(config) == folder
    got, data, *others = fake.got
    assert got is config
    assert data.file("train").categories.names == NAMES
    assert others == [folder, folder.name[-8:]]
    assert fake.held, "no other process may train it meanwhile"
    assert not locked(folder)
    assert restore(TrainConfig, OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))) == config
    result = json.loads((folder / "result.json").read_text())
    values = identity(config)
    expected = results.describe(config, values, run_id(values)) | dataclasses.asdict(TRAINED)
    expected["revisions"] = [revision()]
    assert result == json.loads(json.dumps(expected))
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "config.yaml", "result.json", "revisions.txt"]
    assert capsys.readouterr().out == (
        f"\n{table(METRICS, NAMES)}\n\ntrained in 1.3 minutes; everything is in {folder}\n\n"
        f"look at it      python -m queryinst.predict checkpoint={folder}/best.ckpt source=IMAGE_OR_FOLDER\n"
        f"stage by stage  python -m queryinst.evaluate checkpoint={folder}/best.ckpt all_stages=true\n"
        "your own data   python -m queryinst.train data=coco data.root=FOLDER\n"
    )


def test_of_video_it_says_to_look_at_a_video(fake: Training, config: TrainConfig, monkeypatch: pytest.MonkeyPatch):
    """And at once, also where it says so to a file."""
    data = job._data(config)
    monkeypatch.setattr(job, "_data", lambda config: data)
    config.data.video = VideoConfig()
    with Path("said").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        job.run(config)
        said = Path("said").read_text()
    assert "best.ckpt source=VIDEO\n" in said
    assert said.endswith("data=coco data.root=FOLDER\n")


def test_the_embedded_data_is_made_where_it_is_not(fake: Training, config: TrainConfig, tmp_path: Path):
    config.data.root = str(tmp_path / "new")
    config.data.shapes.train = config.data.shapes.val = 4
    job.run(config)
    assert len(fake.got[1].file("train").images) == 4


def test_an_error_before_anything_came_about_leaves_nothing(fake: Training, config: TrainConfig, folder: Path):
    fake.error = UserError("the weights do not fit")
    with pytest.raises(UserError, match=r"^the weights do not fit$"):
        job.run(config)
    assert not folder.exists()


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt", "failed-step-3.pt", "failed-step-3-device-1.pt"])
def test_what_training_kept_stays_after_an_error(fake: Training, config: TrainConfig, folder: Path, name: str):
    fake.leaves, fake.error = [name], UserError("the loss is NaN")
    with pytest.raises(UserError, match=r"^the loss is NaN$"):
        job.run(config)
    assert sorted(path.name for path in folder.iterdir()) == sorted([".lock", "config.yaml", "revisions.txt", name])
    assert not locked(folder)


@pytest.mark.parametrize("name", ["failed-step-3.pt", "notes.txt"])
def test_what_was_there_before_stays(fake: Training, config: TrainConfig, folder: Path, name: str):
    folder.mkdir(parents=True)
    (folder / name).write_text("mine")
    fake.error = UserError("the weights do not fit")
    with pytest.raises(UserError, match=r"^the weights do not fit$"):
        job.run(config)
    assert (folder / name).read_text() == "mine"
    fake.error = None
    job.run(config)
    assert (folder / name).read_text() == "mine"


@pytest.mark.parametrize("error", [RuntimeError("ours"), KeyboardInterrupt()])
def test_what_is_not_the_users_mistake_leaves_all_for_a_look(
    fake: Training, config: TrainConfig, folder: Path, error: BaseException
):
    fake.error = error
    with pytest.raises(type(error)):
        job.run(config)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "config.yaml", "revisions.txt"]


@pytest.mark.parametrize("error", [None, UserError("no")])
def test_a_process_of_another_device_trains_and_writes_nothing(
    fake: Training,
    config: TrainConfig,
    folder: Path,
    error: UserError | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setenv("LOCAL_RANK", "1")
    fake.error = error
    folder.mkdir(parents=True)
    with filelock.FileLock(folder / job.LOCK):  # which the first process has
        if error:
            with pytest.raises(UserError):
                job.run(config)
        else:
            job.run(config)
    assert fake.got[2] == folder
    assert [path.name for path in folder.iterdir()] == [".lock"]
    assert capsys.readouterr().out == ""
