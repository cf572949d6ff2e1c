"""From a file's tensors to ours: what each kind of file is recognised by, what is dropped, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from queryinst.checkpoints.convert import (
    ORIGINS,
    backbone_of,
    backbone_weights,
    complete,
    model_of,
    named_tensors,
    some,
    translate,
)
from queryinst.checkpoints.keymap import MICROSOFT_BACKBONE, MMDET, PADDLE, PADDLE_BACKBONE, TORCHVISION_BACKBONE
from queryinst.config import BackboneConfig, ModelConfig
from queryinst.errors import UserError
from queryinst.models.backbone import SWINS, build_backbone
from queryinst.models.queryinst import QueryInst

A = torch.arange(6.0).view(2, 3)


def mistake(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    return str(caught.value)


def test_names_and_transposes():
    for names, theirs, expected in (
        (MMDET, "roi_head.bbox_head.3.cls_fcs.4.bias", ("stages.3.box.cls_tower.1.norm.bias", False)),
        (MMDET, "roi_head.mask_head.19.convs.3.bn.running_var", ("stages.19.mask.convs.3.bn.running_var", False)),
        (MMDET, "roi_head.bbox_head.20.fc_cls.weight", None),
        (MMDET, "neck.fpn_convs.2.conv.weight", ("neck.output.2.weight", False)),
        (MMDET, "backbone.layer3.22.bn2.weight", ("backbone.body.layer3.22.bn2.weight", False)),
        (MMDET, "backbone.layers.2.downsample.norm.bias", ("backbone.body.features.6.norm.bias", False)),
        (PADDLE, "neck.fpn_res4_sum.weight", ("neck.output.2.weight", False)),
        (PADDLE, "roi_head.bbox_heads.0.attention.in_proj_weight", ("stages.0.box.attn.in_proj_weight", True)),
        (PADDLE, "roi_head.bbox_heads.0.attention.in_proj_bias", ("stages.0.box.attn.in_proj_bias", False)),
        (PADDLE, "roi_head.bbox_heads.0.reg_fcs.6.weight", ("stages.0.box.reg_tower.2.fc.weight", True)),
        (PADDLE, "roi_head.mask_heads.1.convs.2.1._mean", ("stages.1.mask.convs.2.bn.running_mean", False)),
        (PADDLE, "roi_head.mask_heads.1.convs.2.1._variance", ("stages.1.mask.convs.2.bn.running_var", False)),
        (PADDLE, "roi_head.mask_heads.1.conv_cls.weight", ("stages.1.mask.logits.weight", False)),
        (PADDLE_BACKBONE, "res4.res4b22.branch2c.norm._mean", ("body.layer3.22.bn3.running_mean", False)),
        (PADDLE_BACKBONE, "res5.res5c.branch2a.conv.weight", ("body.layer4.2.conv1.weight", False)),
        (PADDLE_BACKBONE, "res2.res2a.short.norm.bias", ("body.layer1.0.downsample.1.bias", False)),
        (TORCHVISION_BACKBONE, "features.5.3.mlp.3.bias", ("body.features.5.3.mlp.3.bias", False)),
        (TORCHVISION_BACKBONE, "norm0.weight", None),
        (MICROSOFT_BACKBONE, "layers.2.blocks.5.mlp.fc2.bias", ("body.features.5.5.mlp.3.bias", False)),
        (MICROSOFT_BACKBONE, "norm3.weight", ("out_norms.3.weight", False)),
        (MICROSOFT_BACKBONE, "", None),
    ):
        assert names.translate(theirs) == expected


@pytest.mark.parametrize("origin", ORIGINS, ids=lambda origin: origin.label)
def test_each_kind_is_recognised_by_its_sign(origin: Any):
    found = translate({origin.sign: A}, "a.pth")
    assert found.origin is origin
    name, transposed = origin.names.translate(origin.sign)
    if name.endswith(".mask.convs.0.conv.bias"):
        assert torch.equal(found.weights[name], A), "without a mean to move it stays, and is found to be too many"
    assert list(found.weights) == [name]
    assert torch.equal(found.weights[name], A.T if transposed else A)
    assert found.weights[name].is_contiguous()
    assert (found.weights[name].dtype, found.ignored) == (torch.float32, [])


def test_what_is_no_weight_is_ignored_by_name():
    beside = ["layer1.0.bn1.num_batches_tracked", "x.relative_position_index", "y.attn_mask", "ema_conv1_weight"]
    found = translate({"layer1.0.conv1.weight": A, "fc.weight": A, **dict.fromkeys(beside, A)}, "a.pth")
    assert found.ignored == ["fc.weight", *beside]
    assert list(found.weights) == ["body.layer1.0.conv1.weight"]
    swin = translate({"patch_embed.proj.weight": A, "head.weight": A, "norm.bias": A, "norm1.bias": A}, "a.pth")
    assert swin.ignored == ["head.weight", "norm.bias"]
    assert list(swin.weights) == ["body.features.0.0.weight", "out_norms.1.bias"]


def test_what_cannot_be_translated_is_one_sentence():
    known = (
        "known are our own checkpoints and those of PaddleDetection, hustvl/QueryInst, MMDetection, a backbone of "
        "PaddleDetection, a Swin in Microsoft's names, a ResNet of torchvision, a Swin of torchvision"
    )
    start = "a.pth holds no weights that queryinst knows (it has "
    assert mistake(translate, {}, "a.pth") == f"{start}0 tensors); {known}"
    assert mistake(translate, 5, "a.pth") == f"{start}0 tensors); {known}"
    assert mistake(translate, {"x": A, "y": A}, "a.pth") == f"{start}2 tensors, first x); {known}"
    state = {"layer1.0.conv1.weight": A} | {f"x{k}": A for k in range(7)}
    assert mistake(translate, state, "a.pth") == (
        "a.pth looks like a ResNet of torchvision, but 7 of its 8 tensors have no place in QueryInst: "
        "x0, x1, x2, x3, x4 and 2 more"
    )
    paddle = {"res2.res2a.branch2a.conv.weight": A, "res4.res4b.branch2a.conv.weight": A}
    paddle["res4.res4b1.branch2a.conv.weight"] = A
    assert mistake(translate, paddle, "a.pth") == (
        "a.pth has res4.res4b1.branch2a.conv.weight and another tensor that are both body.layer3.1.conv1.weight of "
        "QueryInst"
    )


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (A.int(), "is torch.int32 of shape [2, 3], not an array of numbers of its own"),
        (A.to_sparse(), "is torch.float32 of shape [2, 3], not an array of numbers of its own"),
        (A.to("meta"), "is torch.float32 of shape [2, 3], not an array of numbers of its own"),
        (torch.zeros(3).expand(9, 3), "is torch.float32 of shape [9, 3], not an array of numbers of its own"),
        (A / 0, "has NaN or infinite values; the training that wrote it had failed"),
    ],
    ids=["integers", "sparse", "elsewhere", "expanded", "not finite"],
)
def test_a_weight_is_finite_numbers_of_its_own(value: Tensor, sentence: str):
    name = "layer1.0.conv1.weight"
    assert mistake(translate, {name: value}, "a.pth") == f"a.pth: {name} {sentence}"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype: torch.dtype):
    found = translate({"layer1.0.conv1.weight": A.to(dtype)}, "a.pth").weights["body.layer1.0.conv1.weight"]
    assert found.dtype == torch.float32
    assert torch.equal(found, A)


def test_bits_of_bfloat16_are_numbers():
    bits = A.bfloat16().view(torch.uint16)
    assert torch.equal(translate({"layer1.0.conv1.weight": bits}, "a").weights["body.layer1.0.conv1.weight"], A)


def test_wrappers_and_arrays_are_taken_off():
    for content in (
        {"a": A, "b": A},
        {"state_dict": {"a": A, "b": A}, "c": A},
        {"model": {"a": A, "b": A}},
        {"state_dict": {"model": {"a": A, "b": A}}},
        {"module.a": A, "module.b": A},
        {"module.module.model.backbone.a": A, "module.module.model.backbone.b": A},
        {"a": A.numpy(), "b": ("its name", A.numpy()), "n": "text", 5: A, "f": None, "o": np.array(["x"])},
    ):
        found = named_tensors(content)
        assert list(found) == ["a", "b"]
        assert all(torch.equal(value, A) for value in found.values())
    assert list(named_tensors({"module.a": A, "b": A})) == ["module.a", "b"]
    assert list(named_tensors({"backbone.module.a": A})) == ["module.a"]
    for scalar in (np.float32(2), np.int64(2), np.uint8(2), np.bool_(True)):
        assert named_tensors({"a": scalar})["a"].item() == scalar
    three = {"a": (A, A, A), "b": [A, A], "state_dict": 5}
    assert named_tensors(three) == {}
    array = np.zeros(2)
    array.flags.writeable = False
    assert named_tensors({"a": array})["a"].add_(1).tolist() == [1, 1], "a copy, which may be written to"


def test_a_bias_before_batchnorm_moves_the_running_mean():
    convolution, mean = "roi_head.mask_head.{}.convs.1.conv.bias", "roi_head.mask_head.{}.convs.1.bn.running_mean"
    state = {"roi_head.mask_head.0.convs.0.conv.bias": A[0], "neck.fpn_convs.0.conv.bias": A[1]}
    state |= {convolution.format(2): A[0], mean.format(2): A[1], convolution.format(3): A[1], mean.format(4): A[0]}
    weights = translate(state, "a.pth").weights
    moved = "stages.{}.mask.convs.1.{}"
    assert {name: value.tolist() for name, value in weights.items()} == {
        "stages.0.mask.convs.0.conv.bias": [0, 1, 2],
        "neck.output.0.bias": [3, 4, 5],
        moved.format(2, "bn.running_mean"): [3, 3, 3],
        moved.format(3, "conv.bias"): [3, 4, 5],
        moved.format(4, "bn.running_mean"): [0, 1, 2],
    }


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101", *SWINS])
def test_a_backbone_is_known_by_its_weights(name: str):
    with torch.device("meta"):
        state = build_backbone(BackboneConfig(name=name)).state_dict()
    assert backbone_of(state) == BackboneConfig(name=name)
    block = "body.features.5.0." if name in SWINS else "body.layer3.0."
    fewer = {key: value for key, value in state.items() if not key.startswith(block)}
    names = ", ".join(SWINS) if name in SWINS else "resnet18, resnet34, resnet50, resnet101"
    depths = {"resnet18": "2, 2, 1, 2", "resnet34": "3, 4, 5, 3", "resnet50": "3, 4, 5, 3", "resnet101": "3, 4, 22, 3"}
    depth = depths.get(name, "2, 2, 5, 2" if name == "swin_t" else "2, 2, 17, 2")
    assert mistake(backbone_of, fewer) == (
        f"the file's backbone has stages of [{depth}] blocks, which is none of {names} of queryinst"
    )


ODD = ModelConfig(
    num_proposals=5,
    num_stages=3,
    width=24,
    dynamic_width=7,
    ffn_width=9,
    classification_layers=2,
    regression_layers=4,
    mask_convs=3,
    box_resolution=6,
)


def odd_state(config: ModelConfig = ODD, classes: int = 11) -> dict[str, Tensor]:
    with torch.device("meta"):
        return QueryInst(config, BackboneConfig(name="tiny"), classes).state_dict()


def test_the_architecture_follows_from_the_shapes():
    assert model_of(odd_state()) == (ODD, 11)


def test_shapes_of_no_network_are_one_sentence():
    incomplete = "the file's weights are not complete: {} (our name) is missing"
    for name in ("queries.features", "stages.0.box.dyn.params.weight", "stages.0.box.cls.weight"):
        state = odd_state()
        del state[name]
        assert mistake(model_of, state) == incomplete.format(name)
    wrong = "the file's weights have shapes that no QueryInst has: "
    assert mistake(model_of, odd_state(replace(ODD, width=20, num_heads=4))) == f"{wrong}8 heads do not divide width 20"
    state = odd_state()
    state["queries.features"] = torch.zeros(5)
    assert mistake(model_of, state) == f"{wrong}not enough values to unpack (expected 2, got 1)"
    state["queries.features"] = torch.zeros(5, 0)
    assert mistake(model_of, state) == f"{wrong}integer division or modulo by zero"
    state["queries.features"] = torch.zeros(0, 24)
    assert mistake(model_of, state) == "num_proposals must be at least 1; got 0 (learnable queries per image (N))"


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)


def test_complete_is_exactly_what_the_model_needs():
    model = Two()
    weights = {name: torch.full_like(value, 7) for name, value in model.state_dict().items()}
    assert complete(weights, model, "a.pth") == weights
    derived = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    found = complete(derived, model, "a.pth")
    assert list(found) == list(weights)
    assert found["b.num_batches_tracked"].item() == 0
    without = {name: value for name, value in weights.items() if not name.startswith("out.")}
    assert complete(without, model, "a.pth", fresh=("out.", "more.")) == without
    assert list(complete(weights, model, "a.pth", fresh=("out.",))) == list(weights)


def test_complete_names_what_is_not():
    model = Two()
    weights = {name: torch.full_like(value, 7) for name, value in model.state_dict().items()}
    without = {name: value for name, value in weights.items() if not name.startswith("out.")}
    assert mistake(complete, without, model, "a.pth") == "a.pth lacks 2 of 9 tensors: out.weight, out.bias"
    del weights["out.bias"]
    assert mistake(complete, weights, model, "a.pth", ("out.",)) == "a.pth lacks 1 of 9 tensors: out.bias"
    more = without | {f"x{k}": A for k in range(6)}
    assert mistake(complete, more, model, "a.pth", ("out.",)) == (
        "a.pth has beyond the architecture 6 of 7 tensors: x0, x1, x2, x3, x4 and 1 more"
    )
    shapes = without | {"a.bias": torch.zeros(3), "b.weight": torch.zeros(2, 1)}
    assert mistake(complete, shapes, model, "a.pth", ("out.",)) == (
        "a.pth has in another shape 2 of 7 tensors: a.bias, b.weight"
    )


def test_a_backbone_s_weights_are_those_of_one_backbone(tmp_path: Path):
    state = build_backbone(BackboneConfig(name="resnet18")).state_dict()
    theirs = {name.removeprefix("body."): value for name, value in state.items()}
    found = backbone_weights(translate(theirs, "a.pth"), "resnet18", "a.pth")
    assert list(found) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in found.items())
    assert mistake(backbone_weights, translate(theirs, "a.pth"), "swin_t", "a.pth") == (
        "a.pth is a resnet18; set backbone=resnet18, or give weights of swin_t"
    )
    whole = translate({"roi_head.bbox_head.0.fc_cls.weight": A}, "a.pth")
    assert mistake(backbone_weights, whole, "resnet18", "a.pth") == (
        "a.pth is a whole model of MMDetection, not a backbone: convert it, and give weights="
    )


def test_a_list_of_names_ends_after_five():
    assert [some("abcdefg"[:number]) for number in (0, 1, 5, 6, 7)] == [
        "",
        "a",
        "a, b, c, d, e",
        "a, b, c, d, e and 1 more",
        "a, b, c, d, e and 2 more",
    ]
