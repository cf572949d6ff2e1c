"""What a finished run tells its dashboards, from an evaluation with and without objects of a class."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from queryinst.evaluation.coco import CocoEvaluator
from queryinst.lightning.loggers import CsvLogger
from queryinst.lightning.report import class_table, precision_over_recall, report

NAMES = ("cat", "dog", "elk")


@pytest.fixture
def evaluator() -> CocoEvaluator:
    """Two cats, one of them found; a dog, found; a crowd of dogs; no elk."""
    square = [[0, 0, 10, 0, 10, 10, 0, 10]]
    objects: list[dict[str, Any]] = [
        {"category_id": 1, "bbox": [0, 0, 10, 10], "segmentation": square},
        {"category_id": 1, "bbox": [30, 30, 10, 10], "segmentation": [[30, 30, 40, 30, 40, 40, 30, 40]]},
        {"category_id": 2, "bbox": [0, 0, 10, 10], "segmentation": square},
        {
            "category_id": 2,
            "bbox": [0, 0, 50, 50],
            "segmentation": {"size": [64, 64], "counts": [0, 640, 3456]},
            "iscrowd": 1,
        },
    ]
    content = {
        "images": [{"id": 1, "height": 64, "width": 64}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
        "annotations": [{"id": n, "image_id": 1, "area": 100, "iscrowd": 0, **a} for n, a in enumerate(objects, 1)],
    }
    made = CocoEvaluator(content)
    from pycocotools import mask

    code = mask.merge(mask.frPyObjects(square, 64, 64))
    found = {"image_id": 1, "bbox": [0.0, 0.0, 10.0, 10.0], "segmentation": {**code, "counts": code["counts"].decode()}}
    made.results = {1: [{**found, "category_id": 1, "score": 0.9}, {**found, "category_id": 2, "score": 0.8}]}
    return made


def test_a_row_a_class(evaluator: CocoEvaluator):
    metrics = evaluator.compute()
    rows = class_table(evaluator)
    assert [row[:2] for row in rows] == [["cat", 2], ["dog", 1], ["elk", 0]], "the worst first, nothing to find last"
    assert rows[0][2:] == pytest.approx([metrics["segm_AP/cat"]] * 4)
    assert rows[1][2:] == pytest.approx([1.0] * 4)
    assert rows[2][2:] == [None] * 4
    evaluator.content["annotations"].clear()
    evaluator.compute()
    assert all(row[1:] == [0, None, None, None, None] for row in class_table(evaluator))


def test_precision_over_recall(evaluator: CocoEvaluator):
    metrics = evaluator.compute()
    for kind, lines in precision_over_recall(evaluator).items():
        assert {name: len(line) for name, line in lines.items()} == {"0.50": 101, "0.75": 101, "0.50 to 0.95": 101}
        assert lines["0.50"].mean() == pytest.approx(metrics[f"{kind}_AP50"])
        expected = [1.0] * 51 + [0.5] * 50  # half of the cats and all dogs are found
        assert lines["0.50"].tolist() == pytest.approx(expected)
    evaluator.content["annotations"].clear()
    evaluator.compute()
    assert not np.any(precision_over_recall(evaluator)["segm"]["0.50"])


def test_each_column_and_each_curve_is_of_its_own_thresholds():
    """Precision 0.1 t at the t-th of ten thresholds, twice that for the second class; boxes 0.01 below masks."""
    by_threshold = np.arange(10)[:, None, None] * np.array([0.05, 0.1])
    masks = np.broadcast_to(by_threshold, (10, 101, 2)).copy()
    masks[:, 60:] = 0
    annotations = [{"category_id": key} for key in (4, 4, 7)]
    made: Any = SimpleNamespace(
        precision={"segm": masks, "bbox": masks + 0.01},
        content={"annotations": annotations},
        categories=[{"id": 4, "name": "cat"}, {"id": 7, "name": 3}],
    )
    share = 60 / 101
    assert class_table(made) == [
        ["cat", 2, *map(pytest.approx, (0.225 * share, 0, 0.25 * share, 0.225 * share + 0.01))],
        ["3", 1, *map(pytest.approx, (0.45 * share, 0, 0.5 * share, 0.45 * share + 0.01))],
    ]
    curves = precision_over_recall(made)
    assert list(curves) == ["segm", "bbox"]
    for kind, more in (("segm", 0.0), ("bbox", 0.01)):
        for name, mean in (("0.50", 0.0), ("0.75", 0.375), ("0.50 to 0.95", 0.3375)):
            np.testing.assert_allclose(curves[kind][name], [mean + more] * 60 + [more] * 41)


def test_the_picture_can_be_left_out(evaluator: CocoEvaluator, tmp_path: Path):
    metrics = evaluator.compute()
    report([CsvLogger(tmp_path / "metrics.csv")], metrics, [metrics], evaluator, None, 7)
    assert list(tmp_path.iterdir()) == [], "curves are for those who show them"
    report([], metrics, [metrics], evaluator, tmp_path, 7)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["precision_recall.png"]
