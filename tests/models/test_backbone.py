"""Strides, channels, and what is frozen."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from queryinst.config import BackboneConfig
from queryinst.models.backbone import BatchNorm, TinyNet, build_backbone


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "swin_t", "tiny"])
def test_four_maps(name: str):
    backbone = build_backbone(BackboneConfig(name=name)).eval()
    maps = backbone(torch.zeros(2, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, (4, 8, 16, 32), strict=True)
    ]


def test_the_stem_of_the_tiny_network_sees_past_the_border():
    stem = build_backbone(BackboneConfig(name="tiny")).eval().parts()[0]
    assert stem(torch.zeros(1, 3, 64, 96)).shape == (1, 24, 32, 48)
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 0, 0] = 1.0
    expected = nn.functional.conv2d(edge, stem[0].weight, stride=2, padding=1)
    torch.testing.assert_close(stem[0](edge), expected)


SHAPES = {  # channels of C2..C5, and numbers learned: those of the references, and of torchvision without classifier
    "resnet18": ((64, 128, 256, 512), 11_176_512),
    "resnet34": ((64, 128, 256, 512), 21_284_672),
    "resnet50": ((256, 512, 1024, 2048), 23_508_032),
    "resnet101": ((256, 512, 1024, 2048), 42_500_160),
    "swin_t": ((96, 192, 384, 768), 27_520_698),
    "swin_s": ((96, 192, 384, 768), 48_838_602),
    "swin_b": ((128, 256, 512, 1024), 86_745_016),
    "swin_l": ((192, 384, 768, 1536), 194_998_164),
    "tiny": ((48, 64, 96, 128), 1_094_616),
}


@pytest.mark.parametrize("name", SHAPES)
def test_channels_and_parameters(name: str):
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(name=name)).eval()
        maps = backbone(torch.zeros(1, 3, 64, 64))
    channels, count = SHAPES[name]
    assert backbone.channels == channels == tuple(features.shape[1] for features in maps)
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


def test_swins_last_block_is_skipped_as_often_as_is_asked_for():
    with torch.device("meta"):
        backbone = build_backbone(BackboneConfig(name="swin_t", drop_path=0.55))
    skips = [module.p for module in backbone.modules() if isinstance(module, StochasticDepth)]
    assert skips == pytest.approx([0.05 * block for block in range(12)])


@pytest.mark.parametrize(
    ("frozen", "first_trainable"), [(-1, "body.conv1"), (0, "body.layer1"), (1, "body.layer2"), (4, None)]
)
def test_frozen_stages(frozen: int, first_trainable: str | None):
    backbone = build_backbone(BackboneConfig(name="resnet18", frozen_stages=frozen))
    learned = [(name, parameter.requires_grad) for name, parameter in backbone.named_parameters()]
    first = next(
        (i for i, (name, _) in enumerate(learned) if first_trainable and first_trainable in name), len(learned)
    )
    assert [trains for _, trains in learned] == [False] * first + [True] * (len(learned) - first)
    assert (first < len(learned)) == (first_trainable is not None)


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


def names(backbone: nn.Module) -> set[str]:
    return {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}


def in_training(backbone: nn.Module) -> set[str]:
    """Names of the modules that have parameters of their own and are in training mode."""
    return {
        name for name, module in backbone.named_modules() if module.training and [*module.parameters(recurse=False)]
    }


@pytest.mark.parametrize("norm", ["batch", "fixed", "frozen"])
@pytest.mark.parametrize("name", ["resnet18", "swin_t", "torchvision:mobilenet_v2", "timm:test_vit"])
def test_thawed_it_is_as_one_that_was_never_frozen(name: str, norm: str):
    never = build_backbone(BackboneConfig(name=name, frozen_stages=-1, norm=norm))
    backbone = build_backbone(BackboneConfig(name=name, frozen_stages=2, norm=norm))
    assert names(backbone) < names(never)
    assert in_training(backbone) < in_training(never)
    backbone.eval()
    backbone.thaw()
    assert (names(backbone), in_training(backbone)) == (names(never), set()), "evaluation goes on as such"
    for _ in range(2):
        backbone.train()
        assert in_training(backbone) == in_training(never)
        backbone.eval()
        backbone.thaw()


def test_what_is_no_parameter_to_learn_stays_so():
    """Such as positions that a network of somebody else's computes once."""

    class Fixed(TinyNet):
        def __init__(self, config: BackboneConfig) -> None:
            super().__init__(replace(config, frozen_stages=-1))
            self.stem[0].weight.requires_grad_(False)
            self.frozen_stages = config.frozen_stages
            self.freeze()

    backbone = Fixed(BackboneConfig(name="tiny", frozen_stages=4))
    assert not names(backbone)
    backbone.thaw()
    assert names(backbone) == {name for name, _ in backbone.named_parameters()} - {"stem.0.weight"}


def test_synchronised_norms_are_fixed_all_the_same():
    backbone = build_backbone(BackboneConfig(name="resnet18", frozen_stages=1, norm="fixed"))
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(backbone)
    synchronised.train()
    synchronised.thaw()
    norms = [module for module in synchronised.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(norms) == 20
    assert not any(norm.training for norm in norms)
    assert all(parameter.requires_grad for parameter in synchronised.parameters())


def kept_by(function: nn.Module, x: Tensor) -> tuple[Tensor, list[torch.Size]]:
    """What it makes of x, and the shapes of what is kept for the backward pass."""
    kept: list[torch.Size] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        return function(x), kept


def batchnorms() -> tuple[BatchNorm, nn.BatchNorm2d]:
    """Ours and PyTorch's, both in evaluation, with the same statistics, scale and shift."""
    ours, theirs = BatchNorm(6).eval(), nn.BatchNorm2d(6).eval()
    for value in theirs.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 2)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_a_frozen_batchnorm_keeps_nothing_and_gives_the_same():
    x, gradient = torch.randn(2, 6, 5, 7, requires_grad=True), torch.randn(2, 6, 5, 7)
    ours, theirs = batchnorms()
    for eps in (1e-5, 0.1):
        ours.requires_grad_(False).eps = theirs.eps = eps
        y, kept = kept_by(ours, x)
        assert kept
        assert x.shape not in kept
        torch.testing.assert_close(y, theirs(x))
        expected = torch.autograd.grad(theirs(x), x, gradient)
        torch.testing.assert_close(torch.autograd.grad(y, x, gradient), expected)
    assert torch.equal(ours.train()(x), theirs.train()(x))


@pytest.mark.parametrize("trains", ["weight", "bias", "statistics"])
def test_a_batchnorm_of_which_something_trains_is_pytorchs(trains: str):
    """To the last bit, and with a copy of its input, which the gradient of the scale needs."""
    x = torch.randn(2, 6, 5, 7, requires_grad=True)
    ours, theirs = batchnorms()
    for norm in (ours, theirs):
        norm.train(trains == "statistics")
        for name, parameter in norm.named_parameters():
            parameter.requires_grad_(name == trains)
    y, kept = kept_by(ours, x)
    assert x.shape in kept
    assert torch.equal(y, theirs(x))
    assert torch.equal(ours.running_mean, theirs.running_mean)


def test_a_frozen_batchnorm_in_evaluation_and_under_mixed_precision_is_pytorchs():
    ours, theirs = (norm.requires_grad_(False) for norm in batchnorms())
    x = torch.randn(2, 6, 5, 7)
    assert torch.equal(ours(x), theirs(x))
    half = x.bfloat16().requires_grad_()
    assert ours(half).dtype == torch.bfloat16
    assert torch.equal(ours(half), theirs(half))


def test_all_norms_of_a_resnet_know_how_to_keep_nothing():
    with torch.device("meta"):
        norms = build_backbone(BackboneConfig(name="resnet18")).norms()
    assert len(norms) == 20
    assert {type(norm) for norm in norms} == {BatchNorm}


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


@pytest.mark.parametrize("frozen", [-1, 0])
def test_checkpointing_keeps_maps_alone_and_only_in_training(frozen: int):
    """Also below a frozen stem, whose output asks for no gradient."""
    kept = {}
    for checkpointing in (False, True):
        backbone = build_backbone(BackboneConfig(name="tiny", frozen_stages=frozen, checkpointing=checkpointing))
        for training in (False, True):
            maps, shapes = kept_by(backbone.train(training), torch.randn(1, 3, 32, 32))
            kept[checkpointing, training] = len(shapes)
            sum(features.sum() for features in maps).backward()
            assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())
    assert kept[True, True] < kept[False, True] / 4
    assert kept[True, False] == kept[False, False] > kept[False, True] / 2
