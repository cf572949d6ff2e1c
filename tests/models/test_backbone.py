"""Strides, channels, and what is frozen."""

import pytest
import torch
from torch import nn

from queryinst.config import BackboneConfig
from queryinst.models.backbone import build_backbone


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "tiny"])
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
