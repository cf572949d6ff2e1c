"""Strides, channels, and what is frozen."""

import pytest
import torch
from torch import nn

from queryinst.config import BackboneConfig
from queryinst.models.backbone import BatchNorm, build_backbone


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "swin_t", "tiny"])
def test_four_maps(name: str):
    backbone = build_backbone(BackboneConfig(name=name)).eval()
    maps = backbone(torch.zeros(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]


@pytest.mark.parametrize(("name", "count"), [("resnet50", 23_508_032), ("resnet101", 42_500_160)])
def test_parameter_counts_of_the_reference(name: str, count: int):
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(name=name))
    assert sum(p.numel() for p in backbone.parameters()) == count


def test_swin_is_what_its_weights_were_trained_as():
    """Patch merging takes (row, column) (0,0), (1,0), (0,1), (1,1), and a table of positions counts row by row: then
    Microsoft's weights, which hustvl/QueryInst has, mean the same here (reference, 5.4)."""
    backbone = build_backbone(BackboneConfig(name="swin_t", frozen_stages=-1))
    merging = backbone.body.features[2]
    x = torch.randn(1, 4, 6, 96)
    corners = [x[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
    expected = merging.reduction(merging.norm(torch.cat(corners, dim=-1)))
    torch.testing.assert_close(merging(x), expected)
    index = backbone.body.features[1][0].attn.relative_position_index.view(49, 49)
    for of, to in ((0, 48), (48, 0), (10, 23), (23, 10)):
        down, right = of // 7 - to // 7, of % 7 - to % 7
        assert index[of, to] == (down + 6) * 13 + right + 6


def test_swins_maps_are_normalised_and_blocks_are_skipped_in_training():
    backbone = build_backbone(BackboneConfig(name="swin_t", frozen_stages=-1, drop_path=0.5))
    image = torch.randn(1, 3, 64, 64)
    for features in backbone.eval()(image):
        torch.testing.assert_close(features.mean(1), torch.zeros_like(features[:, 0]), rtol=0, atol=1e-5)
        torch.testing.assert_close(features.var(1, unbiased=False), torch.ones_like(features[:, 0]), rtol=0, atol=1e-2)
    assert torch.equal(backbone(image)[3], backbone(image)[3])
    backbone.train()
    assert not torch.equal(backbone(image)[3], backbone(image)[3])


@pytest.mark.parametrize(
    ("frozen", "first_trainable"), [(-1, "body.conv1"), (0, "body.layer1"), (1, "body.layer2"), (4, None)]
)
def test_frozen_stages(frozen: int, first_trainable: str | None):
    backbone = build_backbone(BackboneConfig(name="resnet18", frozen_stages=frozen))
    trainable = [name for name, parameter in backbone.named_parameters() if parameter.requires_grad]
    assert (trainable[0] if trainable else "").startswith(first_trainable or "")
    assert bool(trainable) == (first_trainable is not None)


@pytest.mark.parametrize(
    ("norm", "trains", "affine"), [("batch", True, True), ("fixed", False, True), ("frozen", False, False)]
)
def test_batchnorm(norm: str, trains: bool, affine: bool):
    backbone = build_backbone(BackboneConfig(name="resnet18", frozen_stages=1, norm=norm))
    assert not backbone.body.bn1.training  # part of the frozen stem, from the constructor on
    for _ in range(2):  # as built, and after another round of evaluation and training
        norms = [module for module in backbone.body.layer3.modules() if isinstance(module, nn.BatchNorm2d)]
        assert all(module.training == trains for module in norms)
        assert all(module.weight.requires_grad == affine for module in norms)
        backbone.eval().train()


def test_a_frozen_batchnorm_keeps_nothing_and_gives_the_same():
    x, gradient = torch.randn(2, 6, 5, 7, requires_grad=True), torch.randn(2, 6, 5, 7)
    ours, theirs = BatchNorm(6).eval().requires_grad_(False), nn.BatchNorm2d(6).eval()
    for value in theirs.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        y = ours(x)
    assert kept
    assert x.shape not in kept
    torch.testing.assert_close(y, theirs(x))
    expected = torch.autograd.grad(theirs(x), x, gradient)
    torch.testing.assert_close(torch.autograd.grad(y, x, gradient), expected)
    assert torch.equal(ours.train()(x), theirs.train()(x))


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_checkpointing_gives_the_same_gradients(name: str):
    """Also where blocks are skipped at random: the second forward skips those that the first one did."""
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = build_backbone(BackboneConfig(name=name, frozen_stages=-1, checkpointing=checkpointing)).train()
        torch.manual_seed(1)
        sum(features.square().mean() for features in backbone(torch.randn(1, 3, 64, 64))).backward()
        gradients.append({name: parameter.grad for name, parameter in backbone.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=0)
