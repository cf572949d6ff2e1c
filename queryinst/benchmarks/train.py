"""A training step: seconds and memory by part, each configuration in a process of its own."""

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from queryinst.benchmarks.frame import Results, table
from queryinst.benchmarks.kept import Kept
from queryinst.benchmarks.opening import peak, resident
from queryinst.benchmarks.step import FORWARD, PARTS, Case, Step
from queryinst.memory import keep_memory

# What is held when the backward pass begins, or grows in it.
MEMORY = ("process", "parameters", "gradients", "AdamW", *FORWARD)
# MMDetection 3's step in fp32 on two cores of an AMD EPYC, by proposals: ResNet-50, 1 image, 10 objects.
PEER_SIZE, PEER_SECONDS = (800, 1216), {100: 11.3, 300: 13.6}


def run(arguments: Any) -> Results:
    """Measure every combination of proposals, precision, compilation, images a step and size."""
    sizes = [tuple(int(side) for side in size.split("x")) for size in arguments.sizes]
    choices = (arguments.proposals, arguments.precision, [False, True][: 1 + arguments.compile], arguments.batch, sizes)
    steps = []
    for proposals, precision, compiled, images, (height, width) in itertools.product(*choices):
        case = Case(
            *(proposals, precision, compiled, images, height, width, arguments.objects, arguments.backbone),
            *(arguments.device, arguments.threads, arguments.rounds),
        )
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            steps.append({**case._asdict(), **pool.apply(measure, (case,))})
    return {"steps": steps}


def measure(case: Case) -> Results:
    """Median seconds of whole steps and of their parts, after two that warm up, and bytes of memory."""
    keep_memory()
    if case.threads:
        torch.set_num_threads(case.threads)
    process = resident() if case.device == "cpu" else 0
    step = Step(case)
    on_gpu = step.device.type == "cuda"

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize(step.device)

    whole, parts = [], []
    for number in range(2 + case.rounds):
        wait()
        begin = time.perf_counter()
        step()
        wait()
        if number > 1:
            whole.append(time.perf_counter() - begin)
    most = torch.cuda.max_memory_allocated(step.device) if on_gpu else peak()
    for _ in range(case.rounds if on_gpu else 1):  # a step in parts waits for a GPU after each
        clock = Clock(wait)
        step(clock)
        parts.append(clock.seconds)
    return {
        "seconds": statistics.median(whole),
        "fastest": min(whole),
        "parts": {name: statistics.median(part.get(name, 0.0) for part in parts) for name in PARTS},
        "memory": {"process": process, **memory(step)},
        "peak": most,
    }


def memory(step: Step) -> dict[str, int]:
    """Bytes by `MEMORY`, without "process", of a step that has been made."""
    parameters = list(step.model.parameters())
    states = [value for state in step.adamw.state.values() for value in state.values() if isinstance(value, Tensor)]
    return {
        "parameters": _bytes(parameters),
        "gradients": _bytes([parameter for parameter in parameters if parameter.requires_grad]),
        "AdamW": _bytes(states),
        **Kept(step.model).measure(step.forward),
    }


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


class Clock:
    """Seconds between its calls, by the name of what has ended."""

    def __init__(self, wait: Callable[[], None]) -> None:
        self.wait, self.seconds = wait, dict[str, float]()
        wait()
        self._last = time.perf_counter()

    def __call__(self, part: str) -> None:
        self.wait()
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now


def markdown(results: Results) -> str:
    """A table of whole steps, one of their parts, and what else has been measured of the same step."""
    steps = results["steps"]
    first = steps[0]
    whole = [
        (
            *_name(step),
            *(f"{step['seconds']:.2f}", f"{step['fastest']:.2f}", f"{step['peak'] / 1e9:.2f} GB", _against(step)),
        )
        for step in steps
    ]
    parts = [(name, *(f"{step['parts'][name]:.3f}" for step in steps)) for name in PARTS]
    held = [(name, *(_megabytes(step["memory"][name]) for step in steps)) for name in MEMORY]
    held += [
        ("together", *(_megabytes(sum(step["memory"].values())) for step in steps)),
        ("peak", *(_megabytes(step["peak"]) for step in steps)),
    ]
    columns = [" ".join(_name(step)) for step in steps]
    where = f"{first['device']}, {first['threads'] or torch.get_num_threads()} threads"
    return "\n\n".join(
        [
            f"A training step of {first['backbone']}, {first['objects']} objects an image, on {where}; seconds, the "
            "median after two steps that warm up.",
            table(["proposals", "precision", "images", "step", "fastest", "peak memory", "MMDetection 3"], whole),
            "One step in parts, seconds:",
            table(["part", *columns], parts),
            "Memory, MB: the process before there is a network, what training adds for good, and by the part of the "
            "forward pass that saved it what autograd keeps for the backward pass. As that goes on, gradients take the "
            "place of what was kept; the peak has its working memory as well, and gaps between blocks.",
            table(["memory", *columns], held),
            "MMDetection 3: its step in fp32 on two cores of an AMD EPYC, over ours.",
        ]
    )


def _name(step: Results) -> tuple[str, str, str]:
    precision = step["precision"] + (" compiled" if step["compiled"] else "")
    return str(step["proposals"]), precision, f"{step['images']} x {step['height']}x{step['width']}"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.0f}"


def _against(step: Results) -> str:
    peer = PEER_SECONDS.get(step["proposals"])
    same = (step["height"], step["width"]) == PEER_SIZE and step["backbone"] == "resnet50"
    comparable = same and (step["device"], step["images"], step["objects"]) == ("cpu", 1, 10)
    return f"{peer:.1f}, {peer / step['seconds']:.2f}x" if peer and comparable else ""
