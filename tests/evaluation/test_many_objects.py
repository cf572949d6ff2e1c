"""More objects than COCO's average precision counts, and objects without a mask."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from queryinst.evaluation.coco import KINDS, STATS, CocoEvaluator, table
from queryinst.structures import Detections

BACKENDS = ("pycocotools", "faster_coco_eval")
SIDE, MANY = 300, 600


def crowded(count: int = MANY) -> dict[str, Any]:
    """One image with a grid of squares."""
    boxes = [[10 * (n % 30), 10 * (n // 30), 8, 8] for n in range(count)]
    outlines = [[[x, y, x + w, y, x + w, y + h, x, y + h]] for x, y, w, h in boxes]
    annotations = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "area": 64, "iscrowd": 0, "segmentation": outline}
        for n, (box, outline) in enumerate(zip(boxes, outlines, strict=True), 1)
    ]
    image = {"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE}
    return {"images": [image], "categories": [{"id": 1, "name": "cell"}], "annotations": annotations}


def perfect(content: dict[str, Any]) -> Detections:
    boxes = torch.tensor([a["bbox"] for a in content["annotations"]], dtype=torch.float32)
    boxes[:, 2:] += boxes[:, :2]
    number = len(boxes)
    scores, labels = torch.linspace(0.9, 0.5, number), torch.zeros(number, dtype=torch.int64)
    return Detections(boxes, scores, labels, torch.ones(number, 28, 28), (SIDE, SIDE))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_perfect_detector_of_many_objects(backend: str):
    content = crowded()
    for limit, expected in ((100, 0.17), (MANY, 1)):
        evaluator = CocoEvaluator(content, backend, max_detections=limit)
        evaluator.update([1], [perfect(content)])
        metrics = evaluator.compute()
        for kind in KINDS:
            assert metrics[f"{kind}_AP"] == pytest.approx(expected, abs=0.005)
            assert metrics[f"{kind}_APs"] == pytest.approx(expected, abs=0.005)
            assert metrics[f"{kind}_AR{limit}"] == pytest.approx(limit / MANY)
            assert metrics[f"{kind}_AR10"] == pytest.approx(10 / MANY)
        assert f"AR{limit}" in table(metrics, ["cell"]).splitlines()[0].split()
        assert (f"{kind}_AR100" in metrics) == (limit == 100)


def test_the_twelve_numbers_are_those_of_pycocotools():
    content = crowded(90)
    rng = np.random.default_rng(0)
    found = perfect(content)
    found.boxes[:] += torch.from_numpy(rng.normal(0, 1, found.boxes.shape)).float()
    for annotation in content["annotations"]:
        annotation["area"] = float(rng.choice([64, 2000, 20_000]))
    evaluator = CocoEvaluator(content)
    evaluator.update([1], [found])
    metrics = evaluator.compute()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = content
        truth.createIndex()
        reference = COCOeval(truth, truth.loadRes(evaluator.results[1]), "bbox")
        for step in (reference.evaluate, reference.accumulate, reference.summarize):
            step()
    assert [metrics[f"bbox_{name}"] for name in STATS] == reference.stats.tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_object_without_a_mask_is_neither_found_nor_missed(backend: str):
    content = crowded(4)
    content["annotations"][0]["segmentation"] = []
    evaluator = CocoEvaluator(content, backend)
    for detections in (perfect(content), perfect(content).take(torch.arange(1, 4))):
        evaluator.update([1], [detections])
        assert evaluator.compute()["segm_AP"] == pytest.approx(1)
    assert evaluator.compute()["bbox_AP"] == pytest.approx(0.75, abs=0.01)
