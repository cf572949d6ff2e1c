"""Parameter groups are disjoint and complete; the learning rate does what the recipes say."""

import itertools
import math
from typing import Any

import pytest
import timm
from conftest import small_model
from timm.optim import param_groups_layer_decay
from torch import nn

from queryinst.config import BackboneConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from queryinst.errors import UserError
from queryinst.lightning.callbacks.thaw import thawing
from queryinst.lightning.optimizer import learning_rate, optimizer, parameter_groups
from queryinst.models.queryinst import QueryInst
from queryinst.studies.command import compose


@pytest.mark.parametrize(
    ("undecayed", "frozen", "norm"),
    list(itertools.product([[], ["norm", "bn"]], [-1, 1], ["batch", "fixed", "frozen"])),
)
def test_every_trainable_parameter_is_in_one_group(undecayed: list[str], frozen: int, norm: str):
    backbone = BackboneConfig(name="resnet18", frozen_stages=frozen, norm=norm)
    model = QueryInst(
        ModelConfig(width=16, dynamic_width=8, ffn_width=8, num_stages=1, num_proposals=3), backbone, num_classes=3
    )
    groups = parameter_groups(model, OptimizerConfig(undecayed=undecayed), lr=1.0)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(groups) <= 4
    of_backbone = {id(parameter) for parameter in model.backbone.parameters()}
    for group in groups:
        assert group["lr"] == (0.1 if group["name"].startswith("backbone") else 1.0)
        assert all(
            (id(parameter) in of_backbone) == group["name"].startswith("backbone") for parameter in group["params"]
        )


@pytest.mark.parametrize("name", ["resnet18", "timm:test_vit"])
def test_what_thaws_later_is_where_it_would_be_from_the_beginning(name: str):
    """In the same group, with the same learning rate and decay, and so the same place in a checkpoint."""
    size = ModelConfig(width=16, dynamic_width=8, ffn_width=8, num_stages=1, num_proposals=3)
    config = OptimizerConfig(layer_decay=0.5, undecayed=["bn1"], undecayed_vectors=name.startswith("timm"))
    found = []
    for frozen in (-1, 1):
        model = QueryInst(size, BackboneConfig(name=name, frozen_stages=frozen), 3)
        later = () if frozen < 0 else thawing(model.backbone)
        called = {id(parameter): name for name, parameter in model.named_parameters()}
        groups = parameter_groups(model, config, 1.0, later)
        found.append([{**group, "params": [called[id(p)] for p in group["params"]]} for group in groups])
    assert found[0] == found[1]
    assert len(found[0]) > 4
    assert sum(len(g["params"]) for g in parameter_groups(model, config, 1.0)) < sum(len(g["params"]) for g in found[0])


def test_without_decay_is_what_its_name_says():
    """As with Swin: norms, and tables of positions; every other parameter decays."""
    config = BackboneConfig(name="swin_t", frozen_stages=-1)
    model = QueryInst(ModelConfig(width=16, dynamic_width=8, ffn_width=8, num_stages=1, num_proposals=3), config, 3)
    undecayed = compose("config", TrainConfig, ["+experiment=swin_t_ms_crop_3x_pro100"]).optimizer.undecayed
    groups = {g["name"]: g for g in parameter_groups(model, OptimizerConfig(undecayed=undecayed), lr=1.0)}
    assert {name: group["weight_decay"] for name, group in groups.items()} == {
        **{"backbone": 1e-4, "rest": 1e-4, "backbone without decay": 0.0, "rest without decay": 0.0}
    }
    free = {id(p) for name in ("backbone without decay", "rest without decay") for p in groups[name]["params"]}
    layer_norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    tables = [p for name, p in model.named_parameters() if name.endswith("position_bias_table")]
    assert len(tables) == 12
    assert free == {id(p) for p in tables} | {id(p) for module in layer_norms for p in module.parameters()}


def scales(backbone: BackboneConfig, layer_decay: float = 0.5) -> dict[str, float]:
    """Names of trainable parameters of a backbone to their learning rate over that of the rest."""
    model = QueryInst(
        ModelConfig(width=16, dynamic_width=8, ffn_width=8, num_stages=1, num_proposals=3), backbone, num_classes=3
    )
    groups = parameter_groups(model, OptimizerConfig(layer_decay=layer_decay, backbone_factor=1.0), lr=1.0)
    assert groups[-1]["name"] == "rest", "whose learning rate is logged"
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(trained)
    assert all(rates[id(p)] == 1 for name, p in trained if not name.startswith("backbone."))
    return {name.removeprefix("backbone."): rates[id(p)] for name, p in trained if name.startswith("backbone.")}


def test_layers_of_a_resnet_and_a_swin_are_its_stages():
    found = scales(BackboneConfig(name="resnet18", frozen_stages=0))
    expected = {f"body.layer{layer}": 0.5 ** (5 - layer) for layer in (1, 2, 3, 4)}
    assert {name[: len("body.layer1")]: rate for name, rate in found.items()} == expected
    found = scales(BackboneConfig(name="swin_t", frozen_stages=-1))
    assert {rate for name, rate in found.items() if name.startswith("out_norms")} == {1}
    stages = {"0": 5, "1": 4, "2": 3, "3": 3, "4": 2, "5": 2, "6": 1, "7": 1}
    for name, rate in found.items():
        if name.startswith("body."):
            assert rate == 0.5 ** stages[name.split(".")[2]], name


def test_layers_of_a_library_are_its_own():
    """Of a plain ViT tokens and patches, then every block; of torchvision's what stands in `features`."""
    found = scales(BackboneConfig(name="timm:test_vit", frozen_stages=-1))
    for name, rate in found.items():
        words = name.split(".")
        block = int(words[2]) + 1 if words[1] == "blocks" else 0
        assert rate == (0.5 ** (7 - block) if words[0] == "body" else 1.0), name
    assert {"body.cls_token", "body.pos_embed", "body.patch_embed.proj.weight"} <= found.keys()
    found = scales(BackboneConfig(name="torchvision:mobilenet_v2", frozen_stages=0))
    assert {int(name.split(".")[2]): rate for name, rate in found.items() if name.startswith("body.")} == {
        layer: 0.5 ** (19 - layer) for layer in range(2, 19)
    }
    ours = scales(BackboneConfig(name="timm:test_convnext", frozen_stages=-1), 0.9)
    theirs = param_groups_layer_decay(timm.create_model("test_convnext"), layer_decay=0.9)
    body = {rate for name, rate in ours.items() if name.startswith("body.")}
    assert sorted(body) == pytest.approx(sorted({g["lr_scale"] for g in theirs if g["lr_scale"] < 1}))


def test_layers_that_nobody_knows_are_one_sentence():
    model = small_model()
    model.backbone = nn.Sequential(nn.Conv2d(3, 3, 1))
    with pytest.raises(UserError, match=r"needs the layers of the backbone, and Sequential has no method `parts\(\)`"):
        parameter_groups(model, OptimizerConfig(layer_decay=0.9), lr=1.0)


def test_vectors_and_what_timm_says_do_not_decay():
    backbone = BackboneConfig(name="timm:test_vit", frozen_stages=-1)
    model = QueryInst(
        ModelConfig(width=16, dynamic_width=8, ffn_width=8, num_stages=1, num_proposals=3), backbone, num_classes=3
    )
    groups = parameter_groups(model, OptimizerConfig(undecayed_vectors=True), lr=1.0)
    free = {id(p) for group in groups if not group["weight_decay"] for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in free}
    assert names == {
        *(name for name, p in model.named_parameters() if p.ndim == 1),
        *("backbone.body.pos_embed", "backbone.body.cls_token"),
    }
    assert {group["name"] for group in groups} == {"backbone", "rest", "backbone without decay", "rest without decay"}


class Small(nn.Module):
    """Names as they may come: the backbone's begin with it, others only have it in them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"frozen": nn.Linear(1, 1, bias=False), "conv": nn.Linear(1, 1, bias=False)})
        self.backbone["norm"] = nn.Linear(1, 1, bias=False)
        self.backbone["frozen"].requires_grad_(False)
        self.neck = nn.ModuleDict({"backbone": nn.Linear(1, 1)})
        self.backbones = nn.Linear(1, 1, bias=False)


def test_the_groups_of_a_small_network():
    network = Small()
    config = OptimizerConfig(weight_decay=0.05, backbone_factor=0.25, undecayed=["norm", "bias"])
    conv, norm = network.backbone["conv"].weight, network.backbone["norm"].weight
    neck = network.neck["backbone"]
    expected = [
        {"name": "backbone", "params": [conv], "lr": 0.5, "weight_decay": 0.05},
        {"name": "backbone without decay", "params": [norm], "lr": 0.5, "weight_decay": 0.0},
        {"name": "rest", "params": [neck.weight, network.backbones.weight], "lr": 2.0, "weight_decay": 0.05},
        {"name": "rest without decay", "params": [neck.bias], "lr": 2.0, "weight_decay": 0.0},
    ]
    assert readable(parameter_groups(network, config, lr=2.0)) == readable(expected)
    without = parameter_groups(network, OptimizerConfig(weight_decay=0.0), lr=2.0)
    assert [group["name"] for group in without] == ["backbone without decay", "rest without decay"]


def readable(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Groups that can be compared: parameters are the same where they are one object."""
    return [{**group, "params": [id(parameter) for parameter in group["params"]]} for group in groups]


def test_the_optimizer_has_the_settings():
    config = OptimizerConfig(lr=1e-3, lr_batch=4, betas=[0.7, 0.8], weight_decay=0.05)
    made = optimizer(small_model(), config, batch_size=6)
    assert made.defaults["lr"] == pytest.approx(1.5e-3)
    assert made.defaults["fused"] is True
    for group in made.param_groups:
        assert (group["betas"], group["weight_decay"]) == ((0.7, 0.8), 0.05)


def test_learning_rate_follows_the_batch():
    made = optimizer(small_model(), OptimizerConfig(lr=1e-4, lr_batch=16, backbone_factor=0.1), batch_size=32)
    assert {group["name"]: group["lr"] for group in made.param_groups} == {
        "backbone": pytest.approx(2e-5),
        "rest": pytest.approx(2e-4),
    }


def test_published_schedule():
    """Linear from a thousandth over 1000 steps, a tenth after 8 epochs, a hundredth after 11 (reference, 3.1)."""
    factor = learning_rate(ScheduleConfig(), steps_per_epoch=7330)
    assert factor(0) == pytest.approx(0.001)
    assert factor(500) == pytest.approx(0.5005)
    assert factor(1000) == 1
    assert factor(8 * 7330 - 1) == 1
    assert factor(8 * 7330) == pytest.approx(0.1)
    assert factor(11 * 7330) == pytest.approx(0.01)


def test_warm_up_goes_on_over_a_milestone():
    factor = learning_rate(ScheduleConfig(epochs=4, milestones=[1], warmup_iterations=20), steps_per_epoch=10)
    assert factor(10) == pytest.approx(0.1 * (0.001 + 0.999 * 0.5))


def test_cosine():
    factor = learning_rate(ScheduleConfig(epochs=10, decay="cosine", warmup_iterations=0), steps_per_epoch=10)
    values = [factor(step) for step in range(101)]
    assert values[0] == 1
    assert values[50] == pytest.approx(0.5)
    assert values[100] == pytest.approx(0)
    assert values == sorted(values, reverse=True)


def test_learning_rate_step_by_step():
    """Against the definition, over warm-up, two milestones that it spans, and beyond the end."""
    shared = {"epochs": 4, "warmup_iterations": 8, "warmup_factor": 0.2}
    milestones = learning_rate(ScheduleConfig(**shared, milestones=[1, 3], gamma=0.5), steps_per_epoch=5)
    cosine = learning_rate(ScheduleConfig(**shared, decay="cosine"), steps_per_epoch=5)
    for step in range(25):
        rise = 0.2 + 0.1 * step if step < 8 else 1.0
        fallen = 1.0 if step < 5 else 0.5 if step < 15 else 0.25
        wave = (1 + math.cos(math.pi * step / 20)) / 2 if step < 20 else 0.0
        assert milestones(step) == pytest.approx(rise * fallen)
        assert cosine(step) == pytest.approx(rise * wave)
