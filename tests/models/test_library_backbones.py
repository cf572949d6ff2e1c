"""Networks of timm and torchvision as backbones: their own maps, what is added, and what of them trains."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from test_deploy import look, with_statistics
from torch import Tensor, nn

from queryinst.config import BackboneConfig, ModelConfig
from queryinst.errors import UserError
from queryinst.models.backbone import build_backbone
from queryinst.models.deploy import deploy
from queryinst.models.library_backbones import LibraryBackbone
from queryinst.models.packed import pack
from queryinst.models.queryinst import QueryInst
from queryinst.models.simple_pyramid import MapNorm
from queryinst.models.timm_backbone import network

NAMES = ("timm:test_vit", "timm:test_convnext", "timm:test_efficientnet", "torchvision:mobilenet_v2")


def made(name: str, args: dict[str, Any] | None = None, **settings: Any) -> LibraryBackbone:
    backbone = build_backbone(BackboneConfig(name=name, args=args or {}, **{"frozen_stages": -1, **settings}))
    assert isinstance(backbone, LibraryBackbone)
    return backbone


@pytest.mark.parametrize(
    "name", [*NAMES, "timm:convnextv2_atto", "timm:swin_tiny_patch4_window7_224", "torchvision:swin_t"]
)
def test_four_maps_of_images_of_any_size(name: str):
    backbone = made(name).eval()
    for height, width in ((32, 32), (64, 96), (256, 32)):
        maps = backbone(torch.randn(2, 3, height, width))
        assert [tuple(features.shape) for features in maps] == [
            (2, channels, height // stride, width // stride)
            for channels, stride in zip(backbone.channels, (4, 8, 16, 32), strict=True)
        ]


CHANNELS = {
    "torchvision:mobilenet_v2": (24, 32, 96, 1280),
    "torchvision:resnet18": (64, 128, 256, 512),
    "torchvision:convnext_tiny": (96, 192, 384, 768),
    "torchvision:efficientnet_b0": (24, 40, 112, 1280),
    "torchvision:swin_t": (96, 192, 384, 768),
    "timm:convnextv2_tiny": (96, 192, 384, 768),
    "timm:efficientnet_b0": (24, 40, 112, 320),
    "timm:mobilenetv2_100": (24, 32, 96, 320),
    "timm:vit_small_patch16_dinov3": (96, 192, 384, 384),
    "timm:vit_small_patch14_dinov2": (96, 192, 384, 384),
    "timm:vit_small_patch32_224": (48, 96, 192, 384),
    "timm:efficientvit_m0": (16, 32, 64, 128),  # maps at strides 16, 32 and 64
    "timm:xcit_nano_12_p8_224": (64, 128, 128, 128),  # one at stride 8
}


@pytest.mark.parametrize("name", CHANNELS)
def test_channels(name: str):
    """Of the last map of each stride; finer ones that are missing halve them, coarser ones keep them."""
    assert made(name).channels == CHANNELS[name]


def kernels(backbone: LibraryBackbone) -> list[str]:
    return [" ".join(type(layer).__name__ for layer in step.modules()) for step in backbone.pyramid.steps]


def test_what_is_missing_is_made_of_the_nearest_map():
    up = "Sequential ConvTranspose2d"
    vit, efficientvit = made("timm:test_vit"), made("timm:efficientvit_m0")
    assert kernels(vit) == [f"{up} MapNorm GELU ConvTranspose2d", up, "Identity", "Sequential MaxPool2d"]
    assert kernels(efficientvit) == [f"{up} MapNorm GELU ConvTranspose2d", up, "Identity", "Identity"]
    assert kernels(made("timm:test_convnext")) == ["Identity"] * 4
    x = torch.randn(1, 3, 64, 64)
    third, fourth = vit.eval()(x)[2:]
    torch.testing.assert_close(fourth, nn.functional.max_pool2d(third, 2))


def test_a_norm_of_a_map_is_that_of_its_channels():
    x, norm = torch.randn(2, 6, 3, 5), MapNorm(6)
    nn.init.normal_(norm.weight)
    expected = nn.functional.layer_norm(x.permute(0, 2, 3, 1), (6,), norm.weight, norm.bias).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm(x), expected)


def normalised(image: Tensor, mean: Any, std: Any) -> Tensor:
    return (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "mobilenetv3_small_050", "test_convnext"])
def test_maps_are_timms_own_on_images_as_it_wants_them(name: str):
    """`features_only`, with the same weights, and the image normalised by the mean and deviation of its own recipe."""
    backbone = made(f"timm:{name}").eval()
    theirs = timm.create_model(name, features_only=True).eval()
    strides = theirs.feature_info.reduction()
    flat = {key.replace(".", "").replace("_", ""): value for key, value in backbone.body.state_dict().items()}
    theirs.load_state_dict({key: flat[key.replace(".", "").replace("_", "")] for key in theirs.state_dict()})
    image, cfg = torch.rand(1, 3, 64, 96), backbone.body.pretrained_cfg
    expected = [
        features
        for features, stride in zip(theirs(normalised(image, cfg["mean"], cfg["std"])), strides, strict=True)
        if stride >= 4
    ]
    if name in ("test_efficientnet", "mobilenetv3_small_050"):  # ImageNet's own numbers: nothing is changed
        assert backbone.scale.tolist() == [1, 1, 1]
        assert backbone.shift.tolist() == [0, 0, 0]
    maps = backbone(normalised(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for ours, plain, norm in zip(maps, expected, backbone.out_norms, strict=True):
        torch.testing.assert_close(ours, norm(plain), rtol=1e-3, atol=1e-4)


def test_a_vit_is_timms_last_block_normed():
    backbone = made("timm:test_vit").eval()
    x = torch.randn(1, 3, 64, 96)
    tokens = backbone.body.forward_features(x * backbone.scale[:, None, None] + backbone.shift[:, None, None])
    grid = tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 6))
    expected = nn.functional.layer_norm(grid.permute(0, 2, 3, 1), (64,)).permute(0, 3, 1, 2)
    torch.testing.assert_close(backbone(x)[2], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "efficientnet_b0", "shufflenet_v2_x0_5", "convnext_tiny"])
def test_c5_is_what_torchvision_pools(name: str):
    """And every layer before that is passed, in order."""
    backbone, pooled = made(f"torchvision:{name}").eval(), []
    whole = torchvision.models.get_model(name, weights=None).eval()
    whole.load_state_dict(backbone.body.state_dict(), strict=False)
    cut = {"shufflenet_v2_x0_5": "conv5", "mobilenet_v2": "features"}.get(name, "avgpool")
    layer = getattr(whole, cut)
    if cut == "avgpool":
        layer.register_forward_pre_hook(lambda module, given: pooled.append(given[0]))
    else:
        layer.register_forward_hook(lambda module, given, result: pooled.append(result))
    x = torch.randn(1, 3, 64, 64)
    whole(x)
    torch.testing.assert_close(backbone(x)[3], backbone.out_norms[3](pooled[0]))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frozen", [-1, 0, 1, 3, 4])
def test_frozen_stages(name: str, frozen: int):
    backbone = made(name, frozen_stages=frozen, norm="batch").train()
    for part, stage in zip(backbone.parts(), range(5), strict=True):
        assert {parameter.requires_grad for parameter in part.parameters()} == {stage > frozen}
        inside = [module for module in part.modules() if not isinstance(module, nn.ModuleList | nn.ParameterList)]
        assert {module.training for module in inside} == {stage > frozen}
    counted = [id(parameter) for part in backbone.parts() for parameter in part.parameters()]
    assert len(counted) == len(set(counted))
    assert set(counted) == {id(parameter) for parameter in backbone.body.parameters()}
    assert all(p.requires_grad for part in (backbone.out_norms, backbone.pyramid) for p in part.parameters())


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("timm:test_vit", ["cls_token", "blocks.0.", "blocks.2.", "blocks.3.", "blocks.5."]),
        ("timm:test_convnext", ["stem.1.bias", "stages.0.", "stages.1.", "stages.2.", "stages.3."]),
        ("timm:test_efficientnet", ["blocks.0.", "blocks.1.", "blocks.2.", "blocks.3.", "blocks.4."]),
        ("torchvision:mobilenet_v2", ["features.1.", "features.3.", "features.6.", "features.13.", "features.18."]),
        ("torchvision:convnext_tiny", ["features.0.", "features.1.", "features.3.", "features.5.", "features.7."]),
    ],
)
def test_where_stages_end(name: str, ends: list[str]):
    backbone = made(name)
    for stage, end in enumerate(ends):
        of_stage = [key for key, number in backbone.stage_of.items() if number == stage]
        assert any(key.startswith(end) for key in of_stage), of_stage
        later = [key for key, number in backbone.stage_of.items() if number > stage]
        assert not any(key.startswith(end) for key in later)


@pytest.mark.parametrize("name", NAMES)
def test_everything_that_trains_gets_a_gradient(name: str):
    """Distributed training waits for all of them."""
    backbone = made(name, norm="batch").train()
    sum(features.square().mean() for features in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert [key for key, p in backbone.named_parameters() if p.requires_grad and p.grad is None] == []


@pytest.mark.parametrize(
    ("norm", "trains", "affine"), [("batch", True, True), ("fixed", False, True), ("frozen", False, False)]
)
@pytest.mark.parametrize("name", ["timm:test_efficientnet", "torchvision:mobilenet_v2"])
def test_batchnorm(name: str, norm: str, trains: bool, affine: bool):
    backbone = made(name, norm=norm).train()
    norms = [module for module in backbone.body.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) > 5
    assert {module.training for module in norms} == {trains}
    assert {module.weight.requires_grad for module in norms} == {affine}


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_convnext", "torchvision:efficientnet_b0"])
def test_blocks_are_skipped_in_training(name: str):
    x = torch.randn(1, 3, 64, 64)
    for drop_path, same in ((0.0, True), (0.9, False)):
        backbone = made(name, drop_path=drop_path, norm="fixed").train()
        for module in backbone.modules():
            if isinstance(module, nn.Dropout):
                module.eval()
        assert torch.equal(backbone(x)[3], backbone(x)[3]) == same
    assert torch.equal(backbone.eval()(x)[3], backbone(x)[3])


@pytest.mark.parametrize(
    "name", ["timm:test_vit", "timm:test_convnext", "timm:test_efficientnet", "torchvision:convnext_tiny"]
)
def test_checkpointing_gives_the_same_gradients(name: str):
    gradients, kept = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = made(name, checkpointing=checkpointing, drop_path=0.5, frozen_stages=0).train()
        torch.manual_seed(1)
        count: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, count=count: count.append(t) or t, lambda t: t):
            maps = backbone(torch.randn(1, 3, 64, 64))
        sum(features.square().mean() for features in maps).backward()
        gradients.append({key: p.grad for key, p in backbone.named_parameters()})
        kept.append(len(count))
    assert kept[1] < kept[0] / 2
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-5, atol=1e-7)


def test_patches_of_fourteen_become_sixteen_with_as_many_positions():
    whole = network(BackboneConfig(name="timm:vit_small_patch14_dinov2"))
    assert whole.patch_embed.patch_size == (16, 16)
    assert whole.patch_embed.grid_size == (37, 37)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("timm:convnextv2_tin", {}, "timm has no network 'convnextv2_tin'; did you mean 'convnextv2_tiny'"),
        ("timm:test_vit.r161_in1k", {}, "timm has no weights 'r161_in1k' of test_vit; did you mean 'r160_in1k'"),
        ("torchvision:mobilenet_v4", {}, "torchvision has no classifier 'mobilenet_v4'; did you mean 'mobilenet_v2'"),
        ("torchvision:fasterrcnn_resnet50_fpn", {}, "torchvision has no classifier 'fasterrcnn_resnet50_fpn'"),
        ("timm:test_vit", {"args": {"dept": 3}}, "cannot be made with {'dept': 3}: .*'dept'"),
        ("torchvision:resnet18", {"args": {"dept": 3}}, "cannot be made with {'dept': 3}: .*'dept'"),
        ("torchvision:resnet18", {"drop_path": 0.1}, "drop_path: torchvision:resnet18 has no blocks to skip"),
        ("timm:selecsls42", {"drop_path": 0.1}, "drop_path: timm:selecsls42 has no blocks to skip"),
        ("timm:test_mambaout", {"args": {"act_layer": "none_such"}}, "cannot be made with {'act_layer': 'none_such'}"),
        ("torchvision:vit_b_16", {}, "does not take images of any size that is a multiple of 32"),
        ("timm:mixer_s32_224", {}, "does not take images of any size that is a multiple of 32"),
        ("torchvision:squeezenet1_0", {}, "has no map whose side is a 4th, 8th, 16th or 32nd of the image's"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(name: str, settings: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        made(name, **settings)


@pytest.mark.parametrize("name", NAMES)
def test_a_deployed_and_packed_network_finds_the_same(name: str):
    config = ModelConfig(num_proposals=6, num_stages=1, width=16, dynamic_width=8, num_heads=2, ffn_width=32)
    model = with_statistics(QueryInst(config, BackboneConfig(name=name, frozen_stages=-1), num_classes=3))
    for ours, plain in zip(look(pack(deploy(model))), look(model), strict=True):
        assert ours.labels.tolist() == plain.labels.tolist()
        torch.testing.assert_close(ours.boxes, plain.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours.scores, plain.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.masks, plain.masks, rtol=1e-3, atol=1e-4)
