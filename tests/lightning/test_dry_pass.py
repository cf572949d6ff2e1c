"""One pass through each part that is not ours: what keeps its contract passes, what breaks it is one sentence."""

import dataclasses

import pytest
import torch
from conftest import Write
from good_parts import (
    CONTENT,
    KINDS,
    said,
    tiny,
    tried,
    with_part,
)

from queryinst.criterion.criterion import Criterion
from queryinst.errors import UserError
from queryinst.lightning import dry_pass as module
from queryinst.lightning.dry_pass import dry_pass
from queryinst.lightning.own import OwnMetrics
from queryinst.models.queryinst import QueryInst


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
