"""A packed network gives the same detections as the one that it was made of, and is made only where it can be."""

import pytest
import torch
from conftest import small_model
from test_deploy import look, with_statistics
from torch import Tensor, nn

from queryinst.config import BackboneConfig, ModelConfig
from queryinst.models.deploy import deploy
from queryinst.models.packed import FusedConv, PackedLinear, pack
from queryinst.models.queryinst import QueryInst


@pytest.mark.parametrize("name", ["tiny", "resnet18", "resnet50", "swin_t"])
@pytest.mark.parametrize("counts", [[1], [2, 1]])
def test_packed_is_equal(name: str, counts: list[int]):
    config = ModelConfig(num_proposals=6, num_stages=2, width=16, dynamic_width=8, num_heads=2, ffn_width=32)
    model = with_statistics(QueryInst(config, BackboneConfig(name=name), num_classes=3))
    packed = pack(deploy(model))
    kinds = [type(module) for module in packed.modules()]
    assert FusedConv in kinds
    assert PackedLinear in kinds
    for _ in range(2):  # what is remembered of the first image serves the second
        for ours, plain in zip(look(packed, counts), look(model, counts), strict=True):
            assert ours.labels.tolist() == plain.labels.tolist()
            torch.testing.assert_close(ours.boxes, plain.boxes, rtol=1e-4, atol=1e-3)
            torch.testing.assert_close(ours.scores, plain.scores, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours.masks, plain.masks, rtol=1e-3, atol=1e-4)


def test_stages_that_share_a_head_are_packed_each_for_itself():
    """What is remembered of the first stage's queries is not true of the second's."""
    model = with_statistics(small_model(num_stages=3, share_stages=True))
    for ours, plain in zip(look(pack(deploy(model))), look(model), strict=True):
        assert ours.labels.tolist() == plain.labels.tolist()
        torch.testing.assert_close(ours.boxes, plain.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours.masks, plain.masks, rtol=1e-3, atol=1e-4)
    assert model.stages[0].box is model.stages[2].box


def test_maps_of_the_backbone_stay_as_they_were_given_out():
    """A packed residual block overwrites its input, which must not be one of the maps."""
    model = with_statistics(QueryInst(ModelConfig(num_stages=1), BackboneConfig(name="resnet18"), num_classes=3))
    x = torch.randn(1, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for ours, plain in zip(pack(deploy(model)).backbone(x.clone()), model.backbone(x), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "onednn", "bfloat16", "packed"),
    [
        ("fp32", True, True, True),
        ("fp32", True, False, True),
        ("fp32", False, False, False),
        ("fp32", False, True, False),
        ("bf16", True, True, True),
        ("bf16", True, False, False),
        ("bf16", False, True, False),
        ("bf16", False, False, False),
    ],
)
def test_what_the_processor_can_decides_and_nothing_is_touched_where_it_cannot(
    precision: str, onednn: bool, bfloat16: bool, packed: bool, monkeypatch: pytest.MonkeyPatch
):
    """Whatever this processor can: float32 asks for oneDNN alone, bfloat16 for instructions that know it as well."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bfloat16)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", lambda weight: weight)
    deployed = deploy(small_model(), precision)
    before = kinds(deployed)
    assert pack(deployed) is deployed
    if packed:
        assert {FusedConv, PackedLinear} <= set(kinds(deployed))
        left = {name for name, module in deployed.named_modules() if type(module) in (nn.Linear, nn.Conv2d)}
        assert left == {"stages.0.mask.logits", "stages.1.mask.logits"}, "of which a mask takes the row of its class"
    else:
        assert kinds(deployed) == before


def test_bfloat16_where_the_processor_does_not_know_it_is_computed_all_the_same(monkeypatch: pytest.MonkeyPatch):
    """Not packed, by PyTorch's own layers: the very numbers of the deployed network."""
    model = with_statistics(small_model())
    plain = look(deploy(model, "bf16"))
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    for ours, theirs in zip(look(pack(deploy(model, "bf16"))), plain, strict=True):
        assert torch.equal(ours.boxes, theirs.boxes)
        assert torch.equal(ours.scores, theirs.scores)
        assert torch.equal(ours.masks, theirs.masks)


def test_on_another_device_nothing_is_packed():
    deployed = deploy(small_model()).to("meta")
    before = kinds(deployed)
    assert kinds(pack(deployed)) == before


def kinds(model: QueryInst) -> list[type]:
    return [type(module) for module in model.modules()]


@pytest.mark.parametrize("bias", [False, True])
def test_a_fused_convolution_is_the_convolution_and_what_follows(bias: bool):
    conv = nn.Conv2d(4, 6, 3, padding=(1, 2), stride=(2, 1), dilation=(1, 2), groups=2, bias=bias).requires_grad_(False)
    x = torch.randn(2, 4, 9, 11)
    expected = conv(x)
    shortcut = torch.randn_like(expected)
    close(FusedConv(conv)(x), expected)
    close(FusedConv(conv, "relu")(x), expected.relu())
    close(FusedConv(conv, "relu").add(x, shortcut.clone()), (expected + shortcut).relu())


def test_a_packed_linear_layer_is_the_linear_layer():
    for bias in (False, True):
        linear, x = nn.Linear(5, 3, bias=bias).requires_grad_(False), torch.randn(2, 7, 5)
        close(PackedLinear(linear)(x), linear(x))


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
