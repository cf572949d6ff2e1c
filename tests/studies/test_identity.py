"""A run is what defines its result, and nothing else."""

import dataclasses
import hashlib
from pathlib import Path
from typing import IO, Any

import pytest

from queryinst.config import DataConfig, ShapesConfig, TrainConfig
from queryinst.data.shapes import fingerprint
from queryinst.errors import UserError
from queryinst.settings import setting, walk
from queryinst.studies.command import compose
from queryinst.studies.identity import _counting, identity, run_folder, run_id


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
    values = {"seed": 3}
    assert run_folder(TrainConfig(name="mine", output="out"), values) == Path("out") / f"mine-{run_id(values)}"


FILES = {
    "data.train": "annotations/instances_train2017.json",
    "data.val": "annotations/instances_val2017.json",
    "weights": "start.ckpt",
    "backbone.weights": "resnet.pth",
}


def own_data(folder: Path) -> TrainConfig:
    """Data and weights of a user's own: each of `FILES` holds its own name, unless it is there already."""
    for file in FILES.values():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(file)
    config = TrainConfig(weights=str(folder / FILES["weights"]), data=DataConfig(root=str(folder)))
    config.backbone.weights = str(folder / FILES["backbone.weights"])
    return config


@pytest.mark.parametrize("key", FILES)
def test_each_file_counts_by_its_content_not_by_its_place(tmp_path: Path, key: str):
    before = identity(own_data(tmp_path / "a"))
    assert before[key] == hashlib.sha256(FILES[key].encode()).hexdigest()[:16]
    assert identity(own_data(tmp_path / "b")) == before
    (tmp_path / "b" / FILES[key]).write_text("other")
    after = identity(own_data(tmp_path / "b"))
    assert [name for name in before if before[name] != after[name]] == [key]


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_that_are_not_there_are_missing(tmp_path: Path, split: str):
    config = own_data(tmp_path)
    before = identity(config)
    (tmp_path / FILES[f"data.{split}"]).unlink()
    assert identity(config) == {**before, f"data.{split}": "missing", f"pictures.{split}": "missing"}


def test_embedded_data_counts_by_what_it_is_made_of():
    shapes = ShapesConfig(train=3, val=2, side=96, seed=1)
    values = identity(TrainConfig(data=DataConfig(shapes=shapes)))
    assert values["data"] == fingerprint(shapes)
    assert not {"data.train", "data.val"} & values.keys()


def test_imagenet_is_a_name_and_no_weights_are_none():
    config = TrainConfig()
    assert (identity(config)["weights"], identity(config)["backbone.weights"]) == (None, None)
    config.backbone.weights = "imagenet"
    assert identity(config)["backbone.weights"] == "imagenet"


@pytest.mark.parametrize("key", ["weights", "backbone.weights"])
def test_weights_that_are_not_there(key: str):
    with pytest.raises(UserError) as caught:
        number(f"{key}=nowhere.ckpt")
    assert str(caught.value) == f"{key}=nowhere.ckpt cannot be read: No such file or directory"


@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str):
    config, path = own_data(tmp_path), tmp_path / FILES[f"data.{split}"]
    opened = Path.open

    def refused(file: Path, mode: str) -> IO[Any]:
        if file == path:
            raise PermissionError(13, "Permission denied")
        return opened(file, mode)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(UserError) as caught:
        identity(config)
    assert str(caught.value) == f"data.{split}_annotations={path} cannot be read: Permission denied"


def test_the_number_does_not_depend_on_the_order_and_stays_what_it_was():
    """Or the runs that are there already would be trained again."""
    assert run_id({"seed": 0, "data": {"side": 96}, "a": None}) == "a2774652"
    assert run_id({"a": None, "data": {"side": 96}, "seed": 0}) == "a2774652"


def test_of_parts_by_name_what_they_mean_counts():
    """One weight, however it is written; the order of steps, which happen one after another, but not that of costs."""

    def values(**nodes: Any) -> dict[str, Any]:
        config = TrainConfig()
        config.criterion.terms, config.augmentation.steps = nodes.get("terms", {}), nodes.get("steps", {})
        return dict(_counting(config))

    one = values(terms={"a": {"name": "m:A", "weight": 1}})
    assert (
        one == values(terms={"a": {"name": "m:A", "weight": 1.0, "args": {}}}) == values(terms={"a": {"name": "m:A"}})
    )
    assert one != values(terms={"a": {"name": "m:A", "weight": 1.5}})
    steps = {"x": {"name": "m:X"}, "y": {"name": "m:Y"}}
    assert run_id(values(steps=steps)) != run_id(values(steps=dict(reversed(steps.items()))))
    terms = run_id(values(terms=steps))
    assert terms == run_id(values(terms=dict(reversed(steps.items()))))


def test_every_setting_says_whether_it_counts():
    kinds = {key: entry.metadata["identity"] for key, entry, _ in walk(compose("config", TrainConfig, []))}
    assert not kinds["data.root"]
    assert kinds["model.width"]
    watching = {key: counts for key, counts in kinds.items() if key.startswith(("logger.", "callbacks."))}
    assert watching.pop("callbacks.extra") == "set"  # may change the training
    assert not any(watching.values())


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
