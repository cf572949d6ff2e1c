"""AdamW, its parameter groups, and the learning rate over the course of training."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from queryinst.config import OptimizerConfig, ScheduleConfig


def parameter_groups(model: nn.Module, config: OptimizerConfig, lr: float) -> list[dict[str, Any]]:
    """Every trainable parameter in exactly one of at most four groups: backbone or rest, with or without weight decay.

    Few groups let the fused optimizer work on many tensors at once. A parameter without decay has one of `undecayed` in
    its name.
    """
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        where = "backbone" if name.startswith("backbone.") else "rest"
        decay = 0.0 if any(part in name for part in config.undecayed) else config.weight_decay
        group = groups.setdefault(
            where if decay else f"{where} without decay",
            {"params": [], "lr": lr * (config.backbone_factor if where == "backbone" else 1.0), "weight_decay": decay},
        )
        group["params"].append(parameter)
    return [{"name": name, **group} for name, group in groups.items()]


def optimizer(model: nn.Module, config: OptimizerConfig, batch_size: int, fused: bool = True) -> torch.optim.AdamW:
    """AdamW with the learning rate scaled linearly from `lr_batch` to the images of a step."""
    lr = config.lr * batch_size / config.lr_batch
    return torch.optim.AdamW(
        parameter_groups(model, config, lr), lr=lr, betas=(config.betas[0], config.betas[1]), fused=fused
    )


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
