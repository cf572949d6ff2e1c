"""COCO metrics number by number: against pycocotools run on files, sizes by area, what is written, what is printed."""

import contextlib
import io
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from queryinst.errors import UserError
from queryinst.evaluation.coco import KINDS, CocoEvaluator, table, to_coco
from queryinst.structures import Detections

BACKENDS = ["pycocotools", "faster_coco_eval"]
SIDE = 240
CATEGORIES = [{"id": 8, "name": "b"}, {"id": 4, "name": "a"}, {"id": 90, "name": "never there"}]


def annotation(image: int, category: int, box: list[float], **changes: Any) -> dict[str, Any]:
    """A triangle, which has half the pixels of its box."""
    x, y, w, h = box
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "segmentation": [[x, y, x + w, y, x, y + h]],
        **changes,
    }


def content(*annotations: dict[str, Any], images: int = 1) -> dict[str, Any]:
    whole = [{"id": number, "height": SIDE, "width": SIDE} for number in range(images)]
    return {"images": whole, "categories": CATEGORIES, "annotations": list(annotations)}


def triangles(*found: tuple[list[float], float, int]) -> Detections:
    """(x, y, width, height), score, label."""
    boxes = torch.tensor([box for box, _, _ in found]).reshape(-1, 4)
    cells = torch.arange(28)
    return Detections(
        torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1),
        torch.tensor([score for _, score, _ in found]),
        torch.tensor([label for _, _, label in found], dtype=torch.int64),
        (cells[:, None] + cells < 28).float().expand(len(found), 28, 28),
        (SIDE, SIDE),
    )


def random_scene(seed: int) -> tuple[dict[str, Any], list[Detections]]:
    """Objects of all sizes, whose `area` is that of their box, their mask or another, crowds, and noisy detections."""
    rng = np.random.default_rng(seed)
    annotations, detections = [], []
    for image in range(6):
        found = []
        for _ in range(rng.integers(1, 6)):
            side = rng.choice([20, 50, 110]) * rng.uniform(0.8, 1.2, 2)
            box = [*(rng.uniform(0, 1, 2) * (SIDE - side)).tolist(), *side.tolist()]
            category = int(rng.choice([4, 8]))
            area = float(side.prod() * rng.choice([0.2, 0.5, 1, 3]))
            crowd = int(rng.random() < 0.1)
            annotations.append(annotation(image, category, box, area=area, iscrowd=crowd, id=len(annotations) + 1))
            for _ in range(rng.integers(0, 3)):
                near = np.array(box) + rng.normal(0, 0.06, 4) * side.mean()
                label = [4, 8].index(category) if rng.random() < 0.8 else int(rng.integers(3))
                found.append((np.maximum(near, 2).tolist(), round(float(rng.random()), 1), label))
        detections.append(triangles(*sorted(found, key=lambda row: -row[1])))
    return content(*annotations, images=6), detections


def by_pycocotools(
    folder: Path, truth: dict[str, Any], results: list[dict[str, Any]], kind: str
) -> tuple[list[float], NDArray[np.float64]]:
    """The twelve numbers and the precisions, as anybody gets them from two files."""
    other = "segmentation" if kind == "bbox" else "bbox"  # that `loadRes` takes the area from this one
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps([{k: v for k, v in row.items() if k != other} for row in results]))
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = COCO(str(folder / "truth.json"))
        evaluator = COCOeval(loaded, loaded.loadRes(str(folder / "found.json")), kind)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats.tolist(), evaluator.eval["precision"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_numbers_are_those_of_pycocotools_from_files(tmp_path: Path, seed: int, backend: str):
    truth, detections = random_scene(seed)
    evaluator = CocoEvaluator(truth, backend)
    evaluator.update([5, 4, 3, 2, 1, 0], detections[::-1])
    metrics = evaluator.compute()
    results = [row for image, found in enumerate(detections) for row in to_coco(image, found, [4, 8, 90])]
    expected = {}
    for kind in KINDS:
        stats, precision = by_pycocotools(tmp_path, truth, results, kind)
        names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
        expected |= {f"{kind}_{n}": math.nan if value == -1 else value for n, value in zip(names, stats, strict=True)}
        expected |= {f"{kind}_AP/{name}": precision[:, :, k, 0, 2].mean() for k, name in enumerate("ab")}
        assert evaluator.precision[kind] == pytest.approx(precision[:, :, :, 0, 2], abs=1e-12)
        assert len({round(value, 6) for value in stats}) > 9, "numbers that differ"
    undefined = {f"{kind}_AP/never there": math.nan for kind in KINDS}
    assert metrics == pytest.approx(expected | undefined, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("changes", "size"),
    [({"area": 100.0}, "s"), ({"area": 20_000.0}, "l"), ({}, "m")],
    ids=["smaller", "larger", "left out: that of the box"],
)
def test_the_size_of_an_object_is_the_area_that_the_file_gives(backend: str, changes: dict[str, Any], size: str):
    """Its box has 1600 pixels (medium) and its mask 800 (small)."""
    evaluator = CocoEvaluator(content(annotation(0, 4, [10, 10, 40, 40], **changes)), backend)
    evaluator.update([0], [triangles(([10.0, 10, 40, 40], 0.9, 0))])
    metrics = evaluator.compute()
    for kind in KINDS:
        for other in "sml":
            expected = pytest.approx(1) if other == size else pytest.approx(math.nan, nan_ok=True)
            assert metrics[f"{kind}_AR{other}"] == expected, (kind, other)
        assert metrics[f"{kind}_AP{size}"] > 0.7


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_size_of_a_false_detection_is_that_of_its_box_or_of_its_mask(backend: str):
    """Its box has 1600 pixels (medium) and its mask 800 (small): each is counted among its like alone."""
    small, medium = annotation(0, 4, [10, 10, 20, 20]), annotation(0, 4, [60, 60, 60, 60])
    evaluator = CocoEvaluator(content(small, medium), backend)
    right = [([10.0, 10, 20, 20], 0.8, 0), ([60.0, 60, 60, 60], 0.7, 0)]
    evaluator.update([0], [triangles(([150.0, 150, 40, 40], 0.9, 0), *right)])
    wrong = evaluator.compute()
    evaluator.update([0], [triangles(*right)])
    alone = evaluator.compute()
    for kind, hit, spared in (("bbox", "m", "s"), ("segm", "s", "m")):
        assert wrong[f"{kind}_AP{hit}"] == pytest.approx(alone[f"{kind}_AP{hit}"] / 2)
        assert wrong[f"{kind}_AP{spared}"] == alone[f"{kind}_AP{spared}"]


def test_an_object_is_found_once():
    """By the first detection of all: that must not have the id 0, or the second one would find the object again."""
    box = [10.0, 10, 40, 40]
    evaluator = CocoEvaluator(content(annotation(0, 4, box), annotation(1, 4, box), images=2))
    evaluator.update([0, 1], [triangles((box, 0.9, 0), (box, 0.8, 0)), triangles((box, 0.7, 0))])
    assert evaluator.compute()["bbox_AP"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_hundred_detections_of_an_image_and_class_count():
    """The right one is the hundredth; with one more before it, it is left out."""
    box, wrong = [10.0, 10, 40, 40], ([150.0, 150, 40, 40], 0.9, 0)
    evaluator = CocoEvaluator(content(annotation(0, 4, box)))
    for before, value in ((99, 0.01), (100, 0.0)):
        evaluator.update([0], [triangles(*[wrong] * before, (box, 0.5, 0))])
        metrics = evaluator.compute()
        assert [metrics["bbox_AP"], metrics["bbox_AP/a"]] == pytest.approx([value] * 2, abs=1e-9)
        assert evaluator.precision["bbox"][:, :, 0].mean() == pytest.approx(value, abs=1e-9)


def test_entries_of_a_results_file():
    found = triangles(([10.0, 20, 40, 30], 0.75, 1), ([0.0, 5, 10, 16], 0.5, 0))
    first, second = to_coco(7, found, [4, 8])
    mask = first.pop("segmentation")
    assert first == {"image_id": 7, "category_id": 8, "bbox": [10.0, 20.0, 40.0, 30.0], "score": 0.75}
    assert (mask["size"], coco_mask.toBbox(mask).tolist()) == ([SIDE, SIDE], [10, 20, 40, 30])
    assert (second["category_id"], second["bbox"], second["score"]) == (4, [0, 5, 10, 16], 0.5)
    code = {"size": [3, 4], "counts": b"<0"}
    given = to_coco(7, found, [4, 8], [code, code])
    assert [entry["segmentation"] for entry in given] == [{"size": [3, 4], "counts": "<0"}] * 2
    with pytest.raises(ValueError, match="shorter"):
        to_coco(7, found, [4, 8], [code])


def test_an_image_must_have_its_detections():
    with pytest.raises(ValueError, match="shorter"):
        CocoEvaluator(content()).update([0, 1], [triangles()])


def test_the_last_detections_of_an_image_count_and_none_after_a_reset():
    box = [10.0, 10, 40, 40]
    evaluator = CocoEvaluator(content(annotation(0, 4, box), annotation(1, 4, box), images=2))
    evaluator.update([0], [triangles((box, 0.9, 0))])
    evaluator.update([1], [triangles((box, 0.9, 0))])
    assert evaluator.compute()["bbox_AR100"] == pytest.approx(1)
    evaluator.update([1], [triangles()])
    assert evaluator.compute()["bbox_AR100"] == pytest.approx(0.5)
    evaluator.reset()
    assert all(math.isnan(value) for value in evaluator.compute().values())


@pytest.mark.parametrize(("boxes", "masks"), [(False, True), (True, False), (False, False), (True, True)])
def test_an_ap_of_nearly_nothing_is_explained(boxes: bool, masks: bool):
    """That of boxes, or that of masks."""
    box, elsewhere = [10.0, 10, 40, 40], [150.0, 150, 50, 50]
    truth = annotation(0, 4, box if boxes else elsewhere)
    truth["segmentation"] = annotation(0, 4, box if masks else elsewhere)["segmentation"]
    evaluator = CocoEvaluator(content(truth))
    assert evaluator.diagnosis == ""
    evaluator.update([0], [triangles((box, 0.9, 0))])
    evaluator.compute()
    assert evaluator.diagnosis.startswith("1 predictions and 1 ground truths in 1 images.") == (not (boxes and masks))
    evaluator.content = content(annotation(0, 4, box))
    evaluator.compute()
    assert evaluator.diagnosis == "", "no longer"


def test_an_ap_of_one_percent_is_not_explained():
    box = [10.0, 10, 40, 40]
    evaluator = CocoEvaluator(content(*[annotation(0, 4, box)] + [annotation(0, 4, [200, 200, 9, 9])] * 99))
    evaluator.update([0], [triangles((box, 0.9, 0))])
    assert evaluator.compute()["bbox_AP"] == pytest.approx(2 / 101)
    assert evaluator.diagnosis == ""


def test_matches_are_kept_where_asked_only():
    for asked, kept in (({}, False), ({"keep_matches": True}, True)):
        evaluator = CocoEvaluator(content(annotation(0, 4, [10, 10, 40, 40])), **asked)
        assert evaluator.matches == {}
        evaluator.update([0], [triangles(([10.0, 10, 40, 40], 0.9, 0))])
        evaluator.compute()
        assert bool(evaluator.matches) == kept


def test_a_backend_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    evaluator = CocoEvaluator(content(), "faster_coco_eval")
    with pytest.raises(UserError) as error:
        evaluator.compute()
    expected = "backend=faster_coco_eval needs the package faster-coco-eval: pip install 'queryinst[fast]'"
    assert str(error.value) == expected


def test_the_backend_is_the_one_that_was_asked_for(monkeypatch: pytest.MonkeyPatch):
    """Each works where the other one is not there; pycocotools is the usual one."""
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    assert math.isnan(CocoEvaluator(content()).compute()["bbox_AP"])
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pycocotools.cocoeval", None)
    assert math.isnan(CocoEvaluator(content(), "faster_coco_eval").compute()["bbox_AP"])


def test_the_table_line_by_line():
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    metrics = {f"x/bbox_{name}": number / 100 for number, name in enumerate(names)}
    metrics |= {f"x/segm_{name}": number / 10 for number, name in enumerate(names)}
    metrics |= {"x/segm_APl": math.nan, "x/segm_AP/a": 0.25, "x/segm_AP/b": math.nan}
    assert table(metrics, ["a", "b"], "x/").split("\n") == [
        "            AP    AP50    AP75     APs     APm     APl   AR100     ARs     ARm     ARl",
        "box      0.000   0.010   0.020   0.030   0.040   0.050   0.080   0.090   0.100   0.110",
        "mask     0.000   0.100   0.200   0.300   0.400       -   0.800   0.900   1.000   1.100",
        "mask AP by class: a 0.250, b -",
    ]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]):
    for backend in BACKENDS:
        CocoEvaluator(content(annotation(0, 4, [10, 10, 40, 40])), backend).compute()
    assert capfd.readouterr() == ("", "")
