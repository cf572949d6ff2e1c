"""Parts of a user's own that keep their contracts, as text, to be changed where a test wants one broken."""

from typing import Any

import pytest
import torch
from conftest import SMALL, Write

from queryinst.config import BackboneConfig, ModelConfig, TrainConfig
from queryinst.criterion.criterion import Criterion
from queryinst.errors import UserError
from queryinst.lightning.dry_pass import dry_pass
from queryinst.lightning.own import OwnMetrics
from queryinst.models.queryinst import QueryInst

CONTENT = {"images": [{"id": 7, "height": 40, "width": 50}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}

BACKBONE = """
    import torch
    from torch import nn
    from queryinst.models.backbone import Backbone

    class Net(Backbone):
        channels = (2, 3, 4, 5)

        def __init__(self, config):
            super().__init__(config)
            self.stem = nn.Conv2d(3, 2, 3, 2, 1)
            widths = (2, *self.channels)
            self.stages = nn.ModuleList(
                nn.Sequential(nn.Conv2d(widths[i], widths[i + 1], 3, 2, 1), nn.BatchNorm2d(widths[i + 1]))
                for i in range(4)
            )
            self.freeze()

        def parts(self):
            return [self.stem, *self.stages]

        def forward(self, x):
            maps = super().forward(x)
            torch.rand(1)
            return maps
"""
BOX_HEAD = """
    import torch
    from torch import nn
    from queryinst.models.box_head import BoxHead
    from queryinst.structures import StageOutput

    class Head(nn.Module):
        def __init__(self, config, num_classes):
            super().__init__()
            self.cls = nn.Linear(config.width, num_classes)
            self.reg = nn.Linear(config.width, 4)

        def forward(self, queries, regions, boxes):
            queries = queries + regions.mean((2, 3)).view_as(queries)
            made = boxes + self.reg(queries).float()
            return StageOutput(self.cls(queries), made, queries, queries)
"""
MASK_HEAD = """
    import torch
    from torch import nn

    class Head(nn.Module):
        def __init__(self, config, num_classes):
            super().__init__()
            self.norm = nn.GroupNorm(1, config.width)
            self.register_buffer("mean", torch.zeros(()))
            self.logits = nn.Conv2d(config.width, num_classes, 1)

        def forward(self, queries, regions):
            return self.norm(regions) * queries[:, :, None, None]

        def classify(self, features, labels, which=None):
            features = features if which is None else features[which]
            return torch.einsum("nchw,nc->nhw", features, self.logits.weight[labels].flatten(1))
"""
LOSS = """
    class Loss:
        def __call__(self, logits, wanted):
            return ((logits - wanted) ** 2).sum((1, 2, 3))
"""
TERM = """
    import torch

    class Term:
        def __call__(self, stages, masks, matches, targets, sizes):
            sums = []
            for stage, drawn, query, target in zip(stages, masks, matches.query, matches.target):
                found = stage.boxes[matches.image, query]
                sums.append((found - targets.boxes[target]).abs().sum() + drawn.sum())
            return torch.stack(sums)
"""
COST = """
    class Cost:
        def __call__(self, logits, boxes, labels, wanted, sizes):
            wide = (wanted[..., 2] - wanted[..., 0])[None, :, None]
            return (boxes[..., None, 0] - wanted[None, :, None, :, 0]).abs() / wide
"""
STEP = """
    import numpy as np

    class Step:
        def __call__(self, image, instances, rng):
            instances.boxes[:] += 1
            shift = rng.integers(5)
            return np.roll(image, shift, 1), instances.take(np.arange(len(instances)))
"""
METRIC = """
    class Count:
        def __init__(self, content):
            self.content = content

        def reset(self):
            self.found = 0

        def update(self, image_ids, found):
            assert image_ids == [self.content["images"][0]["id"]]
            self.found += sum(len(one.scores) for one in found)

        def compute(self):
            return {"found": self.found}
"""
KINDS = {
    "backbone": ("backbone", "Net", BACKBONE),
    "box": ("model.box_head", "Head", BOX_HEAD),
    "mask": ("model.mask_head", "Head", MASK_HEAD),
    "loss": ("criterion.classification", "Loss", LOSS),
    "term": ("criterion.terms.mine", "Term", TERM),
    "cost": ("criterion.costs.mine", "Cost", COST),
    "step": ("augmentation.steps.mine", "Step", STEP),
    "metric": ("metrics.mine", "Count", METRIC),
}


def tiny() -> TrainConfig:
    small = ModelConfig(**{**SMALL, "box_resolution": 3, "mask_resolution": 4})
    return TrainConfig(model=small, backbone=BackboneConfig(name="tiny", frozen_stages=-1, norm="batch"))


def with_part(write: Write, kind: str, *changes: tuple[str, str], config: TrainConfig | None = None) -> TrainConfig:
    """A small run with a part that keeps its contract, but for changes of its source: before and after."""
    key, name, source = KINDS[kind]
    for before, after in changes:
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    write(f"my_{kind}.py", source)
    config = config or tiny()
    *above, last = key.split(".")
    node: Any = config
    for word in above:
        node = getattr(node, word)
    if isinstance(node, dict):
        node[last] = {"name": f"my_{kind}:{name}"}
    else:
        getattr(node, last).name = f"my_{kind}:{name}"
    return config


def tried(config: TrainConfig, num_classes: int = 2) -> None:
    torch.manual_seed(0)
    model = QueryInst(config.model, config.backbone, num_classes)
    dry_pass(config, model, Criterion(config.criterion), OwnMetrics(config.metrics, CONTENT))


def said(write: Write, kind: str, *changes: tuple[str, str], config: TrainConfig | None = None) -> str:
    with pytest.raises(UserError) as caught:
        tried(with_part(write, kind, *changes, config=config))
    return str(caught.value)
