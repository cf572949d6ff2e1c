"""A training step: seconds by part and peak memory, each configuration in a process of its own."""

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from queryinst.benchmarks.frame import Results, table
from queryinst.benchmarks.opening import peak
from queryinst.config import BackboneConfig, CriterionConfig, ModelConfig, OptimizerConfig
from queryinst.criterion.criterion import Criterion
from queryinst.lightning.optimizer import optimizer
from queryinst.memory import keep_memory
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import FeaturePyramid
from queryinst.structures import Batch, Targets

FORWARD = ("backbone", "FPN", "stages", "matching", "masks", "losses")
PARTS = (*FORWARD, "backward: heads", "backward: FPN", "backward: backbone", "norm and clipping", "AdamW")
CLASSES, MASK_SIDE = 80, 112
# MMDetection 3's step in fp32 on two cores of an AMD EPYC, by proposals: ResNet-50, 1 image, 10 objects.
PEER_SIZE, PEER_SECONDS = (800, 1216), {100: 11.3, 300: 13.6}


class Case(NamedTuple):
    """What is measured."""

    proposals: int
    precision: str  # fp32 or bf16
    images: int
    height: int
    width: int
    objects: int
    backbone: str
    device: str
    threads: int | None
    rounds: int


def run(arguments: Any) -> Results:
    """Measure every combination of proposals, precision, images a step and size."""
    sizes = [tuple(int(side) for side in size.split("x")) for size in arguments.sizes]
    choices = (arguments.proposals, arguments.precision, arguments.batch, sizes)
    steps = []
    for proposals, precision, images, (height, width) in itertools.product(*choices):
        case = Case(
            *(proposals, precision, images, height, width, arguments.objects, arguments.backbone),
            *(arguments.device, arguments.threads, arguments.rounds),
        )
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            steps.append({**case._asdict(), **pool.apply(measure, (case,))})
    return {"steps": steps}


def measure(case: Case) -> Results:
    """Median seconds of whole steps and of their parts, after two that warm up, and the peak memory in bytes."""
    keep_memory()
    if case.threads:
        torch.set_num_threads(case.threads)
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
    for _ in range(case.rounds if on_gpu else 1):  # a step in parts waits for a GPU after each
        clock = Clock(wait)
        step(clock)
        parts.append(clock.seconds)
    return {
        "seconds": statistics.median(whole),
        "fastest": min(whole),
        "parts": {name: statistics.median(part.get(name, 0.0) for part in parts) for name in PARTS},
        "peak": torch.cuda.max_memory_allocated(step.device) if on_gpu else peak(),
    }


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


class Step:
    """A training step as `lightning/module.py` makes it, without logging; `step(clock)` tells where the time goes."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.device = torch.device(case.device)
        model = ModelConfig(num_proposals=case.proposals)
        self.model = QueryInst(model, BackboneConfig(name=case.backbone), CLASSES).to(self.device).train()
        self.model.queries.boxes.data = _spread(case.proposals).to(self.device)
        self.batch = make_batch(case).to(self.device)
        self.criterion, config = Criterion(CriterionConfig()), OptimizerConfig()
        self.adamw, self.clip_norm = optimizer(self.model, config, case.images), config.clip_norm
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=case.precision == "bf16")

    def __call__(self, clock: Callable[[str], None] | None = None) -> Tensor:
        """The (S, 4) losses."""
        done = clock or (lambda part: None)
        batch, model = self.batch, self.model
        with self.autocast:
            maps = model.backbone(model.normalise(batch.images, batch.sizes))
            done("backbone")
            levels = model.neck(maps)
            done("FPN")
            output = model.query(FeaturePyramid(levels, model.aligned), batch.sizes)
            done("stages")
            matches = self.criterion.match(output.stages, batch.targets, batch.sizes)
            done("matching")
            masks = model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels))))
            done("masks")
            losses = self.criterion(output.stages, list(masks.values()), matches, batch.targets, batch.sizes)
            done("losses")
        if clock:
            _when_known(levels, lambda: done("backward: heads"))
            _when_known(maps, lambda: done("backward: FPN"))
        losses.sum().backward()
        done("backward: backbone")
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch.nn.utils.clip_grads_with_norm_(model.parameters(), self.clip_norm, norm)
        done("norm and clipping")
        self.adamw.step()
        self.adamw.zero_grad()
        done("AdamW")
        return losses.detach()


def _when_known(tensors: list[Tensor], call: Callable[[], None]) -> None:
    """Call once the gradients of all of these that need one are computed."""
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    torch.autograd.graph.register_multi_grad_hook(wanted, lambda gradients: call())


def _spread(proposals: int) -> Tensor:
    """(N, 4) normalised cxcywh of all sizes from 1/25 of the image up, so that all levels of the pyramid are read."""
    generator = torch.Generator().manual_seed(0)
    side = torch.empty(proposals, 2).uniform_(-3.2, 0, generator=generator).exp()
    return torch.cat([torch.rand(proposals, 2, generator=generator), side], dim=1)


def make_batch(case: Case) -> Batch:
    """Images of noise with objects anywhere, of all sizes, their masks half filled."""
    generator = torch.Generator().manual_seed(0)
    extent, total = torch.tensor([case.width, case.height]), case.images * case.objects
    side = torch.empty(total, 2).uniform_(-3.2, 0, generator=generator).exp() * extent
    corner = torch.rand(total, 2, generator=generator) * (extent - side)
    boxes = torch.cat([corner, corner + side], dim=1)
    masks = (torch.rand(total, MASK_SIDE, MASK_SIDE, generator=generator) < 0.5).to(torch.uint8)
    labels = torch.randint(CLASSES, (total,), generator=generator)
    images = torch.randint(256, (case.images, 3, case.height, case.width), generator=generator, dtype=torch.uint8)
    sizes = torch.tensor([[case.height, case.width]]).repeat(case.images, 1)
    targets = Targets(boxes, labels, masks, boxes, [case.objects] * case.images)
    return Batch(images, sizes, sizes, list(range(case.images)), targets, [])


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
    where = f"{first['device']}, {first['threads'] or torch.get_num_threads()} threads"
    return "\n\n".join(
        [
            f"A training step of {first['backbone']}, {first['objects']} objects an image, on {where}; seconds, the "
            "median after two steps that warm up.",
            table(["proposals", "precision", "images", "step", "fastest", "peak memory", "MMDetection 3"], whole),
            "One step in parts, seconds:",
            table(["part", *(" ".join(_name(step)) for step in steps)], parts),
            "MMDetection 3: its step in fp32 on two cores of an AMD EPYC, over ours.",
        ]
    )


def _name(step: Results) -> tuple[str, str, str]:
    precision = step["precision"]
    return str(step["proposals"]), precision, f"{step['images']} x {step['height']}x{step['width']}"


def _against(step: Results) -> str:
    peer = PEER_SECONDS.get(step["proposals"])
    same = (step["height"], step["width"]) == PEER_SIZE and step["backbone"] == "resnet50"
    comparable = same and (step["device"], step["images"], step["objects"]) == ("cpu", 1, 10)
    return f"{peer:.1f}, {peer / step['seconds']:.2f}x" if peer and comparable else ""
