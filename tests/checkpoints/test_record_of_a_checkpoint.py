"""What a checkpoint holds and gives back: every setting, class and tensor with the value that was put in."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL
from torch import Tensor

from queryinst.checkpoints.load import Checkpoint, is_ours, load, save
from queryinst.checkpoints.read import read_safetensors, write_safetensors
from queryinst.config import (
    AugmentationConfig,
    BackboneConfig,
    CriterionConfig,
    DataConfig,
    ModelConfig,
    PostprocessConfig,
    ScheduleConfig,
    TrainConfig,
)
from queryinst.errors import UserError
from queryinst.video_config import AssociationConfig, VideoConfig

IDS, NAMES = [90, 4, 7], ["traffic light", "cat", "dog"]
STATE = {"queries.boxes": torch.arange(8.0).view(2, 4), "backbone.body.bn1.num_batches_tracked": torch.tensor(12)}


def odd_config() -> TrainConfig:
    """Settings at every depth that are not their defaults."""
    postprocess = PostprocessConfig(max_detections=17, clip_boxes=True, min_side=2.5)
    return TrainConfig(
        name="odd",
        seed=11,
        weights="from.ckpt",
        model=ModelConfig(**SMALL, association=AssociationConfig("plain", 12), postprocess=postprocess),
        backbone=BackboneConfig(name="tiny", frozen_stages=-1, norm="batch"),
        criterion=CriterionConfig(l1_cost=3.5),
        data=DataConfig(root="elsewhere", batch_size=6, video=VideoConfig()),
        augmentation=AugmentationConfig(test_short_side=64, long_side=96),
        schedule=ScheduleConfig(epochs=5, milestones=[2, 3]),
    )


def plain_record(**changes: Any) -> dict[str, Any]:
    return {"config": dataclasses.asdict(odd_config()), "category_ids": IDS, "category_names": NAMES} | changes


def written(path: Path, state: dict[str, Tensor], record: dict[str, Any]) -> Path:
    torch.save({"state_dict": {f"model.{name}": value for name, value in state.items()}, "queryinst": record}, path)
    return path


def require_all(checkpoint: Checkpoint, path: Path) -> None:
    assert checkpoint.path == path
    assert checkpoint.config == odd_config()
    assert (checkpoint.category_ids, checkpoint.category_names) == (IDS, NAMES)
    assert sorted(checkpoint.weights) == sorted(STATE)
    for name, value in STATE.items():
        assert checkpoint.weights[name].dtype == value.dtype
        assert torch.equal(checkpoint.weights[name], value)


def test_a_run_s_checkpoint_gives_back_what_training_put_in(tmp_path: Path):
    require_all(load(str(written(tmp_path / "a.ckpt", STATE, plain_record()))), tmp_path / "a.ckpt")


def test_a_saved_checkpoint_gives_back_what_was_saved(tmp_path: Path):
    path = tmp_path / "new" / "a.safetensors"
    save(Checkpoint(Path("other"), odd_config(), IDS, NAMES, STATE), path, {"label": "x", "sha256": "0f"})
    require_all(load(path), path)
    tensors, record = read_safetensors(path)
    assert record == plain_record() | {"kind": "model", "source": {"label": "x", "sha256": "0f"}}
    assert sorted(tensors) == sorted(STATE)


def test_only_the_network_s_own_state_is_taken_and_its_prefix_once(tmp_path: Path):
    path = written(tmp_path / "a.ckpt", STATE | {"model.x": torch.ones(1)}, plain_record())
    content = torch.load(path, weights_only=True)
    content["state_dict"]["metric.total"] = torch.ones(2)
    torch.save(content, path)
    assert set(load(path).weights) == {*STATE, "model.x"}


def test_ids_are_whole_numbers_and_names_are_text(tmp_path: Path):
    path = written(tmp_path / "a.ckpt", STATE, plain_record(category_ids=["3", 4.0, 5], category_names=[1, "b", "c"]))
    checkpoint = load(path)
    assert (checkpoint.category_ids, checkpoint.category_names) == ([3, 4, 5], ["1", "b", "c"])


def test_what_is_ours():
    good = {"queryinst": 0, "state_dict": {}}
    assert is_ours(good)
    for other in (None, [], {}, {"queryinst": 0}, {"state_dict": {}}, good | {"state_dict": []}):
        assert not is_ours(other)


def test_a_record_that_cannot_be_read_is_one_sentence(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    damaged = f"{path} is damaged: its record of settings and classes cannot be read "
    lacking = plain_record()
    del lacking["category_names"]
    config = plain_record()["config"]
    for record, sentence in (
        (lacking, damaged + "(KeyError('category_names'))"),
        (plain_record(category_ids=[1, 2]), damaged + "(ValueError('2 category ids, 3 names'))"),
        (plain_record(category_ids=3), damaged + "(TypeError(\"'int' object is not iterable\"))"),
        (plain_record(config=[]), damaged + "(AttributeError(\"'list' object has no attribute 'items'\"))"),
    ):
        with pytest.raises(UserError) as caught:
            load(written(path, STATE, record))
        assert str(caught.value) == sentence
    with pytest.raises(UserError, match=r"model\.num_heads must divide model\.width; got 3 heads for width 16"):
        load(written(path, STATE, plain_record(config=config | {"model": config["model"] | {"num_heads": 3}})))


def test_weights_that_are_not_finite_are_counted_and_the_first_is_named(tmp_path: Path):
    state = STATE | {"b": torch.tensor([1.0, torch.inf]), "c": torch.tensor([torch.nan, 1.0])}
    with pytest.raises(UserError) as caught:
        load(written(tmp_path / "a.ckpt", state, plain_record()))
    assert str(caught.value) == (
        f"{tmp_path / 'a.ckpt'} has 2 tensors with NaN or infinite values, first b: training failed"
    )


def test_files_that_are_no_whole_model(tmp_path: Path):
    torch.save({"queryinst": 0}, tmp_path / "a.pt")
    write_safetensors(tmp_path / "b.safetensors", STATE, {"kind": "backbone"})
    write_safetensors(tmp_path / "c.safetensors", STATE, {})
    for name, sentence in (
        (
            "a.pt",
            "{} is not a checkpoint of queryinst.train, such as the best.ckpt or last.ckpt of a run folder; weights of "
            f"other projects come with python -m queryinst.convert {{}} {tmp_path / 'a.safetensors'}",
        ),
        ("b.safetensors", "{} is not a whole model (backbone)"),
        ("c.safetensors", "{} is not a whole model (not written by queryinst.convert)"),
    ):
        with pytest.raises(UserError) as caught:
            load(tmp_path / name)
        path = tmp_path / name
        assert str(caught.value) == sentence.format(path, path)


def test_other_classes_are_one_sentence():
    checkpoint = Checkpoint(Path("a.ckpt"), odd_config(), IDS, NAMES, STATE)
    checkpoint.require_classes(tuple(IDS), tuple(NAMES), Path("x.json"))
    for ids, names, sentence in (
        (
            [1, 2],
            ["a", "b"],
            "a.ckpt was trained on 3 classes (traffic light, cat, dog), but x.json has 2 (a, b): evaluate on data with "
            "the same classes, or fine-tune with queryinst.train weights=a.ckpt",
        ),
        ([90, 5, 8], NAMES, "a.ckpt was trained on other categories than those of x.json: 4 there is 5 here"),
        (
            IDS,
            ["traffic light", "Cat", "Dog"],
            "a.ckpt was trained on other categories than those of x.json: 'cat' there is 'Cat' here",
        ),
    ):
        with pytest.raises(UserError) as caught:
            checkpoint.require_classes(ids, names, Path("x.json"))
        assert str(caught.value) == sentence
