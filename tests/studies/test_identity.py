"""A run is what defines its result, and nothing else."""

import dataclasses
from pathlib import Path

import pytest

from queryinst.config import DataConfig, ShapesConfig, TrainConfig
from queryinst.errors import UserError
from queryinst.settings import setting, walk
from queryinst.studies.command import compose
from queryinst.studies.identity import identity, run_folder, run_id


def number(*overrides: str) -> str:
    return run_id(identity(compose("config", TrainConfig, list(overrides))))


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "model.num_stages=4",
        "schedule.epochs=4",
        "optimizer.lr=0.01",
        "data.batch_size=8",
        "data=shapes_tiny",
        "trainer.precision=bf16-mixed",
    ],
)
def test_what_changes_the_result_is_another_run(override: str):
    assert number(override) != number()


@pytest.mark.parametrize(
    "override",
    [
        "output=elsewhere",
        "name=other",
        "data.num_workers=3",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "logger=none",
        "callbacks.pictures=0",
        "data.root=d",
    ],
)
def test_how_it_gets_there_is_the_same_run(override: str):
    assert number(override) == number()


def test_the_folder_has_name_and_number():
    config = compose("config", TrainConfig, ["name=mine", "output=out"])
    assert run_folder(config, identity(config)) == Path("out") / f"mine-{number()}"


def test_data_and_weights_count_by_content_not_by_place(tmp_path: Path):
    def of(folder: str, text: str) -> str:
        path = tmp_path / folder / "annotations"
        path.mkdir(parents=True, exist_ok=True)
        for split in ("train", "val"):
            (path / f"instances_{split}2017.json").write_text(text)
        (tmp_path / folder / "w.ckpt").write_text(text)
        return number("data=coco", f"data.root={tmp_path / folder}", f"weights={tmp_path / folder / 'w.ckpt'}")

    assert of("a", "one") == of("b", "one")
    assert of("a", "one") != of("b", "two")
    with pytest.raises(UserError, match=r"weights=nowhere\.ckpt cannot be read: No such file"):
        number("weights=nowhere.ckpt")


def test_every_setting_says_whether_it_counts():
    kinds = {key: entry.metadata["identity"] for key, entry, _ in walk(compose("config", TrainConfig, []))}
    assert not kinds["data.root"]
    assert kinds["model.width"]
    assert all(not counts for key, counts in kinds.items() if key.startswith(("logger.", "callbacks.")))


def test_a_setting_that_came_later_counts_once_it_is_set():
    @dataclasses.dataclass
    class Later(TrainConfig):
        new: float = setting(0.5, "came later", identity="set")
        list_of_new: list[int] = setting([], "came later", identity="set")

    before = TrainConfig(data=DataConfig(shapes=ShapesConfig(1, 1)))
    same = Later(data=before.data)
    assert identity(same) == identity(before)
    assert identity(dataclasses.replace(same, new=0.6)) == {**identity(before), "new": 0.6}
    assert identity(dataclasses.replace(same, list_of_new=[1])) == {**identity(before), "list_of_new": [1]}
