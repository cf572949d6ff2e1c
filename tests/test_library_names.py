"""What a name or a setting of a library's network may be: nothing in it reaches files, the network or code."""

import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torchvision

from queryinst.checkpoints.load import load
from queryinst.checkpoints.read import read_safetensors
from queryinst.config import BackboneConfig, TrainConfig
from queryinst.errors import UserError
from queryinst.library_names import check_library, library_of
from queryinst.models.backbone import build_backbone
from queryinst.part_config import Used
from queryinst.slots import check_parts


def part(name: str, **args: Any) -> Used:
    return Used("backbone", "backbone", name, args)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "timm:hf-hub:timm/resnet18",
            "timm:hf_hub:x",
            "timm:local-dir:weights",
            "timm:a/b",
            "timm:..",
            "timm:.x",
            "timm:",
        ),
        *(
            "timm",
            "timm:a b",
            "timm:résnet",
            "timm:resnet18\n",
            "torchvision:/etc/passwd",
            "torchvision:a-b",
            "timm:a\\b",
        ),
    ],
)
def test_a_name_is_no_place(name: str):
    with pytest.raises(UserError, match="by its name, letters, digits, _ and . only; got "):
        check_library(part(name))
    with pytest.raises(UserError):
        build_backbone(BackboneConfig(name=name))


@pytest.mark.parametrize(
    "setting",
    [
        *(
            "pretrained",
            "pretrained_cfg",
            "pretrained_cfg_overlay",
            "pretrained_strict",
            "pretrained_model_args",
            "weights",
        ),
        *("checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "features_only", "out_indices"),
        *(
            "feature_cls",
            "feature_cfg",
            "model_cfg",
            "kwargs_filter",
            "in_chans",
            "num_classes",
            "output_fmt",
            "device",
        ),
        *("device", "dtype", "pruned", "progress", "weights_backbone", "__class__", "_x", "Depth", "a-b"),
    ],
)
def test_a_setting_is_none_of_these(setting: str):
    with pytest.raises(UserError, match="is no setting of a network that may be given here"):
        check_library(part("timm:test_vit", **{setting: 1}))


@pytest.mark.parametrize(
    "value", [None, {}, {"a": 1}, "a/b", "a\\b", "http:x", "", "..", "a b", [["a"]], [{}], ["a", "b/c"]]
)
def test_a_value_is_a_number_or_a_word(value: Any):
    with pytest.raises(UserError, match="backbone.args.depth takes numbers and words, or a list of them"):
        check_library(part("timm:test_vit", depth=value))


def test_what_is_said_elsewhere_is_named():
    for setting, place in (("drop_path_rate", "drop_path"), ("stochastic_depth_prob", "drop_path")):
        with pytest.raises(UserError, match=f"backbone.args.{setting}: write backbone.{place} for it"):
            check_library(part("timm:test_vit", **{setting: 0.1}))


def test_plain_settings_pass():
    check_library(part("timm:test_vit.r160_in1k", depth=3, qkv_bias=False, act_layer="gelu", x=[1, 2.5], y="same-1.0"))
    assert library_of("timm:x") == "timm"
    assert library_of("torchvision:x") == "torchvision"
    assert [library_of(name) for name in ("timm", "resnet18", "my_timm:x", "")] == [""] * 4


def test_without_timm_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "timm" else find(name, *rest))
    config = TrainConfig(backbone=BackboneConfig(name="timm:test_vit"))
    with pytest.raises(UserError, match=r"needs timm, which is not installed: pip install 'queryinst\[timm\]'$"):
        check_parts(config)
    check_parts(TrainConfig(backbone=BackboneConfig(name="torchvision:resnet18")))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("timm:hf-hub:timm/resnet18", {}),
        ("timm:local-dir:weights", {}),
        ("timm:test_vit", {"checkpoint_path": "weights.pth"}),
        ("timm:test_vit", {"pretrained": True}),
        ("timm:test_vit", {"pretrained_cfg_overlay": {"file": "weights.pth"}}),
        ("torchvision:resnet18", {"weights": "IMAGENET1K_V1"}),
        ("torchvision:fasterrcnn_resnet50_fpn", {}),
    ],
)
def test_a_hostile_checkpoint_reaches_neither_file_nor_network(
    name: str, args: dict[str, Any], untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tensors, record = read_safetensors(untrained)
    record["config"]["backbone"] |= {"name": name, "args": args}
    path = tmp_path / "hostile.safetensors"
    safetensors.torch.save_file(tensors, path, {"queryinst": json.dumps(record)})
    asked: list[Any] = []
    monkeypatch.setattr(timm, "create_model", lambda *given, **settings: asked.append(given))
    monkeypatch.setattr(torchvision.models, "get_model", lambda *given, **settings: asked.append(given))
    monkeypatch.setattr(socket.socket, "connect", lambda *given: asked.append(given))
    with pytest.raises(UserError):
        load(path).build()
    assert not asked
