"""Settings of matching and losses. Part of the tree in `config.py`; no torch in this file."""

from dataclasses import dataclass
from typing import Any

from queryinst.part_config import PartConfig, slot, slots
from queryinst.settings import setting


@dataclass
class CriterionConfig:
    classification: PartConfig = slot("classification", "focal", "classification loss")
    terms: dict[str, Any] = slots("loss_term", "further losses: +criterion.terms.NAME.name=module:Name, and .weight")
    costs: dict[str, Any] = slots("matching_cost", "further costs: +criterion.costs.NAME.name=module:Name, and .weight")
    matches_per_object: list[int] = setting(
        [],
        "queries that are matched with each object, stage by stage: [3,2,1] tightens, [1,2,3] loosens as in Dynamic "
        "Sparse R-CNN (arXiv 2205.02101); empty: one in each",
        at_least=1,
        at_most=1000,
        identity="set",
    )
    class_weight: float = setting(2.0, "weight of the focal loss", at_least=0)
    class_target: str = setting(
        "one",
        "what the score of a matched query should be: one, or the IoU of its box or its mask with the object, so that "
        "scores tell how good a detection is (GFL, arXiv 2006.04388; Align-DETR, arXiv 2304.07527)",
        choices=("one", "box", "mask"),
        identity="set",
    )
    l1_weight: float = setting(5.0, "weight of the L1 loss on normalised boxes", at_least=0)
    giou_weight: float = setting(2.0, "weight of the generalized IoU loss", at_least=0)
    mask_weight: float = setting(8.0, "weight of the dice loss", at_least=0)
    mask_entropy_weight: float = setting(
        0.0,
        "weight of the cross-entropy of masks, mean over pixels, beside the dice loss (Mask2Former, arXiv 2112.01527)",
        at_least=0,
        identity="set",
    )
    mask_points: int = setting(
        0,
        "compare masks at so many points, most of them where the mask is unsure, instead of in each cell of it "
        "(PointRend, arXiv 1912.08193, has 196; a mask has 784 cells); 0: in each cell",
        at_least=0,
        at_most=100_000,
        identity="set",
    )
    mask_quality_weight: float = setting(
        1.0, "with model.mask_quality, weight of the squared error of its guesses", at_least=0, identity="set"
    )
    association_weight: float = setting(1.0, "weight of the association loss", at_least=0, identity="set")
    association_loss: str = setting(
        "contrastive_focal", "how embeddings learn", choices=("contrastive_focal", "cross_entropy"), identity="set"
    )
    class_cost: float = setting(2.0, "weight of the focal cost in matching", at_least=0)
    class_cost_overlap: float = setting(
        0.0,
        "in the class cost, multiply scores by (generalized IoU + 1) / 2 to this power: queries whose boxes fit are "
        "matched sooner (Stable-DINO, arXiv 2304.04742, has 0.5); 0 as published",
        at_least=0,
        at_most=10,
        identity="set",
    )
    l1_cost: float = setting(5.0, "weight of the L1 cost in matching", at_least=0)
    giou_cost: float = setting(2.0, "weight of the generalized IoU cost in matching", at_least=0)
    focal_alpha: float = setting(
        0.25, "weight of positives against negatives in the focal loss and cost", at_least=0, at_most=1
    )
    focal_gamma: float = setting(2.0, "focus on hard examples in the focal loss and cost", at_least=0)
    mask_samples: int = setting(
        2, "samples a side per cell of a mask target; 0: as many as it has pixels, as the references", at_least=0
    )
