"""Reading checkpoints: what fits is used, what does not is named, nothing is executed."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from conftest import SMALL, small_model

from queryinst.checkpoints.load import load, read, start_backbone, start_from
from queryinst.config import BackboneConfig, DataConfig, ModelConfig, TrainConfig
from queryinst.errors import UserError
from queryinst.models.backbone import build_backbone
from queryinst.video_config import AssociationConfig, VideoConfig


def saved(path: Path, num_classes: int = 3, **settings: Any) -> Path:
    """A checkpoint as training writes it."""
    model = small_model(num_classes, **settings)
    config = TrainConfig(
        model=ModelConfig(**{**SMALL, **settings}),
        backbone=BackboneConfig(name="tiny", frozen_stages=-1, norm="batch"),
        data=DataConfig(video=VideoConfig() if settings.get("association") else None),
    )
    record = {
        "config": dataclasses.asdict(config),
        "category_ids": list(range(num_classes)),
        "category_names": [f"class {k}" for k in range(num_classes)],
        "run": "0123abcd",
    }
    torch.save(
        {"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}, "queryinst": record, "global_step": 5},
        path,
    )
    return path


def test_a_checkpoint_is_enough_to_build_the_model(tmp_path: Path):
    torch.manual_seed(3)
    path = saved(tmp_path / "best.ckpt")
    checkpoint = load(path)
    model = checkpoint.build()
    assert not model.training
    assert checkpoint.category_names == ["class 0", "class 1", "class 2"]
    torch.manual_seed(3)
    expected = small_model().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x04."], ids=["empty", "damaged", "no pickle"])
def test_damaged_files(tmp_path: Path, content: bytes):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.ckpt cannot be read as a checkpoint"):
        load(path)


def test_missing_and_foreign_files(tmp_path: Path):
    saved(tmp_path / "best.ckpt")
    with pytest.raises(UserError, match=r"no\.ckpt does not exist; .*best\.ckpt"):
        load(tmp_path / "no.ckpt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt is not a checkpoint of queryinst\.train"):
        load(tmp_path / "other.pt")


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_not_run(tmp_path: Path):
    torch.save({"state_dict": Malicious(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="holds more than weights"):
        read(tmp_path / "evil.ckpt")
    assert not (tmp_path / "ran").exists()


def test_classes_of_other_data_are_refused(tmp_path: Path):
    checkpoint = load(saved(tmp_path / "best.ckpt"))
    names = ["class 0", "class 1", "class 2"]
    checkpoint.require_classes([0, 1, 2], names, Path("x.json"))
    with pytest.raises(
        UserError, match=r"was trained on 3 classes \(class 0, class 1, class 2\), but x\.json has 2 \(a, b\)"
    ):
        checkpoint.require_classes([0, 1], ["a", "b"], Path("x.json"))
    with pytest.raises(UserError, match=r"other categories than those of x\.json: 0 there is 1 here"):
        checkpoint.require_classes([1, 2, 3], names, Path("x.json"))
    with pytest.raises(UserError, match=r"other categories than those of x\.json: 'class 1' there is 'class 2' here"):
        checkpoint.require_classes([0, 1, 2], ["class 0", "class 2", "class 1"], Path("x.json"))


def test_fine_tuning_with_the_same_and_with_other_classes(tmp_path: Path):
    path = saved(tmp_path / "best.ckpt")
    same, other = small_model(3), small_model(7)
    assert "class layers" not in start_from(same, ModelConfig(**SMALL), str(path), ["class 0", "class 1", "class 2"])
    sentence = start_from(other, ModelConfig(**SMALL), str(path), [f"other {index}" for index in range(7)])
    assert "4 class layers start fresh (3 classes there, 7 here)" in sentence  # box and mask, two stages
    theirs = load(path).weights
    assert all(torch.equal(value, theirs[name]) for name, value in same.state_dict().items())
    fresh = [name for name, value in other.state_dict().items() if value.shape != theirs[name].shape]
    assert all(torch.equal(value, theirs[name]) for name, value in other.state_dict().items() if name not in fresh)
    assert len(fresh) == 8


def test_association_heads_start_fresh_from_a_detector_and_are_left_out_of_one(tmp_path: Path):
    video = {"association": AssociationConfig("query", 8)}
    names = ["class 0", "class 1", "class 2"]
    detector, tracker = saved(tmp_path / "detector.ckpt"), saved(tmp_path / "tracker.ckpt", **video)
    model = small_model(3, **video)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sentence = start_from(model, ModelConfig(**SMALL, **video), str(detector), names)
    theirs = load(detector).weights
    assert sentence.startswith(f"{len(theirs)} of {len(theirs)} tensors")
    assert sentence.endswith("; the association heads start fresh")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if ".association." in name else theirs[name])
    sentence = start_from(small_model(3), ModelConfig(**SMALL), str(tracker), names)
    assert sentence.startswith(f"{len(theirs)} of {len(before)} tensors")
    assert sentence.endswith("; the association heads are left out")
    sentence = start_from(model, ModelConfig(**SMALL, **video), str(tracker), ["a", "b", "c"])
    assert "association heads" not in sentence
    assert "4 class layers start fresh" in sentence
    plain = {"association": AssociationConfig("plain", 8)}
    with pytest.raises(UserError, match=r"first parameter that differs is stages\.0\.association\.dyn\."):
        start_from(small_model(3, **plain), ModelConfig(**SMALL, **plain), str(tracker), names)
    assert load(tracker).build().associates


@pytest.mark.parametrize("change", [{"num_stages": 3}, {"num_stages": 1}, {"num_proposals": 7}, {"width": 32}])
def test_another_architecture_is_refused(tmp_path: Path, change: dict[str, int]):
    path = saved(tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="has another architecture .*2 stages, 6 proposals, width 16"):
        start_from(
            small_model(3, **change), ModelConfig(**{**SMALL, **change}), str(path), ["class 0", "class 1", "class 2"]
        )


@pytest.mark.parametrize("change", [{"num_heads": 4}, {"mask_resolution": 7}, {"aligned": False}])
def test_what_no_shape_shows_must_be_the_same_too(tmp_path: Path, change: dict[str, Any]):
    path = saved(tmp_path / "best.ckpt")
    with pytest.raises(UserError, match=rf"was trained with model\.{next(iter(change))}="):
        start_from(small_model(3, **change), ModelConfig(**{**SMALL, **change}), str(path), ["a", "b", "c"])


def test_as_many_but_other_classes_start_fresh_too(tmp_path: Path):
    model = small_model(3)
    before = model.stages[0].box.cls.weight.clone()
    sentence = start_from(model, ModelConfig(**SMALL), str(saved(tmp_path / "best.ckpt")), ["cat", "dog", "horse"])
    assert "4 class layers start fresh (3 classes there, 3 here)" in sentence
    assert torch.equal(model.stages[0].box.cls.weight, before)


def test_backbone_weights_of_torchvision(tmp_path: Path):
    theirs = torchvision.models.resnet18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "r18.pth")
    backbone = build_backbone(BackboneConfig(name="resnet18"))
    assert start_backbone(backbone, "resnet18", str(tmp_path / "r18.pth")).startswith("backbone: 120 tensors")
    assert torch.equal(backbone.body.layer4[1].conv2.weight, theirs.layer4[1].conv2.weight)
    with pytest.raises(UserError, match=r"r18\.pth is a resnet18; set backbone=resnet18, or give weights of resnet34"):
        start_backbone(build_backbone(BackboneConfig(name="resnet34")), "resnet34", str(tmp_path / "r18.pth"))
    with pytest.raises(UserError, match=r"there are no weights for backbone\.name=tiny"):
        start_backbone(build_backbone(BackboneConfig(name="tiny")), "tiny", "imagenet")


def test_a_failed_download_says_where_to_get_the_file(monkeypatch: pytest.MonkeyPatch):
    from urllib.error import URLError

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights.IMAGENET1K_V1.__class__, "get_state_dict", refuse)
    with pytest.raises(UserError, match=r"cannot be downloaded .*download\.pytorch\.org.*backbone\.weights=FILE"):
        start_backbone(build_backbone(BackboneConfig(name="resnet18")), "resnet18", "imagenet")


def broken(path: Path, **changes: Any) -> Path:
    """A checkpoint with parts of its content replaced; a key with __ goes into the record."""
    saved(path)
    content = torch.load(path, weights_only=True)
    for key, value in changes.items():
        if key.startswith("record__"):
            content["queryinst"][key.removeprefix("record__")] = value
        else:
            content[key] = value
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"queryinst": {}}, r"is damaged: its record .*KeyError\('config'\)"),
        ({"queryinst": 5}, "is damaged: its record"),
        ({"record__config": {"model": 5}}, "is damaged: its record"),
        ({"record__category_ids": ["x"]}, "is damaged: its record"),
        ({"state_dict": 5}, "is not a checkpoint of queryinst.train"),
        ({"state_dict": {}}, r"lacks \d+ of \d+ tensors: backbone"),
        ({"record__category_ids": [1]}, "1 category ids, 3 names"),
        ({"state_dict": {"model.queries.boxes": torch.tensor([float("nan")])}}, "1 tensors with NaN .*queries.boxes"),
    ],
)
def test_damage_inside_is_a_sentence(tmp_path: Path, changes: dict[str, Any], sentence: str):
    path = broken(tmp_path / "a.ckpt", **changes)
    with pytest.raises(UserError, match=sentence):
        load(path).build()


def test_a_folder_is_no_checkpoint(tmp_path: Path):
    with pytest.raises(UserError, match="is a folder; give a file in it"):
        load(tmp_path)
