"""COCO average precision of boxes and masks, from run-length codes made image by image."""

import contextlib
import io
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from queryinst.evaluation.boundary import BoundaryEval
from queryinst.evaluation.diagnosis import diagnose
from queryinst.evaluation.matches import Matches, frame_of, matches_of
from queryinst.ops import masks as mask_ops
from queryinst.ops import ranks
from queryinst.ops.codes import encode_all
from queryinst.structures import COUNTED, Detections

# Position in COCOeval.stats: the twelve numbers that everybody reports.
STATS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
KINDS, BOUNDARY = ("bbox", "segm"), "boundary"
NOTHING = 0.001  # an AP below this is explained


class CocoEvaluator:
    """Collects detections and computes AP, AP50, AP75, by size, AR, and AP per class, for boxes and masks.

    The images that were given detections are the images that count: a trial on a few batches is judged on those.

    Args:
        content: the parsed annotation file.
        max_detections: detections of a class in an image that count; COCO's 100 unless objects are more.
        backend: "pycocotools", or "faster_coco_eval" for the same numbers sooner.
        keep_matches: keep what the numbers are made of in `matches` (pycocotools only).
        boundary: also Boundary AP (`boundary_AP`, ...), see `queryinst.evaluation.boundary`; always by pycocotools.

    Attributes:
        matches: see `queryinst.evaluation.matches`.
        precision: of the last `compute`, by kind ("bbox", "segm", "boundary"): (10 IoU thresholds, 101 recalls, K), all
            areas, `max_detections`; -1 for a class without objects.
        diagnosis: where `compute` found a box or mask AP of nearly 0, a paragraph that says why; else empty.
    """

    def __init__(
        self,
        content: dict[str, Any],
        backend: str = "pycocotools",
        keep_matches: bool = False,
        max_detections: int = COUNTED,
        boundary: bool = False,
    ) -> None:
        self.kinds = (*KINDS, BOUNDARY) if boundary else KINDS
        self.backend, self.keep_matches = backend, keep_matches
        self.matches: Matches = {}
        self.precision: dict[str, NDArray[np.float64]] = {}
        self.content, self.max_detections = content, max_detections
        self.categories = sorted(content["categories"], key=lambda category: category["id"])
        self.results: dict[int, list[dict[str, Any]]] = {}
        self.diagnosis = ""

    def reset(self) -> None:
        """Forget all detections."""
        self.results = {}

    def update(self, image_ids: list[int], detections: list[Detections]) -> None:
        """Add the detections of some images; masks become RLE here and are dropped."""
        for image_id, found in zip(image_ids, detections, strict=True):
            self.results[image_id] = to_coco(image_id, found, [category["id"] for category in self.categories])

    def compute(self) -> dict[str, float]:
        """All metrics by name, such as `segm_AP`, `bbox_AP50`, `segm_AP/circle`; NaN where there is nothing to find.

        With several processes, their results are put together first; each image counts once, and every process returns
        the same numbers.
        """
        results = ranks.of_all_ranks(self.results)
        truth = {
            "images": [image for image in self.content["images"] if image["id"] in results],
            "categories": self.categories,
            # Numbered anew: to COCOeval an object with the id 0 is one that is not there, and two of one id are one.
            "annotations": [
                {**_complete(annotation), "id": number}
                for number, annotation in enumerate(self.content["annotations"], 1)
                if annotation["image_id"] in results
            ],
        }
        found = [result for _, of_image in sorted(results.items()) for result in of_image]
        metrics: dict[str, float] = {}
        for kind in self.kinds:
            precision, recall = self._evaluate(kind, truth if kind == "bbox" else _masked(truth), found)
            stats = zip(stats_of(self.max_detections), _summary(precision, recall), strict=True)
            metrics |= {f"{kind}_{name}": _defined(value) for name, value in stats}
            # (IoU thresholds, recalls, classes, areas, detections): all areas, most detections; -1: no such class.
            by_class = self.precision[kind] = precision[:, :, :, 0, -1]
            metrics |= {
                f"{kind}_AP/{c['name']}": _defined(by_class[:, :, k].mean()) for k, c in enumerate(self.categories)
            }
        explained = any(metrics[f"{kind}_AP"] < NOTHING for kind in KINDS)
        self.diagnosis = diagnose(truth, found) if explained else ""
        return metrics

    def _evaluate(self, kind: str, truth: dict[str, Any], found: list[dict[str, Any]]) -> tuple[Any, Any]:
        coco_class, evaluator_class = _backend("pycocotools" if kind == BOUNDARY else self.backend)
        with contextlib.redirect_stdout(io.StringIO()):  # both backends print tables
            tables = [coco_class(), coco_class()]
            tables[0].dataset = truth
            tables[1].dataset = {
                **truth,
                "annotations": [_as_annotation(i, result, kind) for i, result in enumerate(found, 1)],
            }
            for one in tables:
                one.createIndex()
            evaluator = BoundaryEval(*tables) if kind == BOUNDARY else evaluator_class(*tables, kind)
            evaluator.params.maxDets = [1, 10, self.max_detections]
            evaluator.evaluate()
            evaluator.accumulate()
        if self.keep_matches:
            self.matches |= frame_of(evaluator) | matches_of(evaluator, kind)
        return np.asarray(evaluator.eval["precision"]), np.asarray(evaluator.eval["recall"])


def _backend(name: str) -> tuple[Any, Any]:
    if name == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    try:
        import faster_coco_eval
    except ImportError:
        from queryinst.errors import UserError

        raise UserError(
            "backend=faster_coco_eval needs the package faster-coco-eval: pip install 'queryinst[fast]'"
        ) from None
    return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster


def rles_of(detections: Detections) -> list[mask_ops.Rle]:
    """The masks of an image as compressed RLE of it."""
    return encode_all(detections.masks.cpu().numpy(), detections.boxes.cpu().numpy(), detections.size)


def to_coco(
    image_id: int, detections: Detections, category_ids: Sequence[int], rles: Sequence[mask_ops.Rle] | None = None
) -> list[dict[str, Any]]:
    """Detections of one image as entries of a COCO results file: box as x, y, width, height; mask as compressed RLE.

    `rles` are those of the detections, where somebody has made them already.
    """
    return [
        {
            "image_id": image_id,
            "category_id": category_ids[label],
            "bbox": [float(v) for v in (*box[:2], *(box[2:] - box[:2]))],
            "score": score,
            "segmentation": _text(rle),
        }
        for box, label, score, rle in zip(
            detections.boxes.cpu().numpy(),
            detections.labels.tolist(),
            detections.scores.tolist(),
            rles_of(detections) if rles is None else rles,
            strict=True,
        )
    ]


def _text(rle: mask_ops.Rle) -> mask_ops.Rle:
    return {**rle, "counts": rle["counts"].decode()}  # JSON has no bytes


def _as_annotation(number: int, result: dict[str, Any], kind: str) -> dict[str, Any]:
    """What pycocotools' `loadRes` makes of a result; but that fails on an empty list and mixes up two kinds of area."""
    area = result["bbox"][2] * result["bbox"][3] if kind == "bbox" else float(mask_ops.area(result["segmentation"]))
    return {**result, "id": number, "iscrowd": 0, "area": area}


def _masked(truth: dict[str, Any]) -> dict[str, Any]:
    """The ground truth for masks: an object that has none is a region where nothing found is right or wrong."""
    return {**truth, "annotations": [a if a["segmentation"] else _region(a) for a in truth["annotations"]]}


def _region(annotation: dict[str, Any]) -> dict[str, Any]:
    x, y, w, h = annotation["bbox"]
    return {**annotation, "iscrowd": 1, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}


def stats_of(max_detections: int) -> list[str]:
    """The names of the twelve numbers, where so many detections of a class in an image count."""
    return [f"AR{max_detections}" if name == f"AR{COUNTED}" else name for name in STATS]


def _summary(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> list[float]:
    """What COCOeval's `summarize` gives, in the order of `STATS`; it has 100 detections written into it.

    Args:
        precision: (10 IoU thresholds, 101 recalls, K, 4 areas, 3 numbers of detections), -1 where there is nothing.
        recall: (10, K, 4, 3).
    """
    parts = [precision[..., 0, -1], precision[0, ..., 0, -1], precision[5, ..., 0, -1]]
    parts += [precision[..., area, -1] for area in (1, 2, 3)]
    parts += [recall[..., 0, number] for number in (0, 1, 2)]
    parts += [recall[..., area, -1] for area in (1, 2, 3)]
    return [float(part[part > -1].mean()) if (part > -1).any() else -1.0 for part in parts]


def _complete(annotation: dict[str, Any]) -> dict[str, Any]:
    """An annotation with the fields that COCO asks for and hand-made files leave out."""
    width, height = annotation["bbox"][2:]
    return {"iscrowd": 0, "area": width * height, **annotation}


def _defined(value: float) -> float:
    return float(value) if value > -1 else math.nan


def table(metrics: dict[str, float], names: Sequence[str], prefix: str = "") -> str:
    """Metrics as text: a line for boxes, one for masks, one for boundaries where they count; mask AP per class."""
    of_recall = (re.fullmatch(rf"{prefix}bbox_AR(\d+)", name) for name in metrics)
    most = max(int(found[1]) for found in of_recall if found)
    columns = [name for name in stats_of(most) if name not in ("AR1", "AR10")]
    labels = {"bbox": "box", "segm": "mask", BOUNDARY: BOUNDARY}
    labels = {kind: label for kind, label in labels.items() if f"{prefix}{kind}_AP" in metrics}
    width = 2 + max(map(len, labels.values()))
    lines = [" " * width + "".join(f"{name:>8}" for name in columns)]
    for kind, label in labels.items():
        values = (_number(metrics[f"{prefix}{kind}_{name}"]) for name in columns)
        lines.append(label.ljust(width) + "".join(f"{value:>8}" for value in values))
    classes = [f"{name} {_number(metrics[f'{prefix}segm_AP/{name}'])}" for name in names]
    return "\n".join([*lines, "mask AP by class: " + ", ".join(classes)])


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
