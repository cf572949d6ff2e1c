"""What a slot of the configuration takes, in each of the ways to write it."""

from typing import Any

import pytest

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.part_config import PartConfig, TermConfig, Used, opened, used


def said(node: Any, schema: type[PartConfig] = PartConfig) -> str:
    with pytest.raises(UserError) as caught:
        opened("metrics.mine", node, schema)
    return str(caught.value)


def test_a_part_is_a_name_and_settings():
    assert opened("metrics.mine", {"name": "a:B"}) == PartConfig("a:B", {})
    assert opened("metrics.mine", {"name": "a:B", "args": {"c": 1}}) == PartConfig("a:B", {"c": 1})


def test_a_term_has_a_weight():
    assert opened("criterion.terms.mine", {"name": "a:B"}, TermConfig) == TermConfig("a:B", {}, 1.0)
    made = opened("criterion.terms.mine", {"name": "a:B", "weight": 2}, TermConfig)
    assert (made.weight, type(made.weight)) == (2.0, float)
    assert opened("criterion.terms.mine", {"name": "a:B", "weight": 0}, TermConfig).weight == 0


def test_hydras_way_to_write_a_part():
    node = {"_target_": "lab.nets.Net", "depth": 3, "name": "x"}
    assert opened("metrics.mine", node) == PartConfig("lab.nets:Net", {"depth": 3, "name": "x"})


@pytest.mark.parametrize("node", ["a:B", None, ["a:B"], 3])
def test_what_is_no_part(node: Any):
    assert said(node) == f"metrics.mine is a part, with name, args; got {node!r}: write metrics.mine.name=module:Name"


def test_an_unknown_setting_of_a_part():
    assert said({"name": "a:B", "arg": {}}) == (
        "metrics.mine has no setting 'arg'; did you mean 'args'?; its settings are name, args, and those of the part "
        "itself are below metrics.mine.args"
    )
    assert said({"name": "a:B", "weight": 1}).startswith("metrics.mine has no setting 'weight'; its settings are")
    assert said({"name": "a:B", 1: 1}).startswith("metrics.mine has no setting '1'; its settings are")


@pytest.mark.parametrize("node", [{}, {"name": None}, {"name": 3}, {"args": {"c": 1}}])
def test_a_part_without_a_name(node: Any):
    assert said(node) == "metrics.mine.name must be given: module:Name of your own"


@pytest.mark.parametrize("args", [None, [1, 2], "c"])
def test_settings_that_have_no_names(args: Any):
    assert said({"name": "a:B", "args": args}) == f"metrics.mine.args takes settings by their names; got {args!r}"


@pytest.mark.parametrize("weight", ["much", None, [1.0], True])
def test_a_weight_that_is_no_number(weight: Any):
    node = {"name": "a:B", "weight": weight}
    assert said(node, TermConfig) == f"metrics.mine.weight takes a number; got {weight!r}"


@pytest.mark.parametrize("weight", [-1, -0.5, float("nan"), float("inf")])
def test_a_weight_out_of_range(weight: float):
    node = {"name": "a:B", "weight": weight}
    assert said(node, TermConfig) == f"metrics.mine.weight must be a finite number, at least 0; got {weight}"


def test_every_part_of_a_configuration_in_order():
    config = TrainConfig()
    ours = [Used("model.box_head", "box_head", "dynamic", {}), Used("model.mask_head", "mask_head", "dynamic", {})]
    ours += [
        Used("backbone", "backbone", "resnet50", {}),
        Used("criterion.classification", "classification", "focal", {}),
    ]
    assert list(used(config)) == [*ours, Used("data.reader", "reader", "coco", {})]
    config.backbone.name, config.backbone.args = "a:B", {"depth": 3}
    config.criterion.terms = {"second": {"name": "a:T"}, "first": {"_target_": "a.U", "c": 1}}
    config.criterion.costs = {"cost": {"name": "a:C", "weight": 3}}
    config.augmentation.steps = {"step": {"name": "a:S"}}
    config.metrics = {"metric": {"name": "a:M"}}
    config.callbacks.extra = {"call": {"name": "a:K"}}
    config.logger.extra = {"log": {"name": "a:L"}}
    assert [(part.key, part.slot, part.name, part.args) for part in used(config)] == [
        ("model.box_head", "box_head", "dynamic", {}),
        ("model.mask_head", "mask_head", "dynamic", {}),
        ("backbone", "backbone", "a:B", {"depth": 3}),
        ("criterion.classification", "classification", "focal", {}),
        ("criterion.terms.second", "loss_term", "a:T", {}),
        ("criterion.terms.first", "loss_term", "a:U", {"c": 1}),
        ("criterion.costs.cost", "matching_cost", "a:C", {}),
        ("data.reader", "reader", "coco", {}),
        ("augmentation.steps.step", "augmentation", "a:S", {}),
        ("metrics.metric", "metric", "a:M", {}),
        ("callbacks.extra.call", "callback", "a:K", {}),
        ("logger.extra.log", "logger", "a:L", {}),
    ]


def test_a_weight_belongs_only_to_what_is_added_up():
    config = TrainConfig(metrics={"metric": {"name": "a:M", "weight": 1}})
    with pytest.raises(UserError) as caught:
        list(used(config))
    assert str(caught.value).startswith("metrics.metric has no setting 'weight'")
