"""What a fresh model is, for each of the two families of implementations (reference, 1.3 to 1.7, and section 2)."""

import math

import pytest
import torch
from conftest import small_model
from torch import nn

from queryinst.models.queryinst import QueryInst


def stages_equal(model: QueryInst) -> bool:
    first, second = (model.stages[index].state_dict() for index in (0, 1))
    return all(value.equal(second[name]) for name, value in first.items())


def test_as_mmdetection():
    """Every stage by itself, PyTorch's biases, query features from a standard normal."""
    model = small_model(num_proposals=400)
    assert not stages_equal(model)
    assert model.stages[0].box.dyn.params.bias.any()
    assert model.queries.features.std().item() == pytest.approx(1, abs=0.05)


def test_as_paddle():
    model = small_model(num_proposals=400, initialisation="paddle")
    assert stages_equal(model)
    for stage in model.stages:
        for module in stage.modules():
            if isinstance(module, nn.Linear | nn.ConvTranspose2d) and module.bias is not None:
                assert (module is stage.box.cls) == bool(module.bias.any())
        torch.testing.assert_close(stage.box.cls.bias.sigmoid(), torch.full_like(stage.box.cls.bias, 0.01))
    number, width = model.queries.features.shape
    assert 0.9 < model.queries.features.abs().max().item() / math.sqrt(6 / (number + width)) <= 1
    for lateral in model.neck.lateral:
        assert 0.9 < lateral.weight.abs().max().item() / math.sqrt(3 / lateral.in_channels) <= 1
