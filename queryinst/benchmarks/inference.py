"""One image, or a few, to COCO's run-length codes: time, operations and share of the machine's peak, part by part.

Four ways with the same weights, timed in turn: as published, on the network as it is trained, in a process of its own;
the same in a process that keeps its memory, as ours does; ours, on the deployed network, in float32; and in bfloat16.
"""

import contextlib
import functools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from multiprocessing.pool import Pool
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from queryinst.benchmarks import published, scenes
from queryinst.benchmarks.frame import Results
from queryinst.benchmarks.inference_report import PARTS, WAYS, markdown
from queryinst.config import BackboneConfig, ModelConfig
from queryinst.evaluation.coco import to_coco
from queryinst.memory import keep_memory
from queryinst.models.deploy import deploy
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import FeaturePyramid
from queryinst.structures import Output, Rows

__all__ = ["markdown", "run"]

CLASSES = 80
Entries = list[dict[str, Any]]
Meter = Callable[[str], AbstractContextManager[object]]  # measures what is done inside it, as the named part


class Scene(NamedTuple):
    """A batch of images of one size, which is also their original size."""

    images: Tensor  # (B, 3, H, W) uint8
    sizes: Tensor  # (B, 2)


def look(model: QueryInst, scene: Scene, way: str, meter: Meter) -> Entries:
    """The images' detections as entries of a COCO results file, labels as category ids."""
    plain = way.startswith("published")
    with meter("normalise"):
        x = model.normalise(*scene).to(model.queries.features.dtype)
    with meter("backbone"):
        maps = model.backbone(x)
    with meter("FPN"):
        pyramid = (published.Pyramid if plain else FeaturePyramid)(model.neck(maps), model.aligned)
    with meter("stages"):
        output = model.query(pyramid, scene.sizes)
    with meter("masks"):
        sizes = (scene.sizes, scene.sizes)
        found = (
            published.detect(model, output, *sizes)
            if plain
            else detect(model, output, *sizes, ModelConfig().postprocess)
        )
    with meter("post-processing"):
        return [
            entry
            for image, detections in enumerate(found)
            for entry in (
                published.to_coco(image, detections) if plain else to_coco(image, detections, list(range(CLASSES)))
            )
        ]


class Clock:
    """Measures seconds; a device that computes on its own is waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.measured = device, dict.fromkeys(PARTS, 0.0)

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
        self.measured = dict.fromkeys(PARTS, 0)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        with FlopCounterMode(display=False) as counter:
            yield
        self.measured[part] += counter.get_total_flops()


def peak(device: torch.device, kind: torch.dtype) -> float:
    """Operations a second of the best of five products of large matrices."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.rand(side, side, device=device).to(kind) for _ in range(2))
    clock, best = Clock(device), float("inf")
    for _ in range(5):
        before = clock.measured["stages"]
        with clock("stages"):
            left @ right
        best = min(best, clock.measured["stages"] - before)
    return 2 * side**3 / best


def compare(model: QueryInst, deployed: dict[str, QueryInst], how: Results, rounds: int, elsewhere: Pool) -> Results:
    """Median seconds of every part of every way, operations, and whether the detections are the same."""
    models = {"published, kept": model, **deployed}
    shown = scene(how["batch"], how["height"], how["width"], how["device"])
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    entries: dict[str, Entries] = {}
    for number in range(rounds + 1):  # the first one warms up
        for way in WAYS:
            if way == "published":
                measured, entries[way] = elsewhere.apply(_published, (how,))
            else:
                clock = Clock(shown.images.device)
                entries[way] = look(models[way], shown, way, clock)
                measured = clock.measured
            if number:
                seconds[way].append(measured)
    flops = {}
    for way in ("published, kept", "fp32"):
        counter = Counter()
        look(models[way], shown, way, counter)
        flops[way] = counter.measured
    ways: Results = {}
    for way, every in seconds.items():
        ways[way] = {
            "seconds": statistics.median(sum(times.values()) for times in every),
            "parts": {part: statistics.median(times[part] for times in every) for part in PARTS},
            "flops": flops["published, kept" if way.startswith("published") else "fp32"],
        }
    return {"ways": ways, "equality": equality(entries["published"], entries["fp32"])}


@functools.cache
def _made(backbone: str, proposals: int, device: str) -> QueryInst:
    """Made once in the process that it is for."""
    return build(backbone, proposals, device)


def _published(how: Results) -> tuple[dict[str, float], Entries]:
    """The published way in a process of its own: with memory as a process has it by default."""
    with torch.inference_mode():
        model = _made(how["backbone"], how["proposals"], how["device"])
        shown = scene(how["batch"], how["height"], how["width"], how["device"])
        clock = Clock(shown.images.device)
        entries = look(model, shown, "published", clock)
    return clock.measured, entries


def equality(plain: Entries, ours: Entries) -> Results:
    """How many detections are the same in place, class, score and box, and the pixels in which their masks differ."""
    same = different = pixels = 0
    for one, other in zip(plain, ours, strict=True):
        alike = (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        near = np.allclose(one["score"], other["score"], rtol=1e-3) and np.allclose(
            one["bbox"], other["bbox"], atol=0.5
        )
        if alike and near:
            bitmaps = [coco_mask.decode(entry["segmentation"]) for entry in (one, other)]
            different += int((bitmaps[0] != bitmaps[1]).sum())
            pixels += bitmaps[0].size
            same += 1
    return {"detections": len(plain), "same": same, "different_pixels": different, "pixels": pixels}


def all_different(model: QueryInst, output: Output, rounds: int) -> float:
    """Median seconds of the masks of an image if no query were kept twice: as many as there are."""
    number = output.stages[-1].boxes.shape[1]
    every = torch.arange(number, device=output.stages[-1].boxes.device)
    rows = Rows(torch.zeros_like(every), every, every % CLASSES)
    spent = []
    for _ in range(rounds + 1):
        clock = Clock(every.device)
        with clock("masks"):
            model.predict_masks(output, {len(output.stages) - 1: rows})
        spent.append(clock.measured["masks"])
    return statistics.median(spent[1:])


def build(backbone: str, proposals: int, device: str) -> QueryInst:
    """A network with random weights in evaluation mode that behaves as a trained one where that costs time.

    Its proposals are boxes as large as COCO's objects, stages move boxes little, and classes are told apart. (A network
    that was only initialised blows rounding up tenfold a stage, and all its boxes are the whole image or nothing.)
    """
    torch.manual_seed(0)
    model = QueryInst(ModelConfig(num_proposals=proposals), BackboneConfig(name=backbone), CLASSES)
    side = torch.empty(proposals, 2).uniform_(math.log(0.02), 0).exp()
    model.queries.boxes.data = torch.cat([side / 2 + torch.rand(proposals, 2) * (1 - side), side], dim=1)
    for stage in model.stages:
        stage.box.cls.weight.data *= 4
        stage.box.reg.weight.data *= 0.1
    return model.eval().requires_grad_(False).to(device)


def scene(batch: int, height: int, width: int, device: str) -> Scene:
    """Generated pictures."""
    rng = np.random.default_rng(0)
    pictures = np.stack([cv2.resize(scenes.picture(rng), (width, height)) for _ in range(batch)])
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    return Scene(images.to(device), torch.tensor([[height, width]] * batch, device=device))


@torch.inference_mode()
def run(arguments: Any) -> Results:
    """Everything the command line asks for."""
    keep_memory()
    device, rounds = arguments.device, arguments.rounds
    sizes = [(int(size.partition("x")[0]), int(size.partition("x")[2])) for size in arguments.sizes]
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    results: Results = {
        "backbone": arguments.backbone,
        "rounds": rounds,
        "peak": {precision: peak(torch.device(device), kind) for precision, kind in kinds.items()},
        "comparisons": [],
    }
    for proposals in arguments.proposals:
        model = build(arguments.backbone, proposals, device)
        deployed = {precision: deploy(model, precision) for precision in kinds}
        shapes = [(1, *size) for size in sizes] + [(batch, *sizes[0]) for batch in arguments.batches if batch > 1]
        with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
            for batch, height, width in shapes:
                size = {"proposals": proposals, "batch": batch, "height": height, "width": width}
                how = {"backbone": arguments.backbone, "device": device, **size}
                results["comparisons"].append({**size, **compare(model, deployed, how, rounds, pool)})
        shown = scene(1, *sizes[0], device)
        output = deployed["fp32"](*shown)
        kept = output.stages[-1].logits.flatten(1).topk(proposals).indices // CLASSES
        distinct = {"kept": len(kept.unique()), "of": proposals}
        for precision, network in deployed.items():
            distinct[precision] = all_different(network, network(*shown), rounds)
        results.setdefault("distinct", {})[str(proposals)] = distinct
        if arguments.stages:
            results.setdefault("stages", {})[str(proposals)] = depths(deployed, shown, rounds)
    for precision, kind in kinds.items():  # again, in case something disturbed it
        results["peak"][precision] = max(results["peak"][precision], peak(torch.device(device), kind))
    return results


def depths(deployed: dict[str, QueryInst], shown: Scene, rounds: int) -> list[Results]:
    """Median seconds from pyramid to detections for fewer stages, and fewer proposals after the first one."""
    rows = []
    every = len(deployed["fp32"].queries.features)
    for stages in range(1, len(deployed["fp32"].stages) + 1):
        for proposals in sorted({every, every // 2, every // 4}, reverse=True) if stages > 1 else [every]:
            row: Results = {"stages": stages, "proposals": proposals}
            for precision, model in deployed.items():
                pyramid = model.pyramid(model.normalise(*shown))
                spent = []
                for _ in range(rounds + 1):
                    clock = Clock(shown.images.device)
                    with clock("stages"):
                        output = model.query(pyramid, shown.sizes, stages, proposals)
                        detect(model, output, shown.sizes, shown.sizes, ModelConfig().postprocess)
                    spent.append(clock.measured["stages"])
                row[precision] = statistics.median(spent[1:])
            rows.append(row)
    return rows
