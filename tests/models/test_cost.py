"""What a network costs, against sums made by hand."""

import copy
import math

import pytest
import torch
from conftest import small_model
from torch import Tensor, nn

from queryinst.config import PostprocessConfig
from queryinst.models import cost
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Output

DONE = PostprocessConfig(max_detections=5)


def convolutions(model: QueryInst, height: int, width: int) -> int:
    """Two operations for each number of a result and each number that it adds up."""
    total = 0

    def count(conv: nn.Module, given: tuple[Tensor], made: Tensor) -> None:
        nonlocal total
        total += 2 * made.numel() * conv.weight[0].numel()

    hooks = [
        module.register_forward_hook(count)  # type: ignore[arg-type]
        for part in (model.backbone, model.neck)
        for module in part.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        model.pyramid(torch.zeros(1, 3, height, width))
    for hook in hooks:
        hook.remove()
    return total


def stage(queries: int, d: int = 16, hidden: int = 8, ffn: int = 32, classes: int = 3) -> int:
    """The box head of `small_model`: dynamic convolution of 49 places, FFN, four floors, classes and boxes."""
    dynamic = 2 * d * hidden * d + 2 * 49 * d * hidden + 49 * d * d
    return 2 * queries * (dynamic + 2 * d * ffn + 4 * d * d + d * classes + d * 4)


def test_parameters_are_all_numbers_that_are_learned_frozen_ones_too():
    model = small_model()
    model.backbone.requires_grad_(False)
    assert cost.parameters(model) == sum(math.prod(parameter.shape) for parameter in model.parameters())
    assert cost.parameters(nn.Linear(3, 5)) == 20  # type: ignore[arg-type]


def test_operations_of_one_image_stage_by_stage():
    model = small_model(num_stages=3)
    convs = convolutions(model, 64, 96)
    assert cost.flops(model, 64, 96) == convs + 3 * stage(6)
    assert cost.flops(model, 64, 96, stages=1) == convs + stage(6)
    assert cost.flops(model, 64, 96, stages=2, proposals=2) == convs + stage(6) + stage(2)
    assert cost.flops(model, 64, 96, proposals=4) == convs + stage(6) + 2 * stage(4)


def test_operations_are_counted_where_the_network_is():
    """On a device that has shapes and no numbers, where attention is computed, and so counted, step by step."""
    model, d, queries = small_model(), 16, 6
    attention = 2 * queries * (4 * d * d + 2 * queries * d)
    assert cost.flops(copy.deepcopy(model).to("meta"), 64, 96) == cost.flops(model, 64, 96) + 2 * attention


def test_what_is_timed_is_where_the_network_is(monkeypatch: pytest.MonkeyPatch):
    """On a device that has shapes and no numbers; which detections are kept, only numbers can say."""
    places: list[str] = []

    def detect(_model: QueryInst, output: Output, *sizes_and_config: object) -> list[Tensor]:
        places.append(output.stages[-1].boxes.device.type)
        return [torch.zeros(1)]

    monkeypatch.setattr(cost, "detect", detect)
    cost.seconds(small_model().to("meta"), DONE, 64, 96)
    assert places == ["meta"] * 6


def test_what_is_counted_and_timed_begins_with_bytes(monkeypatch: pytest.MonkeyPatch):
    model, kinds = small_model(), []
    normalise = model.normalise
    monkeypatch.setattr(
        model, "normalise", lambda images, sizes: kinds.append(images.dtype) or normalise(images, sizes)
    )
    cost.flops(model, 64, 64)
    cost.seconds(model, DONE, 64, 64)
    assert kinds == [torch.uint8] * 7


def slow_clock(model: QueryInst, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
    """A clock that stands still but while the network runs."""
    now, left = 0.0, iter(seconds)

    def run(*_: object) -> None:
        nonlocal now
        now += next(left)

    model.backbone.register_forward_hook(run)
    monkeypatch.setattr("time.perf_counter", lambda: now)


def test_seconds_are_the_median_of_five_after_one_that_warms_up(monkeypatch: pytest.MonkeyPatch):
    model = small_model()
    slow_clock(model, monkeypatch, 100, 9, 1, 4, 8, 2)
    assert cost.seconds(model, DONE, 64, 64) == 4


@pytest.fixture
def rows() -> tuple[QueryInst, list[tuple[str, int]]]:
    """A network, and what its heads were given: whose head, and how many queries."""
    model = small_model(num_stages=3)
    seen: list[tuple[str, int]] = []
    for name, module in model.stages.named_modules():  # type: ignore[attr-defined]
        if name.endswith((".box", ".mask")):
            module.register_forward_pre_hook(lambda _, given, name=name: seen.append((name, given[1].shape[0])))
    return model, seen


def test_what_is_timed_is_one_image_to_its_detections(rows: tuple[QueryInst, list[tuple[str, int]]]):
    model, seen = rows
    shapes: list[torch.Size] = []
    model.backbone.register_forward_pre_hook(lambda _, given: shapes.append(given[0].shape))
    assert cost.seconds(model, PostprocessConfig(min_side=1e9), 64, 96, stages=2, proposals=4) > 0
    assert seen == [("0.box", 6), ("1.box", 4), ("1.mask", 0)] * 6
    assert shapes == [(1, 3, 64, 96)] * 6
    seen.clear()
    cost.seconds(model, PostprocessConfig(max_detections=18), 64, 64)
    assert seen == [("0.box", 6), ("1.box", 6), ("2.box", 6), ("2.mask", 6)] * 6


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_as_it_was(training: bool):
    """In training or not, what is frozen frozen, statistics untouched; no graph was kept."""
    model = small_model().train(training)
    model.neck.requires_grad_(False)
    learned = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graphs: list[bool] = []
    model.stages[0].box.register_forward_hook(lambda _, __, made: graphs.append(made.logits.requires_grad))
    cost.flops(model, 64, 64)
    cost.seconds(model, DONE, 64, 64)
    assert {module.training for module in model.modules()} == {training}
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == learned
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert graphs == [False] * 7
