"""Starting from weights: every sentence that is said, and which tensors are taken."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from conftest import SMALL, small_model
from test_load import saved

from queryinst.checkpoints.load import load, start_backbone, start_from
from queryinst.checkpoints.read import write_safetensors
from queryinst.config import BackboneConfig, ModelConfig
from queryinst.errors import UserError
from queryinst.models.backbone import build_backbone
from queryinst.video_config import AssociationConfig

NAMES = ["class 0", "class 1", "class 2"]


def said(path: Path, names: list[str], **settings: Any) -> str:
    """What starting from `path` with these classes and settings says, or its mistake."""
    try:
        return start_from(small_model(len(names), **settings), ModelConfig(**{**SMALL, **settings}), str(path), names)
    except UserError as error:
        return f"error: {error}"


def test_what_is_said_of_weights(tmp_path: Path):
    detector, tracker = (
        saved(tmp_path / "a.ckpt"),
        saved(tmp_path / "b.ckpt", association=AssociationConfig("query", 8)),
    )
    video = {"association": AssociationConfig("query", 8)}
    few, many = len(load(detector).weights), len(load(tracker).weights)
    other = [f"other {k}" for k in range(7)]
    fresh = "4 class layers start fresh"
    assert said(detector, NAMES) == f"{few} of {few} tensors from {detector}"
    assert said(detector, other) == f"{few - 8} of {few} tensors from {detector}; {fresh} (3 classes there, 7 here)"
    assert said(detector, other[:3]) == f"{few - 8} of {few} tensors from {detector}; {fresh} (3 classes there, 3 here)"
    assert (
        said(detector, NAMES, **video) == f"{few} of {few} tensors from {detector}; the association heads start fresh"
    )
    assert said(tracker, NAMES) == f"{few} of {many} tensors from {tracker}; the association heads are left out"
    assert said(tracker, NAMES, **video) == f"{many} of {many} tensors from {tracker}"
    assert said(tracker, other) == (
        f"{few - 8} of {many} tensors from {tracker}; the association heads are left out; {fresh} "
        "(3 classes there, 7 here)"
    )


def test_what_differs_is_one_sentence(tmp_path: Path):
    path = saved(tmp_path / "a.ckpt")
    start = f"error: weights={path} has another architecture (tiny, 2 stages, 6 proposals, width 16); the first "
    for change, name in (
        ({"num_stages": 3}, "stages.2.box.attn.in_proj_weight"),
        ({"num_stages": 1}, "stages.1.box.attn.in_proj_weight"),
        ({"num_proposals": 7}, "queries.boxes"),
        ({"width": 32}, "neck.lateral.0.weight"),
    ):
        said_of_it = said(path, NAMES, **change)
        assert said_of_it == f"{start}parameter that differs is {name}: set backbone and model to the same"
    for name, here, there in (("num_heads", 4, 2), ("mask_resolution", 7, 14), ("aligned", False, True)):
        assert said(path, NAMES, **{name: here}) == (
            f"error: weights={path} was trained with model.{name}={there}, not {here}: set it to the same"
        )


def test_class_layers_stay_as_they_were_and_all_else_is_theirs(tmp_path: Path):
    path = saved(tmp_path / "a.ckpt")
    theirs = load(path).weights
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start_from(model, ModelConfig(**SMALL), str(path), ["a", "b", "c"])
    kept = {name for name, value in model.state_dict().items() if not torch.equal(value, theirs[name])}
    layers = [f"stages.{k}.{layer}.weight" for k in range(2) for layer in ("box.cls", "mask.logits")]
    assert kept == set(layers), "biases are equal at the start"
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in kept)


def test_what_is_said_of_a_backbone(tmp_path: Path):
    state = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(state, tmp_path / "a.pth")
    ours = {f"body.{name}": value for name, value in state.items() if not name.startswith("fc.")}
    write_safetensors(tmp_path / "b.safetensors", ours, {"kind": "backbone", "name": "resnet18"})
    write_safetensors(tmp_path / "c.safetensors", ours, {"kind": "model"})
    write_safetensors(tmp_path / "d.safetensors", ours, {"name": "resnet18"})
    write_safetensors(tmp_path / "e.safetensors", ours, {"kind": "backbone", "name": "resnet34"})
    write_safetensors(tmp_path / "g.safetensors", ours, {})
    del ours["body.bn1.bias"]
    write_safetensors(tmp_path / "f.safetensors", ours, {"kind": "backbone", "name": "resnet18"})
    where = f"backbone.weights={tmp_path}"

    def of(file: str) -> str:
        backbone = build_backbone(BackboneConfig(name="resnet18"))
        try:
            sentence = start_backbone(backbone, "resnet18", str(tmp_path / file))
        except UserError as error:
            return f"error: {error}"
        found = backbone.state_dict()
        assert all(torch.equal(value, found[f"body.{name}"]) for name, value in state.items() if name[:3] != "fc.")
        return sentence

    assert of("a.pth") == f"backbone: 120 tensors from {tmp_path / 'a.pth'} (a ResNet of torchvision)"
    assert of("b.safetensors") == f"backbone: 120 tensors from {tmp_path / 'b.safetensors'} (converted)"
    assert of("c.safetensors") == f"error: {where}/c.safetensors is a model, not the backbone resnet18"
    assert (
        of("d.safetensors") == f"error: {where}/d.safetensors is a file of others resnet18, not the backbone resnet18"
    )
    assert of("e.safetensors") == f"error: {where}/e.safetensors is a backbone resnet34, not the backbone resnet18"
    torch.save({"x": torch.ones(1)}, tmp_path / "h.pth")
    assert of("h.pth").startswith(
        f"error: {where}/h.pth holds no weights that queryinst knows (it has 1 tensors, first x)"
    )
    assert of("g.safetensors") == f"error: {where}/g.safetensors is a file of others, not the backbone resnet18"
    assert of("f.safetensors") == f"error: {where}/f.safetensors lacks 1 of 120 tensors: body.bn1.bias"


def test_output_norms_of_a_backbone_may_be_missing_all_together(tmp_path: Path):
    """Classifiers have none: those of a Swin stay as they are."""
    path, backbone = tmp_path / "a.safetensors", torch.nn.Module()
    backbone.body, backbone.out_norms = torch.nn.Linear(2, 3), torch.nn.ModuleList([torch.nn.LayerNorm(3)])
    weights = {"body.weight": torch.ones(3, 2), "body.bias": torch.full((3,), 2.0)}
    write_safetensors(path, weights, {"kind": "backbone", "name": "x"})
    assert start_backbone(backbone, "x", str(path)) == f"backbone: 2 tensors from {path} (converted)"
    assert (backbone.body.weight == 1).all()
    assert (backbone.body.bias == 2).all()
    weights["out_norms.0.weight"] = torch.full((3,), 3.0)
    write_safetensors(path, weights, {"kind": "backbone", "name": "x"})
    with pytest.raises(UserError) as caught:
        start_backbone(backbone, "x", str(path))
    assert str(caught.value) == f"backbone.weights={path} lacks 1 of 4 tensors: out_norms.0.bias"


def test_a_backbone_that_has_no_weights():
    for name, sentence in (
        ("tiny", "backbone.weights=imagenet: there are no weights for backbone.name=tiny; leave it empty"),
        (
            "swin_l",
            "torchvision has no ImageNet weights for backbone.name=swin_l; give backbone.weights=FILE, Microsoft's say",
        ),
    ):
        with pytest.raises(UserError) as caught:
            start_backbone(torch.nn.Identity(), name, "imagenet")
        assert str(caught.value) == sentence


def test_imagenet_weights_are_torchvision_s_first(monkeypatch: pytest.MonkeyPatch):
    weights, state = torchvision.models.ResNet18_Weights, torchvision.models.resnet18(weights=None).state_dict()
    asked = []

    def download(one: Any, **options: Any) -> dict[str, torch.Tensor]:
        asked.append((one, options))
        return state

    monkeypatch.setattr(weights, "get_state_dict", download)
    backbone = build_backbone(BackboneConfig(name="resnet18"))
    sentence = start_backbone(backbone, "resnet18", "imagenet")
    assert sentence == "backbone: 120 tensors from imagenet (a ResNet of torchvision)"
    assert torch.equal(backbone.state_dict()["body.layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert asked == [(weights.IMAGENET1K_V1, {"progress": True})]


def test_a_download_that_fails_names_the_address(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise URLError("no route")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", refuse)
    with pytest.raises(UserError) as caught:
        start_backbone(torch.nn.Identity(), "resnet18", "imagenet")
    assert str(caught.value) == (
        "the ImageNet weights of resnet18 cannot be downloaded (<urlopen error no route>): fetch "
        "https://download.pytorch.org/models/resnet18-f37072fd.pth elsewhere and set backbone.weights=FILE"
    )


def test_a_backbone_that_lacks_a_tensor_is_named_with_its_file(tmp_path: Path):
    path = tmp_path / "weights.pth"
    state = torchvision.models.resnet18().state_dict()
    del state["layer1.0.bn1.weight"]
    torch.save(dict(state), path)
    sentence = rf"^backbone\.weights={path} lacks 1 of \d+ tensors: body\.layer1\.0\.bn1\.weight$"
    with pytest.raises(UserError, match=sentence):
        start_backbone(build_backbone(BackboneConfig(name="resnet18")), "resnet18", str(path))
