"""COCO metrics: known answers, empty sets, several ranks, and the two backends."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from queryinst.evaluation.coco import CocoEvaluator, table, to_coco
from queryinst.structures import Detections


def content(images: int = 3) -> dict[str, Any]:
    square = [[10, 10, 30, 10, 30, 30, 10, 30]]
    annotations = [
        {
            "id": i + 1,
            "image_id": i,
            "category_id": 4,
            "bbox": [10, 10, 20, 20],
            "area": 400,
            "iscrowd": 0,
            "segmentation": square,
        }
        for i in range(images)
    ]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 50, "width": 60} for i in range(images)],
        "categories": [{"id": 8, "name": "b"}, {"id": 4, "name": "a"}],
        "annotations": annotations,
    }


def detection(box: list[float], label: int = 0, score: float = 0.9) -> Detections:
    return Detections(
        torch.tensor([box]), torch.tensor([score]), torch.tensor([label]), torch.ones(1, 28, 28), (50, 60)
    )


def nothing() -> Detections:
    return Detections(
        torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 28, 28), (50, 60)
    )


PERFECT = [10.0, 10, 30, 30]


def test_perfect_detections():
    evaluator = CocoEvaluator(content())
    evaluator.update([0, 1, 2], [detection(PERFECT)] * 3)
    metrics = evaluator.compute()
    for kind in ("bbox", "segm"):
        assert (
            metrics[f"{kind}_AP"]
            == metrics[f"{kind}_AP50"]
            == metrics[f"{kind}_APs"]
            == metrics[f"{kind}_AR1"]
            == pytest.approx(1)
        )
        assert metrics[f"{kind}_AP/a"] == pytest.approx(1)
        assert math.isnan(metrics[f"{kind}_AP/b"])
        assert math.isnan(metrics[f"{kind}_APl"])


def test_wrong_class_wrong_place_and_nothing():
    evaluator = CocoEvaluator(content())
    evaluator.update([0, 1, 2], [detection(PERFECT, label=1), detection([40.0, 30, 55, 45]), nothing()])
    assert evaluator.compute()["segm_AP"] == 0
    evaluator.reset()
    evaluator.update([0, 1, 2], [nothing()] * 3)
    assert evaluator.compute()["bbox_AP"] == 0


def test_a_box_that_overlaps_by_two_thirds():
    evaluator = CocoEvaluator(content())
    evaluator.update([0, 1, 2], [detection([10.0, 10, 30, 40])] * 3)  # IoU 2/3: four thresholds of ten
    metrics = evaluator.compute()
    assert metrics["segm_AP"] == metrics["bbox_AP"] == pytest.approx(0.4)
    assert metrics["segm_AP75"] == 0


def test_only_the_images_seen_count():
    evaluator = CocoEvaluator(content())
    evaluator.update([1], [detection(PERFECT)])
    assert evaluator.compute()["segm_AR100"] == pytest.approx(1)


def test_ranks_are_put_together_once_each(monkeypatch: pytest.MonkeyPatch):
    import torch.distributed as dist

    whole, parts = CocoEvaluator(content()), [CocoEvaluator(content()) for _ in range(2)]
    found = [detection(PERFECT), detection([10.0, 10, 30, 40]), detection(PERFECT, score=0.3)]
    whole.update([0, 1, 2], found)
    parts[0].update([0, 2], [found[0], found[2]])
    parts[1].update([1, 0], [found[1], found[0]])  # as a sampler does that gives all processes as many
    expected = whole.compute()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(
        dist, "all_gather_object", lambda out, own: out.__setitem__(slice(None), [part.results for part in parts])
    )
    for part in parts:
        assert part.compute() == pytest.approx(expected, rel=0, abs=0, nan_ok=True)


def test_results_are_coco_results():
    (result,) = json.loads(json.dumps(to_coco(3, detection([10.0, 12, 30, 40], label=1), [4, 8])))
    assert result["category_id"] == 8
    assert result["bbox"] == [10, 12, 20, 28]
    from pycocotools import mask as coco_mask

    assert coco_mask.toBbox(result["segmentation"]).tolist() == [10, 12, 20, 28]


def random_detections(
    rng: np.random.Generator, truth: list[dict[str, Any]], classes: list[int], size: tuple[int, int]
) -> Detections:
    """Ground truth moved a little, some with another class, and noise."""
    rows = []
    for annotation in truth:
        x, y, w, h = annotation["bbox"]
        moved = np.array([x, y, x + w, y + h]) + rng.normal(0, 2, 4)
        label = classes.index(annotation["category_id"]) if rng.random() < 0.8 else rng.integers(len(classes))
        rows.append((moved, rng.random(), label))
    for _ in range(5):
        low = rng.uniform(0, 60, 2)
        rows.append(
            (np.concatenate([low, low + rng.uniform(5, 30, 2)]), rng.random() * 0.5, rng.integers(len(classes)))
        )
    boxes, scores, labels = zip(*rows, strict=True)
    order = np.argsort(-np.array(scores))
    masks = np.clip(rng.normal(0.8, 0.2, (len(rows), 28, 28)), 0, 1)
    return Detections(
        torch.tensor(np.array(boxes)[order], dtype=torch.float32),
        torch.tensor(np.array(scores)[order], dtype=torch.float32),
        torch.tensor(np.array(labels)[order]),
        torch.tensor(masks, dtype=torch.float32),
        size,
    )


def test_the_faster_backend_gives_the_same_numbers(shapes_source: Path):
    truth = json.loads((shapes_source / "annotations" / "instances_train.json").read_text())
    classes = sorted(category["id"] for category in truth["categories"])
    rng, evaluators = (
        np.random.default_rng(0),
        [CocoEvaluator(truth, backend) for backend in ("pycocotools", "faster_coco_eval")],
    )
    for image in truth["images"]:
        of_image = [annotation for annotation in truth["annotations"] if annotation["image_id"] == image["id"]]
        found = random_detections(rng, of_image, classes, (image["height"], image["width"]))
        for evaluator in evaluators:
            evaluator.update([image["id"]], [found])
    slow, fast = (evaluator.compute() for evaluator in evaluators)
    assert 0.01 < slow["segm_AP"] < 0.9
    assert slow.keys() == fast.keys()
    for name, value in slow.items():
        assert fast[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def test_table_shows_what_is_undefined_as_a_dash():
    evaluator = CocoEvaluator(content())
    evaluator.update([0, 1, 2], [detection(PERFECT)] * 3)
    text = table(evaluator.compute(), ["a", "b"])
    assert "mask     1.000" in text
    assert text.endswith("a 1.000, b -")


@pytest.mark.parametrize("ids", [[0, 1, 2], [7, 7, 7], ["a", None, "b"]])
def test_ids_of_annotations_do_not_matter(ids: list[Any]):
    """COCOeval takes an object with the id 0 for one that is not there, and would count two of one id once."""
    data = content()
    for annotation, new in zip(data["annotations"], ids, strict=True):
        annotation["id"] = new
    evaluator = CocoEvaluator(data)
    evaluator.update([0, 1, 2], [detection(PERFECT)] * 3)
    assert evaluator.compute()["segm_AP"] == pytest.approx(1)
