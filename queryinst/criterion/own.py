"""Losses and costs of the user's own, as a configuration names them."""

import functools
from collections.abc import Sequence
from typing import Any

from queryinst.criterion.losses import focal, quality_focal
from queryinst.criterion_config import CriterionConfig
from queryinst.errors import UserError
from queryinst.part_config import Used, several
from queryinst.parts import ClassificationLoss
from queryinst.slots import is_ours, make


def classification_of(config: CriterionConfig) -> ClassificationLoss:
    """The focal loss, that for targets below 1, or the user's own. Raises UserError."""
    part = Used("criterion.classification", "classification", config.classification.name, config.classification.args)
    if is_ours(part):
        loss = focal if config.class_target == "one" else quality_focal
        return functools.partial(loss, alpha=config.focal_alpha, gamma=config.focal_gamma)
    own: ClassificationLoss = make(part)
    return own


def made_terms(
    nodes: dict[str, Any], key: str, slot: str, reserved: Sequence[str] = ()
) -> dict[str, tuple[float, Any]]:
    """Weight and part for each name of a setting `criterion.terms` or `criterion.costs`. Raises UserError."""
    made = {}
    for part in several(key, slot, nodes):
        if part.word in reserved:
            raise UserError(f"{part.key}: QueryInst has a loss of that name; choose another")
        made[part.word] = (part.weight, make(part))
    return made
