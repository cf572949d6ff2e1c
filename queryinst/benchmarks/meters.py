"""What a piece of a computation costs: seconds, operations, and what the machine could do at best."""

import collections
import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

Meter = Callable[[str], AbstractContextManager[object]]  # measures what is done inside it, as the named part


class Clock:
    """Measures seconds; a device that computes on its own is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.measured = device, collections.defaultdict[str, float](float)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)
        self.measured[part] += time.perf_counter() - begin


class Counter:
    """Counts floating point operations, a multiply-add as two. RoIAlign and what is not a product are not counted."""

    def __init__(self) -> None:
        self.measured = collections.defaultdict[str, int](int)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        with FlopCounterMode(display=False, custom_mapping=PACKED) as counter:
            yield
        self.measured[part] += counter.get_total_flops()


def _conv_flops(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


def _sum_flops(shortcut: Any, x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return conv_flop_count(x, weight, out_shape)


def _linear_flops(x: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
    return 2 * math.prod(x) * int(out_shape[-1])


# Operators of `models.packed`, which PyTorch's counter does not know.
PACKED = {
    torch.ops.mkldnn._convolution_pointwise: _conv_flops,
    torch.ops.mkldnn._convolution_pointwise_: _sum_flops,
    torch.ops.mkldnn._linear_pointwise: _linear_flops,
}


def peak(device: torch.device, kind: torch.dtype) -> float:
    """Operations a second of the best of five products of large matrices."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.rand(side, side, device=device).to(kind) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        clock = Clock(device)
        with clock("product"):
            left @ right
        best = min(best, clock.measured["product"])
    return 2 * side**3 / best


def median_seconds(call: Callable[[], object], rounds: int, device: torch.device) -> float:
    """Of several calls, after one that warms up."""
    spent = []
    for _ in range(rounds + 1):
        clock = Clock(device)
        with clock("all"):
            call()
        spent.append(clock.measured["all"])
    return statistics.median(spent[1:])
