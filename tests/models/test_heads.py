"""FPN, dynamic convolution, box head and mask head."""

import pytest
import torch
import torch.nn.functional as F

from queryinst.config import ModelConfig
from queryinst.models.box_head import BoxHead
from queryinst.models.dynamic_conv import DynamicConv
from queryinst.models.fpn import FPN
from queryinst.models.mask_head import ConvNorm, Doubling, MaskHead
from queryinst.ops import boxes as box_ops

SMALL = ModelConfig(width=16, dynamic_width=8, num_heads=2, ffn_width=32)


def test_fpn_adds_the_levels_above():
    """From the top down, each already with those above it; an upper level may be half of an odd number."""
    fpn = FPN((3, 5, 2), 4)
    maps = [torch.randn(2, 3, 12, 7), torch.randn(2, 5, 6, 4), torch.randn(2, 2, 3, 2)]
    single = [F.conv2d(x, conv.weight, conv.bias) for x, conv in zip(maps, fpn.lateral, strict=True)]
    middle = single[1] + F.interpolate(single[2], scale_factor=2, mode="nearest")
    rows, columns = torch.arange(12) // 2, torch.arange(7) * 4 // 7
    merged = [single[0] + middle[:, :, rows][..., columns], middle, single[2]]
    found = fpn(maps)
    assert [x.shape for x in found] == [(2, 4, 12, 7), (2, 4, 6, 4), (2, 4, 3, 2)]
    for ours, x, conv in zip(found, merged, fpn.output, strict=True):
        assert conv.kernel_size == (3, 3)
        torch.testing.assert_close(ours, F.conv2d(x, conv.weight, conv.bias, padding=1))


def test_dynamic_convolution_spelled_out():
    """The first half of the generated numbers is the first matrix, row by row; positions run row by row."""
    dynamic, query, region = DynamicConv(4, 3), torch.randn(1, 4), torch.randn(1, 4, 2, 2)
    numbers = dynamic.params(query)[0]
    first, second = numbers[:12].view(4, 3), numbers[12:].view(3, 4)
    for position, (y, x) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        hidden = F.relu(dynamic.norm_in(region[0, :, y, x] @ first))
        expected = F.relu(dynamic.norm_out(hidden @ second))
        torch.testing.assert_close(dynamic(query, region)[0, position], expected)


def test_box_head_spelled_out():
    """Attention, dynamic convolution and FFN each add to the query before a norm; towers read what comes out."""
    head = BoxHead(SMALL, num_classes=7)
    for parameter in head.parameters():  # norms and biases that do something
        torch.nn.init.normal_(parameter, std=0.3)
    queries, regions = torch.randn(2, 3, 16), torch.randn(6, 16, 7, 7)
    boxes = torch.tensor([[[0.0, 0, 10, 20], [5, 5, 9, 7], [-4, 8, 60, 9]]] * 2)
    output = head(queries, regions, boxes)

    def normed(x: torch.Tensor, layer: torch.nn.LayerNorm) -> torch.Tensor:
        return F.layer_norm(x, (16,), layer.weight, layer.bias)

    asked = normed(queries + head.attn(queries, queries, queries)[0], head.attn_norm)
    torch.testing.assert_close(output.mask_queries, asked)
    read = DynamicConv.forward(head.dyn, asked.view(6, 16), regions).flatten(1)
    read = F.relu(normed(head.dyn.proj(read), head.dyn.proj_norm)).view(2, 3, 16)
    refined = normed(asked + read, head.dyn_norm)
    refined = normed(refined + head.ffn.fc2(F.relu(head.ffn.fc1(refined))), head.ffn_norm)
    torch.testing.assert_close(output.queries, refined)
    for_class, for_box = refined, refined
    for block in head.cls_tower:
        for_class = F.relu(normed(for_class @ block.fc.weight.T, block.norm))
    for block in head.reg_tower:
        for_box = F.relu(normed(for_box @ block.fc.weight.T, block.norm))
    assert (len(head.cls_tower), len(head.reg_tower)) == (1, 3)
    torch.testing.assert_close(output.logits, head.cls(for_class))
    torch.testing.assert_close(output.boxes, box_ops.refine(boxes, head.reg(for_box)))


def test_queries_see_those_of_their_own_image():
    head = BoxHead(SMALL, num_classes=7)
    queries, regions, boxes = torch.randn(2, 3, 16), torch.randn(6, 16, 7, 7), torch.rand(2, 3, 4)
    before = head(queries, regions, boxes).mask_queries
    queries[0, 0] += torch.randn(16)
    changed = (head(queries, regions, boxes).mask_queries != before).any(-1)
    assert changed.tolist() == [[True, True, True], [False, False, False]]


def test_mask_head_one_class_a_row_is_all_classes_and_a_gather():
    head = MaskHead(SMALL, num_classes=5).eval()
    torch.nn.init.normal_(head.logits.bias)
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


def test_mask_head_spelled_out():
    head = MaskHead(ModelConfig(width=16, dynamic_width=8, mask_convs=2), num_classes=5)
    queries, regions = torch.randn(3, 16), torch.randn(3, 16, 4, 6)
    x = head.dyn(queries, regions).transpose(1, 2).view(3, 16, 4, 6)
    for layer in head.convs:
        x = F.conv2d(x, layer.conv.weight, padding=1)
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        x = F.relu(x)
    assert len(head.convs) == 2
    x = F.relu(F.conv_transpose2d(x, head.up.weight, head.up.bias, stride=2))
    features = head(queries, regions)
    assert features.shape == (3, 16, 8, 12)
    torch.testing.assert_close(features, x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 0])
def test_statistics_are_those_of_the_rows_and_without_rows_they_stay(rows: int):
    layer = ConvNorm(4).train()
    x = torch.randn(rows, 4, 5, 5)
    made = layer(x)
    assert layer.bn.num_batches_tracked == rows
    mean = layer.conv(x).mean((0, 2, 3)) * 0.1 if rows else torch.zeros(4)
    torch.testing.assert_close(layer.bn.running_mean, mean)
    assert (layer.bn.running_var == 1).all() == (rows == 0)
    assert made.shape == x.shape
    if rows:
        again = layer.bn(layer.conv(x)).relu()
        torch.testing.assert_close(made, again)


@pytest.mark.parametrize("rows", [0, 3])
def test_doubling_is_a_transposed_convolution(rows: int):
    """Forward and backward, in training as at test, where PyTorch's own kernel does it."""
    layer, x = Doubling(6).double(), torch.randn(rows, 6, 5, 4, dtype=torch.float64, requires_grad=True)
    of, weight = [x, *layer.parameters()], torch.randn(rows, 6, 10, 8, dtype=torch.float64)
    trained, tested = layer.train()(x), layer.eval()(x)
    torch.testing.assert_close(trained, tested)
    for ours, theirs in zip(*(torch.autograd.grad(y, of, weight) for y in (trained, tested)), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert "Convolution" not in trained.grad_fn.name()


@pytest.mark.parametrize("training", [False, True])
def test_mask_head_without_rows(training: bool):
    head = MaskHead(SMALL, num_classes=5).train(training)
    features = head(torch.zeros(0, 16), torch.zeros(0, 16, 14, 14))
    logits = head.classify(features, torch.zeros(0, dtype=torch.int64))
    assert logits.shape == (0, 28, 28)
    logits.sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in head.parameters())


@pytest.mark.parametrize("sides", [(8, 4, 2), (16, 8, 4, 2, 1)], ids=["too few", "too many"])
def test_other_maps_than_a_pyramid_was_made_for_are_refused(sides: tuple[int, ...]):
    with pytest.raises(ValueError, match="argument 2 is"):
        FPN([8, 8, 8, 8], 4)([torch.zeros(1, 8, side, side) for side in sides])
