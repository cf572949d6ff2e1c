"""One image, or a few, to COCO's run-length codes: time, operations and share of the machine's peak, part by part.

Four ways with the same weights, timed in turn, each in a process of its own: as published, on the network as it is
trained; the same in a process that keeps its memory, as ours does; ours, on the deployed network, in float32; and in
bfloat16.
"""

import contextlib
import functools
import math
import multiprocessing
import operator
import statistics
from multiprocessing.pool import Pool
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from queryinst.benchmarks import published, scenes
from queryinst.benchmarks.frame import Results
from queryinst.benchmarks.inference_report import PARTS, WAYS, markdown
from queryinst.benchmarks.meters import Clock, Counter, Meter, median_seconds, peak
from queryinst.config import BackboneConfig, ModelConfig
from queryinst.evaluation.coco import to_coco
from queryinst.memory import keep_memory
from queryinst.models.deploy import deploy
from queryinst.models.packed import pack
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import FeaturePyramid
from queryinst.structures import Rows

__all__ = ["markdown", "run"]

CLASSES = 80
KINDS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WARM_UP = 3  # images: until a process has all the memory that it keeps
Entries = list[dict[str, Any]]


class Scene(NamedTuple):
    """A batch of images of one size, which is also their original size."""

    images: Tensor  # (B, 3, H, W) uint8
    sizes: Tensor  # (B, 2)


def look(model: QueryInst, scene: Scene, way: str, meter: Meter) -> Entries:
    """The images' detections as entries of a COCO results file, labels as category ids."""
    plain = way.startswith("published")
    with meter("normalise"):
        x = model.normalise(*scene).to(model.queries.dtype)
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


@functools.cache
def network(backbone: str, proposals: int, device: str, way: str) -> QueryInst:
    """That of a way, made once in the process that it is for."""
    model = build(backbone, proposals, device)
    return model if way.startswith("published") else pack(deploy(model, way))


def measure(way: str, how: Results, count: bool = False) -> tuple[dict[str, float], Entries]:
    """Seconds of every part of an image, or operations, and the detections. For the process of this way."""
    with torch.inference_mode():
        model = network(how["backbone"], how["proposals"], how["device"], way)
        shown = scene(how["batch"], how["height"], how["width"], how["device"])
        meter = Counter() if count else Clock(shown.images.device)
        entries = look(model, shown, way, meter)
    return dict(meter.measured), entries


def compare(processes: dict[str, Pool], how: Results, rounds: int) -> Results:
    """Median seconds of every part of every way, operations, and whether the detections are the same."""
    seconds: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    entries: dict[str, Entries] = {}
    for number in range(WARM_UP + rounds):
        for way, process in processes.items():
            measured, entries[way] = process.apply(measure, (way, how))
            if number >= WARM_UP:
                seconds[way].append(measured)
    ways: Results = {}
    for way, every in seconds.items():
        ways[way] = {
            "seconds": statistics.median(sum(times.values()) for times in every),
            "parts": {part: statistics.median(times[part] for times in every) for part in PARTS},
            "flops": processes[way].apply(measure, (way, how, True))[0],
        }
    return {"ways": ways, "equality": equality(entries["published"], entries["fp32"])}


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


def all_different(way: str, how: Results, rounds: int) -> tuple[int, float]:
    """How many different queries are kept, and median seconds of the masks if all were: as many as there are."""
    with torch.inference_mode():
        model, number = network(how["backbone"], how["proposals"], how["device"], way), how["proposals"]
        output = model(*scene(1, how["height"], how["width"], how["device"]))
        last = output.stages[-1]
        kept = len((last.logits.flatten(1).topk(number).indices // CLASSES).unique())
        every = torch.arange(number, device=last.boxes.device)
        rows = {len(output.stages) - 1: Rows(torch.zeros_like(every), every, every % CLASSES)}
        return kept, median_seconds(lambda: model.predict_masks(output, rows), rounds, every.device)


def depths(way: str, how: Results, rounds: int) -> list[Results]:
    """Median seconds from pyramid to detections for fewer stages, and fewer proposals after the first one."""
    rows = []
    with torch.inference_mode():
        model, every = network(how["backbone"], how["proposals"], how["device"], way), how["proposals"]
        shown = scene(1, how["height"], how["width"], how["device"])
        pyramid = model.pyramid(model.normalise(*shown))
        for stages in range(1, len(model.stages) + 1):
            for proposals in sorted({every, every // 2, every // 4}, reverse=True) if stages > 1 else [every]:

                def to_detections(stages: int = stages, proposals: int = proposals) -> None:
                    output = model.query(pyramid, shown.sizes, stages, proposals)
                    detect(model, output, shown.sizes, shown.sizes, ModelConfig().postprocess)

                seconds = median_seconds(to_detections, rounds, shown.images.device)
                rows.append({"stages": stages, "proposals": proposals, way: seconds})
    return rows


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


def begin(threads: int, keep: bool) -> None:
    """In a process, before anything is measured."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(0)
    if keep:
        keep_memory()


def run(arguments: Any) -> Results:
    """Everything the command line asks for."""
    device, rounds = arguments.device, arguments.rounds
    sizes = [tuple(int(side) for side in size.split("x")) for size in arguments.sizes]
    shapes = [(1, *size) for size in sizes] + [(batch, *sizes[0]) for batch in arguments.batches if batch > 1]
    peaks = {precision: peak(torch.device(device), kind) for precision, kind in KINDS.items()}
    results: Results = {"backbone": arguments.backbone, "rounds": rounds, "comparisons": [], "distinct": {}}
    for proposals in arguments.proposals:
        with contextlib.ExitStack() as stack:
            processes = {way: stack.enter_context(_process(way)) for way in WAYS}
            for batch, height, width in shapes:
                size = {"proposals": proposals, "batch": batch, "height": height, "width": width}
                how = {"backbone": arguments.backbone, "device": device, **size}
                results["comparisons"].append({**size, **compare(processes, how, rounds)})
            how |= {"height": sizes[0][0], "width": sizes[0][1]}
            distinct: Results = {"of": proposals}
            for way in KINDS:
                distinct["kept"], distinct[way] = processes[way].apply(all_different, (way, how, rounds))
            results["distinct"][str(proposals)] = distinct
            if arguments.stages:
                rows = [processes[way].apply(depths, (way, how, rounds)) for way in KINDS]
                together = [functools.reduce(operator.or_, same) for same in zip(*rows, strict=True)]
                results.setdefault("stages", {})[str(proposals)] = together
    # Again, in case something disturbed it.
    results["peak"] = {way: max(peaks[way], peak(torch.device(device), kind)) for way, kind in KINDS.items()}
    return results


def _process(way: str) -> Pool:
    return multiprocessing.get_context("spawn").Pool(1, begin, (torch.get_num_threads(), way != "published"))
