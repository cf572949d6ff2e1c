"""A deployed network gives the same detections as the one that it was made of."""

import pytest
import torch
from conftest import random_batch, small_model
from torch import nn

from queryinst.config import BackboneConfig, ModelConfig, PostprocessConfig
from queryinst.models.deploy import deploy, fold
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Detections


def with_statistics(model: QueryInst) -> QueryInst:
    """A network whose BatchNorms have something to fold."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            values_of = (
                (norm.weight.data, 0.5),
                (norm.bias.data, -0.2),
                (norm.running_var, 1.0),
                (norm.running_mean, -0.5),
            )
            for values, low in values_of:
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
    assert not [parameter for parameter in deployed.parameters() if parameter.requires_grad]
    assert all(
        weight.is_contiguous(memory_format=torch.channels_last) for weight in deployed.parameters() if weight.dim() == 4
    )
    for ours, plain in zip(look(deployed), look(model), strict=True):
        assert ours.labels.tolist() == plain.labels.tolist()
        torch.testing.assert_close(ours.boxes, plain.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(ours.scores, plain.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.masks, plain.masks, rtol=1e-3, atol=1e-4)


def test_bf16_is_close_and_pixels_stay_float32():
    """Of scores from 0 to 1 and boxes of 64 pixels. What is exact in a box: `test_bfloat16_boxes.py`."""
    model = with_statistics(small_model())
    for stage in model.stages:
        nn.init.normal_(stage.box.cls.weight, std=0.5)
        nn.init.zeros_(stage.box.cls.bias)
    deployed = deploy(model, "bf16")
    kinds = {name: value.dtype for name, value in deployed.state_dict().items()}
    assert kinds.pop("queries.boxes") == torch.float32
    assert set(kinds.values()) == {torch.bfloat16}
    batch = random_batch([1, 1])
    with torch.inference_mode():
        ours, plain = (every(batch.images, batch.sizes).stages[-1] for every in (deployed, model))
    assert plain.logits.sigmoid().std() > 0.1
    assert 0 < (ours.logits.sigmoid() - plain.logits.sigmoid()).abs().max() < 0.05
    assert ours.boxes.dtype == torch.float32
    assert 0 < (ours.boxes - plain.boxes).abs().max() < 2
    for found in look(deployed):
        assert {getattr(found, name).dtype for name in ("boxes", "scores", "masks")} == {torch.float32}


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
    with pytest.raises(ValueError, match="^precision must be one of fp32, bf16; got 'fp8'$"):
        deploy(small_model(), "fp8")


def test_a_batchnorm_that_follows_no_convolution_is_not_folded():
    """Which layer it belongs to is known only by its place: better no network than a wrong one."""
    with pytest.raises(AssertionError, match="^1 follows 0, which is no convolution"):
        fold(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)).eval())
