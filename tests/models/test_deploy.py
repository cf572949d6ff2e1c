"""A deployed network gives the same detections as the one that it was made of."""

import pytest
import torch
from conftest import random_batch, small_model
from torch import nn

from queryinst.config import BackboneConfig, ModelConfig, PostprocessConfig
from queryinst.models.deploy import deploy
from queryinst.models.packed import FusedConv, PackedLinear, pack
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Detections


def with_statistics(model: QueryInst) -> QueryInst:
    """A network whose BatchNorms have something to fold."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low in ((norm.weight.data, 0.5), (norm.running_var, 1.0), (norm.running_mean, -0.5)):
                assert values is not None
                values.uniform_(low, low + 1)
    return model.eval()


def look(model: QueryInst, counts: list[int] | None = None) -> list[Detections]:
    batch = random_batch(counts or [1, 1])
    with torch.inference_mode():
        output = model(batch.images, batch.sizes)
        return detect(model, output, batch.sizes, batch.original_sizes, PostprocessConfig())


@pytest.mark.parametrize("name", ["tiny", "resnet18", "resnet50", "swin_t"])
def test_fp32_is_equal(name: str):
    config = ModelConfig(num_proposals=6, num_stages=2, width=16, dynamic_width=8, num_heads=2, ffn_width=32)
    model = with_statistics(QueryInst(config, BackboneConfig(name=name), num_classes=3))
    deployed = deploy(model)
    assert not [module for module in deployed.modules() if isinstance(module, nn.BatchNorm2d)]
    for ours, plain in zip(look(deployed), look(model), strict=True):
        assert ours.labels.tolist() == plain.labels.tolist()
        torch.testing.assert_close(ours.boxes, plain.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours.scores, plain.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.masks, plain.masks, rtol=1e-3, atol=1e-4)


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


def test_maps_of_the_backbone_stay_as_they_were_given_out():
    """A packed residual block overwrites its input, which must not be one of the maps."""
    model = with_statistics(QueryInst(ModelConfig(num_stages=1), BackboneConfig(name="resnet18"), num_classes=3))
    x = torch.randn(1, 3, 64, 96).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        for ours, plain in zip(pack(deploy(model)).backbone(x.clone()), model.backbone(x), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


def test_without_onednn_or_its_bfloat16_nothing_is_packed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    deployed = deploy(small_model())
    assert not [module for module in pack(deployed).modules() if isinstance(module, FusedConv)]


def test_bf16_is_close_and_pixels_stay_float32():
    model = with_statistics(small_model())
    deployed = deploy(model, "bf16")
    kinds = {str(value.dtype) for name, value in deployed.state_dict().items() if not name.endswith("queries.boxes")}
    assert kinds == {"torch.bfloat16"}
    for ours, plain in zip(look(deployed), look(model), strict=True):
        for name in ("boxes", "scores", "masks"):
            assert getattr(ours, name).dtype == torch.float32
        assert (ours.scores - plain.scores).abs().max() < 0.02
    batch = random_batch([1])
    with torch.inference_mode():
        ours, plain = (every(batch.images, batch.sizes).stages[-1] for every in (deployed, model))
    assert ours.boxes.dtype == torch.float32
    assert (ours.boxes - plain.boxes).abs().max() < 2  # pixels, of 64


def test_the_network_is_left_as_it_is():
    model = small_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    deploy(model, "bf16")
    assert model.training
    assert all(parameter.requires_grad for name, parameter in model.named_parameters())
    after = model.state_dict()
    assert list(before) == list(after)
    assert all((before[name] == after[name]).all() and before[name].dtype == after[name].dtype for name in before)


def test_nothing_kept_is_no_mask():
    deployed, batch = deploy(small_model()), random_batch([1])
    with torch.inference_mode():
        found = detect(
            deployed, deployed(batch.images, batch.sizes), batch.sizes, batch.sizes, PostprocessConfig(min_side=1e9)
        )
    assert found[0].masks.shape == (0, 28, 28)


def test_another_precision_is_refused():
    with pytest.raises(ValueError, match="one of fp32, bf16; got 'fp8'"):
        deploy(small_model(), "fp8")
