"""The pass through every part that is not ours before anything is trained: each broken contract is said, one by one."""

import dataclasses
from typing import Any

import pytest
import torch
from conftest import SMALL, Write

from queryinst.config import BackboneConfig, ModelConfig, TrainConfig
from queryinst.criterion.criterion import Criterion
from queryinst.errors import UserError
from queryinst.lightning import dry_pass as module
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_classes", [1, 2])
def test_a_part_that_keeps_its_contract_passes(write: Write, kind: str, num_classes: int):
    tried(with_part(write, kind), num_classes)


def test_all_of_them_together_pass_in_mixed_precision(write: Write):
    config = tiny()
    config.trainer.precision = "bf16-mixed"
    for kind in KINDS:
        config = with_part(write, kind, config=config)
    tried(config)


def test_parts_of_ours_are_not_tried(monkeypatch: pytest.MonkeyPatch):
    called: list[str] = []
    for name in ("_backbone", "_box_head", "_mask_head", "_classification"):
        monkeypatch.setattr(module, name, lambda *given, name=name: called.append(name))
    tried(tiny())
    assert called == []


def maps(change: str) -> tuple[str, str]:
    return ("torch.rand(1)", change)


BACKBONES: dict[str, tuple[tuple[str, str], str]] = {
    "three maps": (maps("maps.pop()"), "must give a list of four maps; got 3"),
    "one tensor": (maps("maps = maps[0]"), "must give a list of four maps; got Tensor"),
    "stride": (
        maps("maps[2] = maps[2][:, :, ::2]"),
        "must give as map C4, stride 16, of images 64 x 96 (2, 4, 4, 6); got (2, 4, 2, 6)",
    ),
    "none": (maps("maps[1] = None"), "must give as map C3, stride 8, of images 64 x 96 (2, 3, 8, 12); got NoneType"),
    "nan": (
        maps("maps[0] = maps[0] * float('nan')"),
        "must give finite as map C2, stride 4, of images 64 x 96; got torch.float32, NaN or infinite values among them",
    ),
    "detached": (
        maps("maps[3] = maps[3].detach()"),
        "gives as map C5, stride 32, of images 64 x 96 without a gradient: look for detach(), no_grad() or NumPy in it",
    ),
}


@pytest.mark.parametrize("fault", BACKBONES)
def test_a_backbone_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = BACKBONES[fault]
    where = "backbone.name=my_backbone:Net"
    assert said(write, "backbone", change) == f"{where} {sentence} (queryinst/parts.py: BackbonePart)"


def test_a_backbone_with_other_channels_than_it_says(write: Write):
    widths = ("widths = (2, *self.channels)", "widths = (2, 2, 3, 4, 6)")
    assert "must give as map C5, stride 32, of images 64 x 96 (2, 5, 2, 3); got (2, 6, 2, 3)" in said(
        write, "backbone", widths
    )


@pytest.mark.parametrize("channels", ["(2, 3, 4)", "5", "None", "(2, 3, 4, 5.0)"])
def test_a_backbone_that_does_not_say_its_channels(write: Write, channels: str):
    made = with_part(
        write, "backbone", ("channels = (2, 3, 4, 5)", f"channels = {channels}"), ("*self.channels", "2, 3, 4, 5")
    )
    with pytest.raises(UserError) as caught:
        tried(made)
    assert str(caught.value) == (
        "the backbone Net must have an attribute `channels`, of its maps at strides 4, 8, 16 and 32, four whole "
        f"numbers; got {channels} (queryinst/parts.py: BackbonePart)"
    )


def test_a_backbone_that_freezes_nothing(write: Write):
    config = tiny()
    config.backbone.frozen_stages = 1
    assert said(write, "backbone", ("self.freeze()", "pass"), config=config) == (
        "backbone.name=my_backbone:Net freezes nothing, and backbone.frozen_stages is 1: set backbone.frozen_stages=-1 "
        "(queryinst/parts.py: BackbonePart)"
    )


def test_a_backbone_that_freezes_what_it_should_or_all_of_it(write: Write):
    config = tiny()
    config.backbone.frozen_stages = 4
    tried(with_part(write, "backbone", config=config))


def test_a_part_that_fails(write: Write):
    sentence = said(write, "backbone", maps("raise KeyError('depth')"))
    assert sentence.startswith("backbone.name=my_backbone:Net fails on a made-up input: KeyError: 'depth' (")
    assert sentence.endswith("my_backbone.py, line 24)")


def test_a_part_that_is_no_module(write: Write):
    write("my_net.py", "def net(config): return 3")
    config = tiny()
    config.backbone.name = "my_net:net"
    with pytest.raises(UserError, match=r"^backbone.name=my_net:net is no torch.nn.Module; got int$"):
        tried(config)


OUTPUT = "StageOutput(self.cls(queries), made, queries, queries)"
BOX_HEADS = {
    "tuple": ("(made, made)", "must give a StageOutput; got tuple"),
    "logits": ("StageOutput(made, made, queries, queries)", "must give logits (2, 3, 2); got (2, 3, 4)"),
    "boxes": ("StageOutput(self.cls(queries), queries, queries, queries)", "must give boxes (2, 3, 4); got (2, 3, 16)"),
    "queries": ("StageOutput(self.cls(queries), made, made, queries)", "must give queries (2, 3, 16); got (2, 3, 4)"),
    "mask queries": (
        "StageOutput(self.cls(queries), made, queries, queries[0])",
        "must give mask_queries (2, 3, 16); got (3, 16)",
    ),
    "nan": (
        "StageOutput(self.cls(queries) / 0, made, queries, queries)",
        "must give finite logits; got torch.float32, NaN or infinite values among them",
    ),
    "detached": (
        "StageOutput(self.cls(queries), made, queries.detach(), queries)",
        "gives queries without a gradient: look for detach(), no_grad() or NumPy in it",
    ),
    "boxes as they were": (
        "StageOutput(self.cls(queries), boxes, queries, queries)",
        "gives boxes without a gradient: look for detach(), no_grad() or NumPy in it",
    ),
}


@pytest.mark.parametrize("fault", BOX_HEADS)
def test_a_box_head_that_breaks_its_contract(write: Write, fault: str):
    output, sentence = BOX_HEADS[fault]
    where = "model.box_head.name=my_box:Head"
    assert said(write, "box", (OUTPUT, output)) == f"{where} {sentence} (queryinst/parts.py: BoxHeadPart)"


def test_a_box_head_that_takes_all_images_for_one(write: Write):
    mixed = ("regions.mean((2, 3)).view_as(queries)", "regions.mean((2, 3))[None]")
    assert said(write, "box", mixed).startswith(
        "model.box_head.name=my_box:Head fails on a made-up input: RuntimeError"
    )


def test_boxes_in_half_precision(write: Write):
    half = ("self.reg(queries).float()", "self.reg(queries)"), ("made = boxes +", "made = boxes.to(torch.bfloat16) +")
    config = tiny()
    config.trainer.precision = "bf16-mixed"
    assert said(write, "box", *half, config=config) == (
        "model.box_head.name=my_box:Head must give float32 boxes in any precision; got torch.bfloat16 "
        "(queryinst/parts.py: BoxHeadPart)"
    )


FORWARD, CLASSIFY = "self.norm(regions) * queries[:, :, None, None]", 'return torch.einsum("nchw,nc->nhw"'
MASK_HEADS = {
    "features": (
        (FORWARD, "self.norm(regions).mean((2, 3))"),
        "must give features (3, channels, s, s) of 3 queries; got (3, 16)",
    ),
    "nothing": ((FORWARD, "None"), "must give features (3, channels, s, s) of 3 queries; got NoneType"),
    "which ignored": (
        ("features if which is None else features[which]", "features[torch.arange(len(labels)) % len(features)]"),
        "gives other masks with `which` than without: row i is of features which[i]",
    ),
    "which in another order": (
        ("features[which]", "features[which.sort().values]"),
        "gives other masks with `which` than without: row i is of features which[i]",
    ),
    "not square": (
        ("features if which is None", "features[..., :2] if which is None"),
        "must give mask logits (4, 4, 4); got (4, 4, 2)",
    ),
    "nan": (
        (CLASSIFY, 'return torch.tensor(torch.nan) * torch.einsum("nchw,nc->nhw"'),
        "must give finite mask logits; got torch.float32, NaN or infinite values among them",
    ),
    "detached": (
        ("self.logits.weight[labels].flatten(1))", "self.logits.weight[labels].flatten(1)).detach()"),
        "gives mask logits without a gradient: look for detach(), no_grad() or NumPy in it",
    ),
    "statistics of nothing": (
        (FORWARD, "self.norm(regions) + self.mean.copy_(regions.detach().mean())"),
        "spoils its statistics where a batch has no objects: mean becomes NaN",
    ),
}


@pytest.mark.parametrize("fault", MASK_HEADS)
def test_a_mask_head_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = MASK_HEADS[fault]
    where = "model.mask_head.name=my_mask:Head"
    assert said(write, "mask", change) == f"{where} {sentence} (queryinst/parts.py: MaskHeadPart)"


def test_a_mask_head_that_does_not_take_as_many_rows_as_it_is_asked_for(write: Write):
    change = (
        "features if which is None else features[which]",
        "features[:len(labels)]; labels = labels[:len(features)]",
    )
    assert "must give mask logits (4, 4, 4); got (3, 4, 4)" in said(write, "mask", change)


def test_a_mask_head_that_fails_with_one_row_in_training(write: Write):
    change = ("self.norm = nn.GroupNorm(1, config.width)", "self.norm = nn.BatchNorm1d(config.width)")
    called = (FORWARD, "regions * self.norm(queries)[:, :, None, None]")
    assert "ValueError: Expected more than 1 value per channel when training" in said(write, "mask", change, called)


def test_a_mask_head_that_fails_without_rows(write: Write):
    change = (FORWARD, "self.norm(regions) * queries[:, :, None, None] / max(queries.tolist())[0]")
    assert "my_mask:Head fails on a made-up input: ValueError: max()" in said(write, "mask", change)


SUM = "((logits - wanted) ** 2).sum((1, 2, 3))"
LOSSES = {
    "one number": ("(logits - wanted).sum()", "must give a sum a stage (2,); got ()"),
    "a number of Python": ("1.0", "must give a sum a stage (2,); got float"),
    "nan without pairs": (
        f"{SUM} * wanted.sum() / wanted.sum()",
        "must give finite a sum a stage; got torch.float32, NaN or infinite values among them",
    ),
    "detached": (
        f"{SUM}.detach()",
        "gives a sum a stage without a gradient: look for detach(), no_grad() or NumPy in it",
    ),
}


@pytest.mark.parametrize("fault", LOSSES)
def test_a_classification_loss_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = LOSSES[fault]
    where = "criterion.classification.name=my_loss:Loss"
    assert said(write, "loss", (SUM, change)) == f"{where} {sentence} (queryinst/parts.py: ClassificationLoss)"


STACK = "return torch.stack(sums)"
TERMS = {
    "one number": ("return sum(sums)", "must give a sum a stage, of 2 pairs, (2,); got ()"),
    "a list": ("return sums", "must give a sum a stage, of 2 pairs, (2,); got list"),
    "nan without pairs": (
        "return torch.stack(sums) / len(matches.image)",
        "must give finite a sum a stage, of 0 pairs,; got torch.float32, NaN or infinite values among them",
    ),
    "detached": (
        "return torch.stack(sums).detach()",
        "gives a sum a stage, of 2 pairs, without a gradient: look for detach(), no_grad() or NumPy in it",
    ),
    "whole numbers": (
        "return torch.stack(sums).long()",
        "must give finite a sum a stage, of 2 pairs,; got torch.int64, NaN or infinite values among them",
    ),
}


@pytest.mark.parametrize("fault", TERMS)
def test_a_loss_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = TERMS[fault]
    where = "criterion.terms.mine.name=my_term:Term"
    assert said(write, "term", (STACK, change)) == f"{where} {sentence} (queryinst/parts.py: LossTerm)"


def test_a_loss_that_cannot_do_without_pairs(write: Write):
    found = said(write, "term", (STACK, "return torch.stack(sums) * matches.image.max()"))
    assert found.startswith("criterion.terms.mine.name=my_term:Term fails on a made-up input: RuntimeError: max()")


def test_a_cost_of_another_shape(write: Write):
    found = said(write, "cost", ("/ wide", "/ wide + wanted.sum(-1)[None, :, :, None, None]"))
    assert found == (
        "criterion.costs.mine.name=my_cost:Cost must give costs (2, 2, 3, 2); got (1, 2, 2, 3, 2) "
        "(queryinst/parts.py: MatchingCost)"
    )


def test_a_cost_that_is_not_finite(write: Write):
    found = said(write, "cost", ("/ wide", "/ (wide - wide)"))
    assert found.endswith(
        "must give finite costs; got torch.float32, NaN or infinite values among them "
        "(queryinst/parts.py: MatchingCost)"
    )


ROLL = "np.roll(image, shift, 1), instances.take(np.arange(len(instances)))"
STEPS = {
    "of its own randomness": (
        "np.roll(image, np.random.randint(90), 1), instances",
        "augmentation.steps.mine.name=my_step:Step gives another result with the same randomness: it must come from "
        "`rng` alone (queryinst/parts.py: AugmentationStep)",
    ),
    "type": (
        "image / 255, instances",
        "augmentation.steps.mine must give an image (H, W, 3) of uint8 and Instances; got float64 (64, 96, 3) and "
        "Instances (queryinst/parts.py: AugmentationStep)",
    ),
    "order": (
        "image.transpose(2, 0, 1), instances",
        "augmentation.steps.mine must give an image (H, W, 3) of uint8 and Instances; got uint8 (3, 64, 96) and "
        "Instances (queryinst/parts.py: AugmentationStep)",
    ),
    "image alone": ("image, None", "augmentation.steps.mine must give an image (H, W, 3) of uint8 and Instances; got"),
    "nothing": ("None", "augmentation.steps.mine fails: TypeError: cannot unpack non-iterable NoneType object ("),
    "no pixels": (
        "image[:0], instances",
        "augmentation.steps.mine.name=my_step:Step gives an image (0, 96, 3) and objects with (1, 1, 1) boxes, labels, "
        "outlines (queryinst/parts.py: AugmentationStep)",
    ),
    "labels left out": (
        "image, __import__('dataclasses').replace(instances, labels=instances.labels[:0])",
        "augmentation.steps.mine.name=my_step:Step gives an image (64, 96, 3) and objects with (1, 0, 1) boxes, "
        "labels, outlines (queryinst/parts.py: AugmentationStep)",
    ),
}


@pytest.mark.parametrize("fault", STEPS)
def test_a_step_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = STEPS[fault]
    found = said(write, "step", (ROLL, change))
    assert found == sentence or (sentence.endswith(("got", "(")) and found.startswith(sentence))


METRICS = {
    "no numbers": (
        ('{"found": self.found}', '{"found": "many"}'),
        "metrics.mine: compute() must give numbers by their names; got {'found': 'many'} (queryinst/parts.py: Metric)",
    ),
    "one number": (
        ('{"found": self.found}', "self.found"),
        "metrics.mine: compute() must give numbers by their names; got 1 (queryinst/parts.py: Metric)",
    ),
    "fails": (('{"found": self.found}', "{}[1]"), "metrics.mine fails: KeyError: 1 ("),
    "fails without detections": (
        ("len(one.scores) for one", "1 / len(one.scores) for one"),
        "metrics.mine fails: ZeroDivisionError: division by zero (",
    ),
    "no method": (("def update", "def updated"), "metrics.mine fails: AttributeError: "),
}


@pytest.mark.parametrize("fault", METRICS)
def test_a_metric_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = METRICS[fault]
    assert said(write, "metric", change).startswith(sentence)


def test_metrics_are_as_after_a_reset(write: Write):
    config = with_part(write, "metric")
    model, metrics = QueryInst(config.model, config.backbone, 2), OwnMetrics(config.metrics, CONTENT)
    dry_pass(config, model, Criterion(config.criterion), metrics)
    assert metrics.compute() == {"mine/found": 0}


def test_everything_is_as_before(write: Write):
    """Weights, statistics, what trains and what is in evaluation mode, gradients, and torch's random numbers."""
    config = tiny()
    config.backbone.frozen_stages = 1
    for kind in KINDS:
        config = with_part(write, kind, config=config)
    model = QueryInst(config.model, config.backbone, 2)
    counter = torch.zeros(())
    model.backbone.register_buffer("calls", counter)
    model.backbone.register_forward_hook(lambda net, given, made: net.calls.add_(1) and None)
    model.stages[0].mask.norm.eval()
    first = next(iter(model.neck.parameters()))
    first.grad = torch.ones_like(first)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    trains = [parameter.requires_grad for parameter in model.parameters()]
    state = torch.random.get_rng_state()
    dry_pass(config, model, Criterion(config.criterion), OwnMetrics(config.metrics, CONTENT))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [part.training for part in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == trains
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(first.grad, torch.ones_like(first))
    assert all(parameter.grad is None for parameter in model.parameters() if parameter is not first)


def test_losses_that_remember_are_as_before(write: Write):
    remembers = ("sums = []", "self.calls = getattr(self, 'calls', 0) + 1; sums = []")
    config = with_part(write, "term", remembers)
    criterion = Criterion(config.criterion)
    dry_pass(config, QueryInst(config.model, config.backbone, 2), criterion)
    assert not hasattr(criterion.further["mine"][1], "calls")


def test_without_metrics_none_is_tried(write: Write):
    config = with_part(write, "metric", ('{"found": self.found}', "{}[1]"))
    dry_pass(config, QueryInst(config.model, config.backbone, 2), Criterion(config.criterion))
    assert dataclasses.asdict(config)["metrics"] == {"mine": {"name": "my_metric:Count"}}
