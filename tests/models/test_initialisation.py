"""What a fresh model is, for each of the two families of implementations (reference, 1.3 to 1.7, and section 2)."""

import math

import pytest
import torch
from conftest import small_model
from torch import Tensor

from queryinst.models.queryinst import QueryInst
from queryinst.video_config import AssociationConfig

ZERO = {"box.attn.in_proj_bias", "box.attn.out_proj.bias", "box.reg.bias", "mask.logits.bias"}


def fresh(initialisation: str, head: str = "query") -> QueryInst:
    """Wide enough that the largest of a layer's random numbers is near its bound."""
    association = AssociationConfig(head, width=64)
    return small_model(
        num_classes=40, num_proposals=400, width=32, initialisation=initialisation, association=association
    )


def stages_equal(model: QueryInst) -> bool:
    first, second = (model.stages[index].state_dict() for index in (0, 1))
    return all(value.equal(second[name]) for name, value in first.items())


def evenly(values: Tensor, bound: float) -> bool:
    """Whether these are such as are drawn between -bound and bound, all alike."""
    low, high, spread = (values.min() / -bound).item(), (values.max() / bound).item(), values.std().item() / bound
    return 0.7 < low <= 1 and 0.7 < high <= 1 and abs(spread * math.sqrt(3) - 1) < (0.1 if len(values) > 99 else 0.35)


def xavier(weight: Tensor) -> bool:
    cells = weight[0, 0].numel()
    return evenly(weight.flatten(), math.sqrt(6 / (sum(weight.shape[:2]) * cells)))


def default_bias(bias: Tensor, weight: Tensor) -> bool:
    """PyTorch's, by the numbers that each row of the weight adds up; a transposed convolution counts its columns."""
    return evenly(bias, 1 / math.sqrt(weight[0].numel()))


@pytest.mark.parametrize("head", ["query", "plain"])
@pytest.mark.parametrize("initialisation", ["mmdetection", "paddle"])
def test_every_parameter_of_a_fresh_stage(initialisation: str, head: str):
    """Above all: a classifier says one percent, boxes stay where they are, and masks are undecided."""
    for stage in fresh(initialisation, head).stages:
        values = {name: parameter.detach() for name, parameter in stage.named_parameters()}
        assert values.keys() >= ZERO
        for name, value in values.items():
            module, _, kind = name.rpartition(".")
            if "norm" in module or module.endswith(".bn"):
                assert torch.equal(value, torch.full_like(value, kind == "weight")), name
            elif name == "box.cls.bias":
                torch.testing.assert_close(value, torch.full((40,), -math.log(99)))
            elif head == "plain" and module.startswith("association"):
                assert value.std() == 0 if kind == "bias" else abs(value.std() - 0.01) < 0.0005, name
                assert abs(value.mean()) < 0.0005, name
            elif "bias" not in kind:
                assert xavier(value), name
            elif name in ZERO or initialisation == "paddle":
                assert not value.any(), name
            else:
                assert default_bias(value, values[f"{module}.weight"]), name


@pytest.mark.parametrize("initialisation", ["mmdetection", "paddle"])
def test_a_fresh_neck(initialisation: str):
    """Xavier-uniform without biases; PaddleDetection's lateral convolutions count their input channels twice."""
    neck = fresh(initialisation).neck
    for conv in [*neck.lateral, *neck.output]:
        assert not conv.bias.any()
        if initialisation == "paddle" and conv in list(neck.lateral):
            assert evenly(conv.weight.flatten(), math.sqrt(3 / conv.in_channels))
        else:
            assert xavier(conv.weight)


def test_as_mmdetection():
    """Every stage by itself, query features from a standard normal."""
    model = fresh("mmdetection")
    assert not stages_equal(model)
    assert model.queries.features.std().item() == pytest.approx(1, abs=0.02)
    assert model.queries.features.mean().item() == pytest.approx(0, abs=0.02)


def test_as_paddle():
    """Every stage a copy of the first, small query features."""
    model = fresh("paddle")
    assert stages_equal(model)
    assert xavier(model.queries.features)
