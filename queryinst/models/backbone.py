"""Backbones: four feature maps C2..C5 at strides 4, 8, 16, 32."""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import BasicBlock
from torchvision.models.swin_transformer import SwinTransformer

from queryinst.config import BackboneConfig
from queryinst.errors import UserError
from queryinst.library_names import check_library, library_of
from queryinst.part_config import Used
from queryinst.slots import RESNETS, is_library, is_ours, make


class Backbone(nn.Module):
    """What every backbone shares: how much of it is frozen.

    `frozen_stages` counts the stem and then C2, C3, ... from the front: 1 freezes stem and C2, 0 the stem, -1 nothing.
    `norm` says what BatchNorm does in training: "batch" uses and updates batch statistics, "fixed" keeps the pretrained
    statistics and trains scale and shift (MMDetection's `norm_eval`), "frozen" trains neither (PaddleDetection's
    `freeze_norm`).
    """

    channels: tuple[int, int, int, int]

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.frozen_stages = config.frozen_stages
        self.frozen: list[nn.Parameter] = []  # by `frozen_stages` alone
        self.norm = config.norm
        self.checkpointing = config.checkpointing

    def parts(self) -> list[nn.Module]:
        """The stem and the four stages, front to back."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Called once the parts exist: what does not train gets no gradient and is in evaluation mode from then on."""
        if self.norm == "frozen":
            for norm in self.norms():
                norm.requires_grad_(False)
        for part in self.parts()[: self.frozen_stages + 1]:
            self.frozen += [parameter for parameter in part.parameters() if parameter.requires_grad]
            part.requires_grad_(False)
        self.train()

    def thaw(self) -> None:
        """Let the frozen stages train as the others do; what `norm` freezes stays frozen."""
        for parameter in self.frozen:
            parameter.requires_grad_(True)
        self.frozen_stages, self.frozen = -1, []
        self.train(self.training)

    def norms(self) -> list[nn.Module]:
        """Also where several devices have exchanged them for synchronised ones."""
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)]

    def train(self, mode: bool = True) -> "Backbone":
        """As `nn.Module.train`, but what is frozen stays as in evaluation."""
        super().train(mode)
        for part in self.parts()[: self.frozen_stages + 1]:
            part.eval()
        if self.norm != "batch":
            for norm in self.norms():
                norm.eval()
        return self

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to C2..C5, each (B, channels[i], H / stride, W / stride)."""
        stem, *stages = self.parts()
        x = stem(x)
        maps = []
        for stage in stages:
            again = self.checkpointing and self.training and torch.is_grad_enabled()
            x = checkpoint(stage, x, use_reentrant=False) if again else stage(x)
            maps.append(x)
        return maps


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that, where neither statistics nor parameters train, keeps no copy of its input for the backward pass.

    PyTorch's keeps one, used or not: half of the memory that a ResNet holds. The numbers are the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        trains = self.training or self.weight.requires_grad or self.bias.requires_grad
        # Under mixed precision, and in evaluation, there is nothing to win.
        if trains or not x.requires_grad or x.dtype != self.weight.dtype:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


class ResNet(Backbone):
    """torchvision's ResNet without its classifier; stride 2 on the 3x3 convolution ("pytorch" style)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.body = torchvision.models.get_model(config.name, weights=None, norm_layer=BatchNorm)
        del self.body.fc, self.body.avgpool
        width = 512 if config.name in ("resnet18", "resnet34") else 2048
        self.channels = (width // 8, width // 4, width // 2, width)
        self.freeze()

    def parts(self) -> list[nn.Module]:
        body = self.body
        stem = nn.Sequential(body.conv1, body.bn1, body.relu, body.maxpool)
        return [stem, body.layer1, body.layer2, body.layer3, body.layer4]


class TinyNet(Backbone):
    """A residual network small enough to train from scratch on a laptop's CPU in minutes (for the `shapes` data)."""

    channels = (48, 64, 96, 128)

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        widths = (24, *self.channels)
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)
        )
        self.layers = nn.ModuleList(self._stage(before, after) for before, after in itertools.pairwise(widths))
        self.freeze()

    @staticmethod
    def _stage(before: int, after: int) -> nn.Module:
        """Half the size, in two residual blocks."""
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, 2, bias=False), nn.BatchNorm2d(after))
        return nn.Sequential(BasicBlock(before, after, stride=2, downsample=shortcut), BasicBlock(after, after))

    def parts(self) -> list[nn.Module]:
        return [self.stem, *self.layers]


SWINS = {  # channels of C2, blocks of each stage, attention heads of each stage
    "swin_t": (96, [2, 2, 6, 2], [3, 6, 12, 24]),
    "swin_s": (96, [2, 2, 18, 2], [3, 6, 12, 24]),
    "swin_b": (128, [2, 2, 18, 2], [4, 8, 16, 32]),
    "swin_l": (192, [2, 2, 18, 2], [6, 12, 24, 48]),
}


class Swin(Backbone):
    """torchvision's Swin Transformer, windows of 7, with a LayerNorm on each map it gives out, as for detection."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        width, depths, heads = SWINS[config.name]
        self.body = SwinTransformer(
            [4, 4], width, depths, heads, window_size=[7, 7], stochastic_depth_prob=config.drop_path
        )
        del self.body.norm, self.body.head, self.body.avgpool, self.body.permute, self.body.flatten
        self.channels = (width, 2 * width, 4 * width, 8 * width)
        self.out_norms = nn.ModuleList(nn.LayerNorm(channels) for channels in self.channels)
        self.freeze()

    def parts(self) -> list[nn.Module]:
        stem, *rest = self.body.features
        return [stem, rest[0], *(nn.Sequential(*rest[i : i + 2]) for i in (1, 3, 5))]

    def forward(self, x: Tensor) -> list[Tensor]:
        """As every backbone's; inside, channels come last."""
        return [norm(x).permute(0, 3, 1, 2) for norm, x in zip(self.out_norms, super().forward(x), strict=True)]


OURS = dict.fromkeys(RESNETS, ResNet) | dict.fromkeys(SWINS, Swin) | {"tiny": TinyNet}


def build_backbone(config: BackboneConfig) -> nn.Module:
    """The backbone that `config.name` names: ours, one of a library, or the user's own. Raises UserError."""
    part = Used("backbone", "backbone", config.name, config.args)
    if is_ours(part):
        return OURS[config.name](config)
    return library_backbone(part, config) if is_library(part) else made_module(part, config)


def library_backbone(part: Used, config: BackboneConfig) -> nn.Module:
    """One of timm's or torchvision's. Checked here as well: a checkpoint's configuration has seen no command line."""
    check_library(part)
    if library_of(part.name) == "timm":
        from queryinst.models.timm_backbone import TimmBackbone

        return TimmBackbone(config)
    from queryinst.models.torchvision_backbone import TorchvisionBackbone

    return TorchvisionBackbone(config)


def channels_of(backbone: nn.Module) -> list[int]:
    """Of the four maps of a backbone. Raises UserError where it does not say so."""
    channels = getattr(backbone, "channels", None)
    if not isinstance(channels, Sequence) or len(channels) != 4 or not all(isinstance(c, int) for c in channels):
        raise UserError(
            f"the backbone {type(backbone).__name__} must have an attribute `channels`, of its maps at strides 4, 8, "
            f"16 and 32, four whole numbers; got {channels!r} (queryinst/parts.py: BackbonePart)"
        )
    return list(channels)


def made_module(part: Used, *given: Any) -> nn.Module:
    """A backbone or head of the user's own. Raises UserError where it is no module of PyTorch, or cannot be made."""
    made = make(part, *given)
    if not isinstance(made, nn.Module):
        raise UserError(f"{part.key}.name={part.name} is no torch.nn.Module; got {type(made).__name__}")
    return made
