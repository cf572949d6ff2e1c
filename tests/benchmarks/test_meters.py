"""Seconds and operations, with a clock that a test winds."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from queryinst.benchmarks import meters, rounds, scenes, step, train
from queryinst.benchmarks.meters import Clock, Counter
from queryinst.benchmarks.step import Case

CPU = torch.device("cpu")


class Wound:
    """In place of the module `time`: a clock that goes on only when it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def take(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def wound(monkeypatch: pytest.MonkeyPatch) -> Wound:
    clock = Wound()
    for module in (meters, rounds, train):
        monkeypatch.setattr(module, "time", clock)
    return clock


def taking(wound: Wound, *seconds: float) -> Callable[[], None]:
    """A function whose calls take so long, one after another."""
    left = iter(seconds)
    return lambda: wound.take(next(left))


def test_a_clock_adds_up_by_part(wound: Wound):
    clock = Clock(CPU)
    for part, seconds in (("a", 1.0), ("b", 4.0), ("a", 2.0)):
        with clock(part):
            wound.take(seconds)
        wound.take(50)
    assert clock.measured == {"a": 3.0, "b": 4.0}


def test_a_training_steps_clock_has_the_time_since_it_was_last_told(wound: Wound):
    clock = train.Clock(lambda: wound.take(0.5))  # a GPU is waited for, which counts
    for part, seconds in (("a", 1.0), ("b", 4.0), ("a", 2.0)):
        wound.take(seconds)
        clock(part)
    assert clock.seconds == {"a": 4.0, "b": 4.5}


def test_medians_leave_out_the_first_call(wound: Wound):
    assert meters.median_seconds(taking(wound, 90, 1, 7, 2), 3, CPU) == 2
    ways = taking(wound, 90, 1, 7, 2), taking(wound, 80, 3, 5, 9)
    assert rounds.alternate(3, *ways) == [2, 5]


def test_ways_take_turns():
    called: list[str] = []
    rounds.alternate(2, lambda: called.append("a"), lambda: called.append("b"))
    assert called == ["a", "b"] * 3


def test_operations_are_counted_a_multiply_add_as_two():
    counter = Counter()
    with counter("product"), torch.no_grad():
        torch.rand(3, 5) @ torch.rand(5, 7)
    with counter("convolution"), torch.no_grad():
        torch.nn.functional.conv2d(torch.rand(2, 3, 8, 8), torch.rand(4, 3, 3, 3))
    with counter("product"), torch.no_grad():
        torch.rand(2, 2) @ torch.rand(2, 2)
    with counter("none"):
        torch.rand(3) + 1
    assert counter.measured == {"product": 2 * 3 * 5 * 7 + 16, "convolution": 2 * 2 * 4 * 6 * 6 * 27, "none": 0}


def test_operators_of_the_packed_network_count_as_the_plain_ones():
    x, weight, out = torch.Size([2, 3, 8, 8]), torch.Size([4, 3, 3, 3]), torch.Size([2, 4, 6, 6])
    assert meters._conv_flops(x, weight, "bias", out_shape=out) == 2 * 2 * 4 * 6 * 6 * 27
    assert meters._sum_flops(out, x, weight, "bias", out_shape=out) == 2 * 2 * 4 * 6 * 6 * 27
    assert meters._linear_flops(torch.Size([6, 5, 3]), "weight", out_shape=torch.Size([6, 5, 7])) == 2 * 6 * 5 * 3 * 7


def test_the_peak_is_of_the_best_of_five_products(monkeypatch: pytest.MonkeyPatch):
    moments: Iterator[float] = iter([0, 4, 10, 12, 20, 23, 30, 35, 40, 46.0])
    monkeypatch.setattr(meters, "time", SimpleNamespace(perf_counter=lambda: next(moments)))
    monkeypatch.setattr(torch, "rand", lambda *size, device: torch.zeros(1, 1))
    assert meters.peak(CPU, torch.bfloat16) == 2 * 2048**3 / 2


@pytest.mark.parametrize("as_rle", [False, True])
def test_an_object_is_inside_its_box_and_as_large_as_its_area(as_rle: bool):
    from pycocotools import mask as coco_mask

    rng, sides = np.random.default_rng(0), []
    for _ in range(40):
        outline, (x, y, width, height), area = scenes.segmentation(rng, as_rle)
        if not as_rle:
            points = np.array(outline[0]).reshape(-1, 2)
            assert (x, y) == tuple(points.min(0))
            assert (x + width, y + height) == pytest.approx(tuple(points.max(0)))
            nxt = np.roll(points, -1, 0)  # the shoelace formula
            exact = abs((points[:, 0] * nxt[:, 1] - points[:, 1] * nxt[:, 0]).sum()) / 2
            assert area == pytest.approx(exact, rel=1e-3, abs=0.5)
        else:
            bitmap = coco_mask.decode(outline)
            assert bitmap.shape == (scenes.HEIGHT, scenes.WIDTH)
            assert bitmap.sum() == pytest.approx(area, abs=2 * (width + height) + 4)
        assert min(x, y) >= 0
        assert x + width <= scenes.WIDTH
        assert y + height <= scenes.HEIGHT
        sides.append(max(width, height))
    assert min(sides) < 32
    assert 96 < max(sides) < 320 * 1.3


def test_objects_of_a_training_step_lie_in_their_images():
    case = Case(4, "fp32", False, 2, 64, 96, 50, "tiny", "cpu", None, 1)
    batch = step.make_batch(case)
    boxes = batch.targets.boxes
    assert batch.images.shape == (2, 3, 64, 96)
    assert batch.sizes.tolist() == batch.original_sizes.tolist() == [[64, 96]] * 2
    assert batch.targets.counts == [50, 50]
    assert boxes.min() >= 0
    assert (boxes[:, 2:].amax(0) <= torch.tensor([96.0, 64.0])).all()
    assert boxes[:, 2].max() > 64, "the width is the width"
    sides = (boxes[:, 2:] - boxes[:, :2]) / torch.tensor([96.0, 64.0])
    assert 0.04 < sides.min() < 0.1
    assert 0.7 < sides.max() <= 1
    assert batch.targets.masks.shape == (100, 112, 112)
    assert 0.4 < batch.targets.masks.float().mean() < 0.6
    assert set(batch.targets.labels.tolist()) <= set(range(80))
    assert len(set(batch.targets.labels.tolist())) > 40
