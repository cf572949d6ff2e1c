"""Settings of what exists in training only: further groups of queries that pass the same stages as the network's own.

Part of the tree in `config.py`; what is not used there is None. No torch in this file.
"""

from dataclasses import dataclass

from queryinst.settings import setting


@dataclass
class DenoisingConfig:
    """Ground truth with noise, as queries that know which object is theirs (DN-DETR, arXiv 2203.01305)."""

    number: int = setting(
        100,
        "noised queries of an image: as many copies of its objects as fit into it, at least one",
        at_least=1,
        at_most=10_000,
    )
    box_noise: float = setting(
        0.4, "how far a corner moves at most, over half the side of its box", at_least=0, at_most=0.99
    )
    label_noise: float = setting(0.25, "probability of another class at random", at_least=0, at_most=1)
    negatives: bool = setting(
        True,
        "for each query one with more noise, up to twice as much, that is to find nothing (DINO, arXiv 2203.03605)",
    )
    masks: bool = setting(True, "draw their masks too (Mask DINO, arXiv 2206.02777)")
    weight: float = setting(1.0, "weight of their losses", at_least=0)


@dataclass
class OneToManyConfig:
    """A branch of queries of its own for which each object counts several times (H-DETR, arXiv 2207.13080)."""

    num_proposals: int | None = setting(
        None, "its learnable queries (T); empty: three times as many as the network has", at_least=1, at_most=30_000
    )
    times: int = setting(6, "queries that are matched with each object (K)", at_least=1, at_most=1000)
    masks: bool = setting(True, "draw their masks too")
    weight: float = setting(1.0, "weight of their losses", at_least=0)


@dataclass
class RecollectionConfig:
    """Queries enter not only the next stage, but the one after it too (SQR, arXiv 2212.07593)."""

    masks: bool = setting(True, "draw their masks too")
    weight: float = setting(1.0, "weight of their losses", at_least=0)


@dataclass
class SignalsConfig:
    """What else the stages learn from. At test nothing of it is there."""

    denoising: DenoisingConfig | None = setting(None, "noised ground truth as queries; empty: none", identity="set")
    one_to_many: OneToManyConfig | None = setting(None, "a one-to-many branch; empty: none", identity="set")
    recollection: RecollectionConfig | None = setting(
        None, "queries of a stage enter the one after the next too; empty: they do not", identity="set"
    )
