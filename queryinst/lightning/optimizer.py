"""AdamW, its parameter groups, and the learning rate over the course of training."""

import math
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatch
from typing import Any, cast

import torch
from torch import nn

from queryinst.config import OptimizerConfig, ScheduleConfig
from queryinst.models.layers import layers_of, never_decayed


def parameter_groups(
    model: nn.Module,
    config: OptimizerConfig,
    lr: float,
    thawing: Collection[str] = (),
    learning: Mapping[str, nn.Parameter] | None = None,
) -> list[dict[str, Any]]:
    """Every parameter that trains, or will, in exactly one group: backbone or rest, with or without weight decay.

    Few groups let the fused optimizer work on many tensors at once, so the backbone is cut into its layers only where
    `layer_decay` gives each a learning rate of its own: of L layers, `layer_decay` ** (L - k) for layer k, counted from
    0 (BEiT's rule). A parameter without decay has one of `undecayed` in its name, or is what `undecayed_vectors` means.

    Args:
        model: the network.
        config: what is said of the groups.
        lr: of the rest.
        thawing: names of the parameters of the backbone that will train later on.
        learning: all parameters by name, where there are more than the network's.

    Raises:
        UserError: nobody says which layers the backbone has.
    """
    groups: dict[str, dict[str, Any]] = {}
    backbone = cast(nn.Module, model.backbone)
    layers = layers_of(backbone) if config.layer_decay != 1.0 else {}
    layers = {f"backbone.{name}": number for name, number in layers.items()}
    told = [f"backbone.{name}" for name in never_decayed(backbone)] if config.undecayed_vectors else []
    depth = 1 + max(layers.values(), default=0)
    for name, parameter in (learning or dict(model.named_parameters())).items():
        inside = name.startswith("backbone.")
        if not parameter.requires_grad and not (inside and name.removeprefix("backbone.") in thawing):
            continue
        where = f"backbone layer {layers[name]}" if name in layers else "backbone" if inside else "rest"
        rate = lr * (config.backbone_factor if inside else 1.0)
        rate *= config.layer_decay ** (depth - layers[name]) if name in layers else 1.0
        vector = parameter.ndim <= 1 or any(fnmatch(name, pattern) for pattern in told)
        free = any(part in name for part in config.undecayed) or (config.undecayed_vectors and vector)
        decay = 0.0 if free else config.weight_decay
        group = groups.setdefault(
            where if decay else f"{where} without decay", {"params": [], "lr": rate, "weight_decay": decay}
        )
        group["params"].append(parameter)
    return [{"name": name, **group} for name, group in groups.items()]


def optimizer(
    model: nn.Module,
    config: OptimizerConfig,
    batch_size: int,
    fused: bool = True,
    thawing: Collection[str] = (),
    learning: Mapping[str, nn.Parameter] | None = None,
) -> torch.optim.AdamW:
    """AdamW with the learning rate scaled linearly from `lr_batch` to the images of a step.

    What has no gradient yet it leaves as it is, also by weight decay.
    """
    lr = config.lr * batch_size / config.lr_batch
    groups = parameter_groups(model, config, lr, thawing, learning)
    return torch.optim.AdamW(groups, lr=lr, betas=(config.betas[0], config.betas[1]), fused=fused)


def learning_rate(config: ScheduleConfig, steps_per_epoch: int) -> Callable[[int], float]:
    """The factor on the learning rate at each optimizer step: warm-up counted in steps, milestones in epochs.

    Warm-up is linear from `warmup_factor` to 1 and multiplies the decay, as in MMDetection and PaddleDetection.
    """

    def factor(step: int) -> float:
        warm = min(1.0, step / config.warmup_iterations) if config.warmup_iterations else 1.0
        rise = config.warmup_factor + (1 - config.warmup_factor) * warm
        epoch = step / steps_per_epoch
        if config.decay == "cosine":
            return rise * (1 + math.cos(math.pi * min(1.0, epoch / config.epochs))) / 2
        return rise * config.gamma ** sum(epoch >= milestone for milestone in config.milestones)

    return factor
