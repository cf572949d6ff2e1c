"""Ground truth and predictions as rows of a table, and what a diagnosis says of them."""

import math
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from queryinst.evaluation.diagnosis import diagnose

HEIGHT, WIDTH = 280, 300
NAMES = {5: "dog", 2: "cat", 10: "hen", 9: "cow"}  # in another order than their ids
CAT, DOG, COW, HEN = 2, 5, 9, 10
LEARN = "or does not learn (see whether train/loss falls; try more epochs or another optimizer.lr)"
Box = list[float]
Truth = tuple[int, int, Box]  # image, category, box
Found = tuple[int, int, Box, float] | tuple[int, int, Box, float, Box]  # ... score, and the box that the mask fills


def spot(k: int, row: int = 0) -> Box:
    return [10.0 + 50 * (k % 5), 10 + 50.0 * (row + k // 5), 40, 40]


def elsewhere(k: int) -> Box:
    return spot(k, 3)


def code(box: Box) -> dict[str, Any]:
    x, y, w, h = (round(v) if math.isfinite(v) else 0 for v in box)
    bits = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    bits[y : y + h, x : x + w] = 1
    made = coco_mask.encode(bits)
    return {**made, "counts": made["counts"].decode()}


def diagnosed(
    truth: list[Truth], found: list[Found], images: int = 1, names: dict[int, str] = NAMES, **more: Any
) -> str:
    """The paragraph; `more` is in every annotation."""
    content = {
        "images": [{"id": image, "height": HEIGHT, "width": WIDTH} for image in range(images)],
        "categories": [{"id": key, "name": name} for key, name in names.items()],
        "annotations": [
            {"image_id": image, "category_id": category, "bbox": box, "segmentation": code(box), **more}
            for image, category, box in truth
        ],
    }
    results = [
        {
            "image_id": row[0],
            "category_id": row[1],
            "bbox": row[2],
            "score": row[3],
            "segmentation": code(row[-1] if len(row) == 5 else row[2]),
        }
        for row in found
    ]
    return diagnose(content, results)


def suspicion(truth: list[Truth], found: list[Found], images: int = 1) -> str:
    return diagnosed(truth, found, images).partition("Suspicion: ")[2]
