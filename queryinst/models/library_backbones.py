"""Backbones of timm and torchvision: the maps that a network of theirs has become C2..C5, frozen by stage as ours."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from queryinst.config import BackboneConfig
from queryinst.errors import UserError
from queryinst.models.backbone import Backbone
from queryinst.models.probe import probe, stride_of
from queryinst.models.simple_pyramid import MapNorm, SimplePyramid
from queryinst.ops.roi import STRIDES

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the images that a backbone is given


class LibraryBackbone(Backbone):
    """A network that somebody else wrote, under `body` with the names of its weights, and what detection adds to it.

    The input is changed from ImageNet's mean and deviation to those that the network was trained with. Where it has no
    BatchNorm, each map that it gives out gets a LayerNorm, as those of our Swin. Missing maps are made of the nearest
    one (`simple_pyramid.py`). What is added here is never frozen.
    """

    body: Any
    scale: Tensor
    shift: Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        self.config = config
        self.stage_of: dict[str, int] = {}  # 0 the stem, 1 C2, ..., 4 C5, by names of the body's parameters
        self.layer_of: dict[str, int] = {}  # 0 the stem, and so on to the layer whose output is the last map

    def body_maps(self, x: Tensor) -> list[Tensor]:
        """Of an image as the network wants it, from fine to coarse."""
        raise NotImplementedError

    def complete(self, maps: dict[int, int], mean: Sequence[float], std: Sequence[float]) -> None:
        """Add what the body lacks, and freeze what is to be frozen.

        Args:
            maps: channels of the maps that the body gives, by their strides, from fine to coarse.
            mean, std: of the images that it was trained on, of 0..1.
        """
        normed = any(isinstance(module, nn.BatchNorm2d) for module in self.body.modules())
        self.out_norms = nn.ModuleList(nn.Identity() if normed else MapNorm(width) for width in maps.values())
        self.pyramid = SimplePyramid([*maps], [*maps.values()])
        self.channels = self.pyramid.channels
        # In the weights, and so in every checkpoint: a library may change its mind about a name's mean.
        self.register_buffer("scale", torch.tensor([ours / theirs for ours, theirs in zip(STD, std, strict=True)]))
        shift = [(ours - theirs) / deviation for ours, theirs, deviation in zip(MEAN, mean, std, strict=True)]
        self.register_buffer("shift", torch.tensor(shift))
        for name, parameter in self.body.named_parameters():
            if name not in self.stage_of:  # distributed training wants a gradient of all that trains
                parameter.requires_grad_(False)
        self.freeze()

    def parts(self) -> list[nn.Module]:
        return [nn.ModuleList(_of_stage(self.body, self.stage_of, stage)) for stage in range(len(STRIDES) + 1)]

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.body_maps(torch.addcmul(self.shift[:, None, None], x, self.scale[:, None, None]))
        return self.pyramid([norm(features) for norm, features in zip(self.out_norms, maps, strict=True)])


def _of_stage(module: nn.Module, stage_of: dict[str, int], stage: int, prefix: str = "") -> list[nn.Module]:
    """The largest modules of which all parameters are of one stage, and the parameters that lie beside them."""
    stages = {stage_of.get(f"{prefix}{name}") for name, _ in module.named_parameters()}
    if stages == {stage}:
        return [module]
    if stage not in stages:
        return []
    beside = [p for name, p in module.named_parameters(recurse=False) if stage_of.get(f"{prefix}{name}") == stage]
    found: list[nn.Module] = [nn.ParameterList(beside)] if beside else []
    for name, child in module.named_children():
        found += _of_stage(child, stage_of, stage, f"{prefix}{name}.")
    return found


def probed(
    where: str, body: nn.Module, run: Callable[[Tensor], list[Tensor]]
) -> tuple[list[Tensor], dict[str, Tensor], list[int | None]]:
    """Maps, parameters and strides of a network. Raises UserError where it cannot take images of all sizes."""
    try:
        maps, parameters = probe(body, run)
    except Exception as error:  # whatever other people's networks do with a size that they do not expect
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"{where} does not take images of any size that is a multiple of 32, as training and evaluation have them "
            f"({reason}): choose a network that does, a ResNet, ConvNeXt, EfficientNet or ViT, say"
        ) from error
    return maps, parameters, [stride_of(features) for features in maps]


def last_of_strides(where: str, strides: Sequence[int | None]) -> dict[int, int]:
    """For each stride up to 32 that a network has, which of its maps is the last of it. Raises UserError for none."""
    last = {stride: index for index, stride in enumerate(strides) if stride and stride <= STRIDES[-1]}
    if not any(stride >= STRIDES[0] for stride in last):
        raise UserError(
            f"{where} has no map whose side is a 4th, 8th, 16th or 32nd of the image's, of which the others could be "
            "made: choose another network"
        )
    return last


def stages_of(strides: Sequence[int], uses: dict[str, int]) -> dict[str, int]:
    """The stage of each parameter, 0 for the stem, from the first map that it has a part in."""
    return {name: sum(strides[index] >= stride for stride in STRIDES) for name, index in uses.items()}
