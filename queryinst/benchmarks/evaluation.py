"""Evaluation: detections to COCO's results, masks as run-length codes, and the twelve numbers by both backends."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from queryinst.benchmarks import masks, scenes
from queryinst.benchmarks.frame import Results, table
from queryinst.benchmarks.rounds import alternate
from queryinst.evaluation.coco import KINDS, STATS, CocoEvaluator
from queryinst.structures import Detections

BACKENDS = ("pycocotools", "faster_coco_eval")
FOUND = 0.8  # of the objects have a detection near them


def run(arguments: Any) -> Results:
    """Measure with as many images and detections as the command line says."""
    codes = masks.measure(arguments.detections, scenes.HEIGHT, scenes.WIDTH, arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "instances.json"
        scenes.write_annotations(path, arguments.images, arguments.images * arguments.objects)
        content = json.loads(path.read_text())
    found = detections_of(content, arguments.detections)
    ids = [image["id"] for image in content["images"]]
    evaluators = {backend: CocoEvaluator(content, backend) for backend in BACKENDS}
    begin = time.perf_counter()
    evaluators[BACKENDS[0]].update(ids, found)
    updating = time.perf_counter() - begin
    evaluators[BACKENDS[1]].results = evaluators[BACKENDS[0]].results
    metrics: dict[str, dict[str, float]] = {}

    def compute(backend: str) -> None:
        metrics[backend] = evaluators[backend].compute()

    seconds = alternate(arguments.rounds, *(lambda backend=backend: compute(backend) for backend in BACKENDS))
    names = [f"{kind}_{name}" for kind in KINDS for name in STATS]
    return {
        "images": arguments.images,
        "objects": arguments.objects,
        "detections": arguments.detections,
        "codes": codes._asdict(),
        "updating": updating,
        "computing": dict(zip(BACKENDS, seconds, strict=True)),
        "numbers": {backend: {name: metrics[backend][name] for name in names} for backend in BACKENDS},
    }


def detections_of(content: dict[str, Any], count: int, seed: int = 0) -> list[Detections]:
    """As many detections for every image: near most of its objects, mostly of their class, and the rest anywhere."""
    rng = np.random.default_rng(seed)
    blobs, _ = masks.predictions(64, scenes.HEIGHT, scenes.WIDTH, seed)
    size, limit = (scenes.HEIGHT, scenes.WIDTH), [scenes.WIDTH, scenes.HEIGHT, scenes.WIDTH, scenes.HEIGHT]
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    made = []
    for annotations in by_image.values():
        near = [annotation for annotation in annotations if rng.random() < FOUND][:count]
        boxes = np.zeros((count, 4))
        corner = rng.uniform([0, 0], limit[:2], (count, 2))
        boxes[:] = np.concatenate([corner, corner + rng.uniform(8, 320, (count, 2))], axis=1)
        labels, scores = rng.integers(0, 80, count), rng.uniform(0, 0.6, count)
        for place, annotation in enumerate(near):
            x, y, width, height = annotation["bbox"]
            boxes[place] = np.array([x, y, x + width, y + height]) + rng.normal(0, 0.06, 4) * np.array(
                [width, height] * 2
            )
            labels[place] = annotation["category_id"] - 1 if rng.random() < FOUND else labels[place]
            scores[place] = rng.uniform(0.3, 1)
        order = np.argsort(-scores)
        made.append(
            Detections(
                torch.from_numpy(boxes.clip(0, limit)[order].astype(np.float32)),
                torch.from_numpy(scores[order].astype(np.float32)),
                torch.from_numpy(labels[order]),
                torch.from_numpy(blobs[rng.integers(0, len(blobs), count)]),
                size,
            )
        )
    return made


def markdown(results: Results) -> str:
    """Seconds of each step of an evaluation, against the plain way, and how far the backends' numbers differ."""
    codes, computing, numbers = results["codes"], results["computing"], results["numbers"]
    plain, fast = BACKENDS
    total = results["images"] * results["detections"]
    rows = [
        (
            f"{results['detections']} masks to run-length codes",
            *(f"{codes['plain'] * 1000:.1f} ms, paste and encode", f"{codes['ours'] * 1000:.1f} ms, traced"),
            f"{codes['plain'] / codes['ours']:.1f}x",
        ),
        (f"{total} detections to COCO's results", "", f"{results['updating']:.2f} s", ""),
        (
            "box and mask metrics",
            *(f"{computing[plain]:.2f} s, {plain}", f"{computing[fast]:.2f} s, {fast}"),
            f"{computing[plain] / computing[fast]:.1f}x",
        ),
    ]
    different = max(abs(numbers[plain][name] - numbers[fast][name]) for name in numbers[plain])
    said = f"{results['images']} images of {scenes.HEIGHT}x{scenes.WIDTH}, {results['objects']} objects and "
    return "\n\n".join(
        [
            f"{said}{results['detections']} detections each; medians.",
            table(["step", "plain way", "here", "ratio"], rows),
            f"The two backends give the same {len(numbers[plain])} numbers to {different:.0e} "
            f"(box AP {numbers[fast]['bbox_AP']:.4f}, mask AP {numbers[fast]['segm_AP']:.4f}), and pasting and boxes "
            f"differ in {codes['different']} pixels.",
        ]
    )
