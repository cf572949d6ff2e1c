"""FPN, dynamic convolution, box head and mask head."""

import math

import pytest
import torch
import torch.nn.functional as F

from queryinst.config import ModelConfig
from queryinst.models.box_head import BoxHead
from queryinst.models.dynamic_conv import DynamicConv
from queryinst.models.fpn import FPN
from queryinst.models.mask_head import MaskHead

SMALL = ModelConfig(width=16, dynamic_width=8, num_heads=2, ffn_width=32)


def test_fpn_adds_the_levels_above():
    fpn = FPN((3, 5), 4)
    low, high = torch.randn(1, 3, 8, 6), torch.randn(1, 5, 4, 3)
    fine, coarse = fpn([low, high])
    torch.testing.assert_close(coarse, fpn.output[1](fpn.lateral[1](high)))
    merged = fpn.lateral[0](low) + F.interpolate(fpn.lateral[1](high), scale_factor=2, mode="nearest")
    torch.testing.assert_close(fine, fpn.output[0](merged))


def test_dynamic_convolution_spelled_out():
    """The first half of the generated numbers is the first matrix, row by row; positions run row by row."""
    dynamic, query, region = DynamicConv(4, 3), torch.randn(1, 4), torch.randn(1, 4, 2, 2)
    numbers = dynamic.params(query)[0]
    first, second = numbers[:12].view(4, 3), numbers[12:].view(3, 4)
    for position, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        hidden = F.relu(dynamic.norm_in(region[0, :, y, x] @ first))
        expected = F.relu(dynamic.norm_out(hidden @ second))
        torch.testing.assert_close(dynamic(query, region)[0, position], expected)


def test_a_fresh_box_head_gives_every_class_one_percent():
    head = BoxHead(SMALL, num_classes=7)
    torch.testing.assert_close(head.cls.bias, torch.full((7,), -math.log(99)))
    assert not head.reg.bias.any()


def test_box_head_shapes_and_gradient():
    head = BoxHead(SMALL, num_classes=7)
    boxes = torch.tensor([[[0.0, 0, 10, 10]] * 3] * 2)
    output = head(torch.randn(2, 3, 16), torch.randn(6, 16, 7, 7), boxes)
    assert output.logits.shape == (2, 3, 7)
    assert output.boxes.shape == (2, 3, 4)
    assert output.queries.shape == output.mask_queries.shape == (2, 3, 16)
    output.boxes.sum().backward()
    assert head.attn.in_proj_weight.grad is not None


def test_mask_head_one_class_a_row_is_all_classes_and_a_gather():
    head = MaskHead(SMALL, num_classes=5).eval()
    features = head(torch.randn(6, 16), torch.randn(6, 16, 14, 14))
    assert features.shape == (6, 16, 28, 28)
    labels = torch.tensor([0, 1, 2, 3, 4, 2])
    torch.testing.assert_close(
        head.classify(features, labels), head.logits(features)[torch.arange(6), labels], rtol=1e-4, atol=1e-5
    )
    which = torch.tensor([5, 0, 5, 2, 5, 0])  # some features for several classes, some for none
    torch.testing.assert_close(
        head.classify(features, labels, which), head.logits(features)[which, labels], rtol=1e-4, atol=1e-5
    )
    nothing = torch.zeros(0, dtype=torch.int64)
    assert head.classify(features[:0], nothing, nothing).shape == (0, 28, 28)


@pytest.mark.parametrize("training", [False, True])
def test_mask_head_without_rows(training: bool):
    head = MaskHead(SMALL, num_classes=5).train(training)
    features = head(torch.zeros(0, 16), torch.zeros(0, 16, 14, 14))
    logits = head.classify(features, torch.zeros(0, dtype=torch.int64))
    assert logits.shape == (0, 28, 28)
    logits.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())
