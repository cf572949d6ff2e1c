"""Weights of timm and torchvision: every tensor has its place, by whichever kind of file they come."""

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor

from queryinst.checkpoints.library_weights import start_library
from queryinst.checkpoints.load import start_backbone
from queryinst.config import BackboneConfig
from queryinst.errors import UserError
from queryinst.models.backbone import build_backbone
from queryinst.models.library_backbones import LibraryBackbone


def made(name: str, **args: Any) -> LibraryBackbone:
    backbone = build_backbone(BackboneConfig(name=name, args=args, frozen_stages=-1))
    assert isinstance(backbone, LibraryBackbone)
    return backbone


def written(folder: Path, kind: str, state: dict[str, Tensor]) -> str:
    path = folder / f"weights{kind}"
    if kind == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    return str(path)


def whole(name: str, **args: Any) -> dict[str, Tensor]:
    """A state of the library's own network, classifier and all."""
    library, _, word = name.partition(":")
    network = timm.create_model(word, **args) if library == "timm" else torchvision.models.get_model(word)
    return {
        key: torch.rand_like(value) if value.is_floating_point() else value
        for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "name", ["timm:test_vit", "timm:test_convnext", "timm:test_efficientnet", "torchvision:mobilenet_v2"]
)
def test_a_file_of_the_library(name: str, kind: str, tmp_path: Path):
    state, backbone = whole(name), made(name)
    path = written(tmp_path, kind, state)
    said = start_backbone(backbone, name, path)
    loaded = backbone.body.state_dict()
    counted = [key for key in loaded if not key.endswith("num_batches_tracked")]
    assert said == f"backbone: {len(counted)} tensors from {path} ({name})"
    assert len(loaded) < len(state), "the classifier is left out"
    for key in counted:
        assert torch.equal(loaded[key], state[key]), key


def test_positions_and_patches_of_another_size_are_resampled(tmp_path: Path):
    """As many positions, whatever the image that a file was made for; patches of 14 pixels become 16."""
    state = whole("timm:test_vit", img_size=224, patch_size=14)
    backbone = made("timm:test_vit")
    start_library(backbone, written(tmp_path, ".safetensors", state))
    loaded = backbone.body.state_dict()
    assert state["pos_embed"].shape == (1, 257, 64)
    expected = timm.layers.resample_abs_pos_embed(state["pos_embed"], [10, 10])
    torch.testing.assert_close(loaded["pos_embed"], expected)
    assert loaded["patch_embed.proj.weight"].shape == (64, 3, 16, 16)
    assert torch.equal(loaded["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"blocks.5.norm1.weight": None}, "lacks 1 of 76 tensors: blocks.5.norm1.weight"),
        (
            {"blocks.6.norm1.weight": torch.ones(64)},
            "has beyond the architecture 1 of 76 tensors: blocks.6.norm1.weight",
        ),
        ({"blocks.5.norm1.weight": torch.ones(65)}, "has in another shape 1 of 76 tensors: blocks.5.norm1.weight"),
        ({"blocks.5.norm1.weight": torch.full((64,), torch.nan)}, "blocks.5.norm1.weight has NaN or infinite values"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(
    change: dict[str, Tensor | None], sentence: str, tmp_path: Path
):
    state = {name: value for name, value in (whole("timm:test_vit") | change).items() if value is not None}
    backbone = made("timm:test_vit")
    before = backbone.body.blocks[0].attn.qkv.weight.clone()
    with pytest.raises(UserError, match=sentence):
        start_library(backbone, written(tmp_path, ".safetensors", state))
    assert torch.equal(backbone.body.blocks[0].attn.qkv.weight, before)


def test_a_file_of_another_network_is_one_sentence(tmp_path: Path):
    path = written(tmp_path, ".pth", whole("torchvision:mobilenet_v2"))
    for name in ("timm:test_vit", "timm:test_convnext", "torchvision:resnet18"):
        with pytest.raises(UserError, match=r"weights.pth (lacks|has|is)"):
            start_library(made(name), path)


@pytest.mark.parametrize(
    ("name", "word", "sentence"),
    [
        ("timm:test_vit", "imagenet", "the weights of timm:test_vit are called 'timm'"),
        ("torchvision:resnet18", "timm", "the weights of torchvision:resnet18 are called 'imagenet'"),
        ("torchvision:resnet18", "none.pth", "none.pth does not exist"),
        ("timm:test_vit", "none.safetensors", "none.safetensors does not exist"),
    ],
)
def test_words_that_mean_nothing(name: str, word: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        start_library(made(name), word)


def test_a_download_is_the_librarys_own_and_a_failed_one_says_where_to_look(monkeypatch: pytest.MonkeyPatch):
    asked, create = [], timm.create_model

    def give(name: str, pretrained: bool, **settings: Any) -> Any:
        asked.append((name, pretrained))
        if pretrained and len(asked) > 4:
            raise OSError("no route to host")
        network = create(name, pretrained=False, **settings)
        if pretrained:
            torch.nn.init.constant_(network.cls_token, 7.0)
        return network

    monkeypatch.setattr(timm, "create_model", give)
    backbone = made("timm:test_vit.r160_in1k")
    assert start_library(backbone, "timm") == "backbone: 76 tensors from timm (timm:test_vit.r160_in1k)"
    assert asked[:3] == [("test_vit.r160_in1k", False), ("test_vit.r160_in1k", False), ("test_vit.r160_in1k", True)]
    assert set(backbone.body.cls_token.flatten().tolist()) == {7.0}
    with pytest.raises(
        UserError, match="cannot be had .OSError: no route.* fetch those of timm/test_vit.r160_in1k elsewhere"
    ):
        start_library(backbone, "timm")
