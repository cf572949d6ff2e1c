"""A trained network prepared for use: the same answers, sooner. It cannot be trained, saved or loaded any more."""

import copy
import itertools

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from queryinst.models.backbone import ResNet, Swin, TinyNet
from queryinst.models.box_head import BoxHead
from queryinst.models.fpn import FPN
from queryinst.models.mask_head import MaskHead
from queryinst.models.proposals import Proposals
from queryinst.models.queryinst import QueryInst

OURS = (ResNet, Swin, TinyNet, FPN, BoxHead, MaskHead)
PRECISIONS = ("fp32", "bf16")


def deploy(model: QueryInst, precision: str = "fp32") -> QueryInst:
    """A copy of a network, on the same device, for test only: no BatchNorm, channels last, weights in their final type.

    It is called as any QueryInst is, without autocast. Its answers are those of the network in evaluation mode, to
    rounding of the precision. Boxes, scores and mask probabilities are float32 whatever the precision.

    Args:
        model: left as it is.
        precision: "fp32", or "bf16": weights are rounded once and all layers compute in bfloat16, about twice as fast
            on hardware that has it and slower on other.

    Raises:
        ValueError: there is no such precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    deployed = copy.deepcopy(model).eval().requires_grad_(False)
    for stage in deployed.stages[1:]:
        if stage.box is deployed.stages[0].box:  # what is done to one head must not be done to all
            stage.box = copy.deepcopy(stage.box)
    for part in known(deployed):
        fold(part)
    deployed.to(memory_format=torch.channels_last)
    if precision == "bf16":
        for part in (deployed.backbone, deployed.neck, *deployed.stages):
            part.to(torch.bfloat16)
        if isinstance(deployed.queries, Proposals):
            deployed.queries.features.data = deployed.queries.features.to(torch.bfloat16)  # the boxes are pixels
        else:
            deployed.queries.to(torch.bfloat16)
    return deployed


def known(model: QueryInst) -> list[nn.Module]:
    """The parts whose insides are ours, and in which one layer may take another's place. Others are called, no more."""
    heads = [head for stage in model.stages for head in (stage.box, stage.mask)]
    return [part for part in (model.backbone, model.neck, *heads) if type(part) in OURS]


def fold(module: nn.Module) -> None:
    """Multiply every BatchNorm below a module into its convolution, the one that was registered right before it."""
    children = list(module.named_children())
    for _, child in children:
        fold(child)
    for (conv_name, conv), (name, child) in itertools.pairwise(children):
        if isinstance(child, nn.BatchNorm2d):
            assert isinstance(conv, nn.Conv2d), f"{name} follows {conv_name}, which is no convolution"
            setattr(module, conv_name, fuse_conv_bn_eval(conv, child))
            setattr(module, name, nn.Identity())
