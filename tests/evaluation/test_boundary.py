"""Boundary AP: which pixels are a boundary, and that its IoU is the published one, against direct slow ways."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_coco_evaluator import PERFECT, content, detection, nothing

from queryinst.evaluation.boundary import BoundaryEval, boundary
from queryinst.evaluation.coco import CocoEvaluator, table
from queryinst.structures import Detections


def code(bitmap: NDArray[np.uint8]) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(bitmap))


def near_the_outline(bitmap: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixel by pixel: those of the mask from which something else, or no image, is at most so many steps away."""
    height, width = bitmap.shape
    steps = max(1, round(0.02 * np.sqrt(height**2 + width**2)))
    found = np.zeros_like(bitmap)
    for y, x in np.argwhere(bitmap):
        window = [
            0 <= v < height and 0 <= u < width and bitmap[v, u]
            for v in range(y - steps, y + steps + 1)
            for u in range(x - steps, x + steps + 1)
        ]
        found[y, x] = not all(window)
    return found


@pytest.mark.parametrize("size", [(9, 13), (50, 60), (120, 90)])
def test_the_boundary_is_what_lies_near_the_outline(size: tuple[int, int]):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]]
    disc = np.hypot((y - size[0] / 3) / size[0], (x - size[1] / 4) / size[1]) < 0.4  # over the image's border
    holes = disc & (rng.random(size) < 0.995)
    for bitmap in (disc, holes, np.ones(size), np.zeros(size), rng.random(size) < 0.9):
        wanted = near_the_outline(bitmap.astype(np.uint8))
        assert coco_mask.decode(boundary(code(bitmap.astype(np.uint8)))).tolist() == wanted.tolist()


class Slowly(COCOeval):  # type: ignore[misc]
    """The smaller of both IoU, of all pairs, from bitmaps."""

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802, N803 - names of pycocotools
        objects, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not objects or not found:
            return []
        found = [found[k] for k in np.argsort([-one["score"] for one in found], kind="mergesort")]
        overlap = np.zeros((len(found), len(objects)))
        for row, one in enumerate(found):
            for column, other in enumerate(objects):
                a, b = (coco_mask.decode(entry["segmentation"]) for entry in (one, other))
                if other["iscrowd"]:
                    overlap[row, column] = (a & b).sum() / max(a.sum(), 1)
                    continue
                pairs = ((a, b), (near_the_outline(a), near_the_outline(b)))
                overlap[row, column] = min((p & q).sum() / max((p | q).sum(), 1) for p, q in pairs)
        return overlap


def random_case(seed: int) -> tuple[dict[str, Any], dict[int, Detections]]:
    """Three images with ellipses of two classes, crowd regions among them, and detections that are near them."""
    rng = np.random.default_rng(seed)
    truth = content(0)
    truth["images"] = [{"id": i, "file_name": f"{i}.png", "height": 50, "width": 60} for i in range(3)]
    found = {}
    for image in range(3):
        low = rng.uniform([0, 0], [40, 30], (6, 2))
        boxes = np.concatenate([low, low + rng.uniform(8, 25, (6, 2))], axis=1)
        for k, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
            entry = {"id": len(truth["annotations"]) + 1, "image_id": image, "category_id": (4, 8)[k % 2]}
            area = (x1 - x0) * (y1 - y0)
            more = {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": int(k == 5), "area": area}
            truth["annotations"].append({**entry, **more, "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]]})
        moved = np.concatenate([boxes, boxes]) + rng.normal(0, 0.7, (12, 4))
        found[image] = Detections(
            torch.tensor(moved, dtype=torch.float32),
            torch.tensor(rng.random(12), dtype=torch.float32),
            torch.arange(12) % 2,
            torch.ones(12, 28, 28),
            (50, 60),
        )
    return truth, found


@pytest.mark.parametrize("seed", range(3))
def test_boundary_ap_is_the_published_one(seed: int, monkeypatch: pytest.MonkeyPatch):
    truth, found = random_case(seed)
    evaluator = CocoEvaluator(truth, boundary=True)
    evaluator.update(list(found), list(found.values()))
    metrics = evaluator.compute()
    monkeypatch.setattr("queryinst.evaluation.coco.BoundaryEval", lambda *tables: Slowly(*tables, "segm"))
    slowly = evaluator.compute()
    assert {name: value for name, value in metrics.items() if value == value} == {
        name: value for name, value in slowly.items() if value == value
    }
    assert 0 < metrics["boundary_AP"] < metrics["segm_AP"]


def test_a_boundary_minds_two_pixels_more_than_a_mask_does():
    moved = [12.0, 10, 32, 30]
    evaluator = CocoEvaluator(content(), boundary=True, keep_matches=True)
    evaluator.update([0, 1, 2], [detection(PERFECT), detection(PERFECT), detection(moved)])
    metrics = evaluator.compute()
    assert metrics["segm_AP75"] == 1
    assert metrics["boundary_AP50"] == metrics["boundary_AP75"] == pytest.approx(2 / 3, abs=0.01)
    assert evaluator.matches["boundary_matched"].sum(0).tolist() == [2] * 10
    assert "boundary" in table(metrics, ["a", "b"])


def test_without_it_there_is_nothing_of_it():
    evaluator = CocoEvaluator(content())
    evaluator.update([0, 1, 2], [nothing()] * 3)
    metrics = evaluator.compute()
    assert not [name for name in metrics if "boundary" in name]
    assert "boundary" not in table(metrics, ["a", "b"])


def test_a_boundary_is_made_once_and_only_where_it_can_matter(monkeypatch: pytest.MonkeyPatch):
    made: list[Any] = []
    monkeypatch.setattr("queryinst.evaluation.boundary.boundary", lambda rle: made.append(rle) or boundary(rle))
    evaluator = CocoEvaluator(content(2), boundary=True)
    far = replace(detection([40.0, 35, 50, 45]), scores=torch.tensor([0.5]))
    evaluator.update([0, 1], [detection(PERFECT), far])
    evaluator.compute()
    assert len(made) == 2, "of the one that lies on its object, and of that"


def test_an_image_without_objects_or_detections_has_no_overlaps():
    tables = [COCO(), COCO()]
    for one in tables:
        one.dataset = {**content(1), "annotations": []}
        one.createIndex()
    judge = BoundaryEval(*tables)
    judge.evaluate()
    assert judge.ious[0, 4] == []
