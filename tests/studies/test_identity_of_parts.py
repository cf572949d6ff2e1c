"""What a run is, where parts of a user's own and pictures belong to it; runs from before stay what they were."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Write
from omegaconf import OmegaConf

from queryinst.config import DataConfig, TrainConfig
from queryinst.studies.command import compose
from queryinst.studies.identity import identity, run_folder, run_id

# Of these the folders of runs are named, here and elsewhere: one that changes would be trained again.
BEFORE = {
    "": "4caa39d5",
    "data=shapes_tiny": "f1473fa0",
    "+experiment=1x_pro100": "48541472",
    "+experiment=tiny": "7d15559d",  # what `data=coco` alone was before it was fine-tuning
    "+experiment=ms_3x_pro100": "ed273423",
    "+experiment=ms_crop_3x_pro300": "59c73a1a",
    "+experiment=r101_ms_3x_pro100": "3c3b9d40",
    "+experiment=r101_ms_crop_3x_pro300": "5f9a59c0",
    "+experiment=shapes_video": "61e56a6f",
    "+experiment=swin_l_ms_crop_50e_pro300": "91ca73c5",
    "+experiment=swin_t_ms_crop_3x_pro100": "1bf701c6",
    "+experiment=vis_2019": "ba128e69",
}


@pytest.mark.parametrize("words", BEFORE)
def test_recipes_are_the_runs_that_they_were(words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)  # without data
    assert run_id(identity(compose("config", TrainConfig, words.split()))) == BEFORE[words]


def node(**more: Any) -> dict[str, Any]:
    return {"mine": {"name": "my_parts:Part", **more}}


PLACES: dict[str, Callable[[TrainConfig], Any]] = {
    "backbone": lambda config: setattr(config.backbone, "name", "my_parts:Part"),
    "model.box_head": lambda config: setattr(config.model.box_head, "name", "my_parts:Part"),
    "model.mask_head": lambda config: setattr(config.model.mask_head, "name", "my_parts:Part"),
    "criterion.classification": lambda config: setattr(config.criterion.classification, "name", "my_parts:Part"),
    "criterion.terms.mine": lambda config: setattr(config.criterion, "terms", node()),
    "criterion.costs.mine": lambda config: setattr(config.criterion, "costs", node()),
    "data.reader": lambda config: setattr(config.data.reader, "name", "my_parts:Part"),
    "augmentation.steps.mine": lambda config: setattr(config.augmentation, "steps", node()),
    "metrics.mine": lambda config: setattr(config, "metrics", node()),
    "callbacks.extra.mine": lambda config: setattr(config.callbacks, "extra", node()),
}


@pytest.mark.parametrize("key", PLACES)
def test_a_part_counts_by_its_name_and_its_source(write: Write, key: str):
    plain = identity(TrainConfig())
    config = TrainConfig()
    PLACES[key](config)
    write("my_parts.py", "class Part: pass")
    before = identity(config)
    write("my_parts.py", "class Part: pass  # better")
    after = identity(config)
    assert run_id(plain) != run_id(before) != run_id(after)
    assert list(before["parts"]) == list(after["parts"]) == [key]
    assert {name for name in before if before[name] != after[name]} == {"parts"}


def test_settings_and_weights_of_a_part_count(write: Write):
    write("my_parts.py", "class Part: pass")
    made = [run_id(identity(TrainConfig()))]
    for more in ({}, {"weight": 2.0}, {"args": {"a": 1}}, {"args": {"a": 2}}):
        config = TrainConfig()
        config.criterion.terms = node(**more)
        made.append(run_id(identity(config)))
    assert len(set(made)) == len(made)


def test_loggers_do_not_count_and_arguments_of_the_trainer_do(write: Write):
    write("my_parts.py", "class Part: pass")
    plain, config = identity(TrainConfig()), TrainConfig()
    config.logger.extra = node()
    assert identity(config) == plain
    config.trainer.extra = {"overfit_batches": 1}
    assert identity(config)["trainer.extra"] == {"overfit_batches": 1}


# -- pictures


@pytest.fixture
def data(workplace: Path) -> DataConfig:
    """The small data as a user's own."""
    folders = {f"{split}_images": f"images/{split}" for split in ("train", "val")}
    files = {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
    return DataConfig(root=str(workplace / "data/shapes_tiny"), **folders, **files)


def differing(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name in before | after if before.get(name) != after.get(name)]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_picture_counts_by_its_content(data: DataConfig, split: str):
    config = TrainConfig(data=data)
    before = identity(config)
    picture = min(Path(data.root, "images", split).iterdir())
    content = bytearray(picture.read_bytes())
    content[-1] ^= 1
    picture.write_bytes(content)
    assert differing(before, identity(config)) == [f"pictures.{split}"]
    picture.unlink()
    assert differing(before, identity(config)) == [f"pictures.{split}"]


def test_the_same_pictures_elsewhere_are_the_same_run_and_others_there_are_not(data: DataConfig):
    before = identity(TrainConfig(data=data))
    moved = Path(data.root).rename(Path(data.root).with_name("moved"))
    assert identity(TrainConfig(data=dataclasses.replace(data, root=str(moved)))) == before
    (moved / "images/val/unnamed.png").touch()  # no annotation file names it
    there = dataclasses.replace(data, root=str(moved))
    assert identity(TrainConfig(data=there)) == before
    there.train_images = "images/val"
    assert differing(before, identity(TrainConfig(data=there))) == ["pictures.train"]


def begun_before(config: TrainConfig) -> dict[str, Any]:
    """A run from when pictures did not count: its identity, after its folder was made."""
    values = {name: value for name, value in identity(config).items() if not name.startswith("pictures.")}
    folder = run_folder(config, values)
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(dataclasses.asdict(config)), folder / "config.yaml")
    return values


def test_a_run_from_before_keeps_its_folder(data: DataConfig):
    config = TrainConfig(data=data)
    before = begun_before(config)
    assert identity(config) == before
    assert identity(dataclasses.replace(config, seed=1)).keys() - before.keys() == {"pictures.train", "pictures.val"}


def test_a_run_from_before_does_not_lend_its_folder_to_other_pictures(data: DataConfig):
    config = TrainConfig(data=data)
    before = begun_before(config)
    other = dataclasses.replace(config, data=dataclasses.replace(data, train_images="images/val"))
    assert identity(other).keys() - before.keys() == {"pictures.train", "pictures.val"}


def test_a_run_from_now_is_preferred(data: DataConfig):
    config = TrainConfig(data=data)
    now = identity(config)
    begun_before(config)
    run_folder(config, now).mkdir(parents=True)
    assert identity(config) == now
