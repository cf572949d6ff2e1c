"""Why average precision is zero: predictions held against ground truth, in one paragraph."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from queryinst.ops import masks as mask_ops

Array = NDArray[np.float64]

FITS = 0.5  # IoU from which a box or mask counts as found
UNTRAINED = 0.05  # no score reaches this: nothing was learned yet
MORE = "or does not learn (see whether train/loss falls; try more epochs or another optimizer.lr)"
MOST_IMAGES, MOST_MASKS = 500, 500  # looked at, to keep this cheap on any data set


@dataclass(frozen=True)
class Scene:
    """One image: G objects to find and P finite predictions, the best score first; boxes are x, y, width, height."""

    truth: list[dict[str, Any]]
    found: list[dict[str, Any]]
    truth_boxes: Array  # (G, 4)
    boxes: Array  # (P, 4)
    truth_classes: NDArray[np.int64]  # (G,) category ids
    classes: NDArray[np.int64]  # (P,)

    def iou(self, truth_boxes: Array) -> Array:
        """(P, G) IoU of the predicted boxes with other readings of the ground truth; 0 with a box that is none."""
        valid = np.isfinite(truth_boxes).all(1) & (truth_boxes[:, 2:] > 0).all(1)
        out = np.zeros((len(self.boxes), len(truth_boxes)))
        if valid.any() and len(self.boxes):
            out[:, valid] = coco_mask.iou(self.boxes, np.ascontiguousarray(truth_boxes[valid]), [0] * int(valid.sum()))
        return out

    def scale(self) -> Array:
        """(2,) x, y: how much larger the surest predictions are than the ground truth, as many of each."""
        true = np.median(self.truth_boxes[:, 2:], 0)
        return np.median(self.boxes[: len(self.truth), 2:], 0) / np.maximum(true, 1e-6)


def diagnose(content: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """What predictions look like against the ground truth, and which known faults the numbers point to.

    Boxes and masks of at most 500 images are compared: about a second where there are 5,000 with 100 predictions each.

    Args:
        content: a COCO content, its images and annotations restricted to those that were evaluated.
        results: entries of a COCO results file for those images, as of `to_coco`.

    Returns:
        one paragraph of plain text; it holds the word "Suspicion" only where a known fault fits.
    """
    truth = [a for a in content["annotations"] if not a.get("iscrowd") and not a.get("ignore")]
    names = {category["id"]: str(category["name"]) for category in content["categories"]}
    finite = [r for r in results if np.isfinite([*r["bbox"], r["score"]]).all()]
    sentences = [f"{len(results)} predictions and {len(truth)} ground truths in {len(content['images'])} images."]
    suspicions = []
    if len(finite) < len(results):
        suspicions.append(f"{len(results) - len(finite)} predictions have NaN or infinite boxes or scores")
    if not results:
        suspicions.append("nothing is predicted at all: look at model.postprocess, and at the weights")
    if truth and finite:
        scenes = _scenes(content, truth, finite)
        sentences += [_scores(finite), _classes(truth, finite, names)]
        if scenes:
            sentences.append(_overlaps(scenes, len({annotation["image_id"] for annotation in truth})))
            suspicions += _suspicions(scenes, max(r["score"] for r in finite), names)
    return " ".join(sentences + [f"Suspicion: {suspicion}." for suspicion in suspicions])


def _scenes(content: dict[str, Any], truth: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[Scene]:
    """The images with ground truth, evenly spread over all of them where they are many."""
    objects: dict[int, list[dict[str, Any]]] = {}
    predictions: dict[int, list[dict[str, Any]]] = {}
    for entries, by_image in ((truth, objects), (found, predictions)):
        for entry in entries:
            by_image.setdefault(entry["image_id"], []).append(entry)
    ids = [image["id"] for image in content["images"] if image["id"] in objects]
    return [_scene(objects[i], predictions.get(i, [])) for i in ids[:: -(-len(ids) // MOST_IMAGES)]]


def _scene(truth: list[dict[str, Any]], found: list[dict[str, Any]]) -> Scene:
    found = sorted(found, key=lambda result: -result["score"])
    return Scene(truth, found, _boxes(truth), _boxes(found), _categories(truth), _categories(found))


def _boxes(entries: list[dict[str, Any]]) -> Array:
    return np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)


def _categories(entries: list[dict[str, Any]]) -> NDArray[np.int64]:
    return np.array([entry["category_id"] for entry in entries], np.int64)


def _scores(found: list[dict[str, Any]]) -> str:
    low, middle, high, best = np.quantile([result["score"] for result in found], [0, 0.5, 0.9, 1])
    return f"Scores: lowest {low:.3f}, median {middle:.3f}, 90% below {high:.3f}, highest {best:.3f}."


def _classes(truth: list[dict[str, Any]], found: list[dict[str, Any]], names: dict[int, str]) -> str:
    wanted, predicted = (Counter(entry["category_id"] for entry in entries) for entries in (truth, found))
    never = [key for key in wanted if key not in predicted]
    missing = f"; never predicted: {_listed(never, names)}" if never else ""
    return f"Ground truth: {_counted(wanted, names)}; predicted: {_counted(predicted, names)}{missing}."


def _counted(counts: Counter[int], names: dict[int, str]) -> str:
    parts = [f"{names.get(key, key)} {count}" for key, count in counts.most_common(8)]
    return ", ".join(parts) + (f" and {len(counts) - 8} more classes" if len(counts) > 8 else "")


def _listed(keys: list[int], names: dict[int, str]) -> str:
    return ", ".join(names[key] for key in keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")


def _overlaps(scenes: list[Scene], images: int) -> str:
    anything = best(scenes, lambda scene: scene.truth_boxes)
    same = np.concatenate([_highest(s.iou(s.truth_boxes) * (s.classes[:, None] == s.truth_classes)) for s in scenes])
    texts = [f"median {np.median(iou):.2f}, {(iou >= FITS).mean():.0%} at {FITS} or more" for iou in (anything, same)]
    where = f" (in {len(scenes)} of {images} images)" if len(scenes) < images else ""
    return (
        f"Best box IoU of a ground truth{where}: with any prediction {texts[0]}; with one of its own class {texts[1]}."
    )


def best(scenes: list[Scene], reading: Callable[[Scene], Array]) -> Array:
    """(all G,) best IoU of each ground truth, its boxes read in some way, with a prediction of any class."""
    return np.concatenate([_highest(scene.iou(reading(scene))) for scene in scenes])


def _highest(iou: Array) -> Array:
    return iou.max(axis=0, initial=0)


def _suspicions(scenes: list[Scene], highest_score: float, names: dict[int, str]) -> list[str]:
    places = (best(scenes, lambda scene: scene.truth_boxes) >= FITS).mean()
    found = [_untrained(highest_score), _one_box(scenes) if places < 0.5 else None, _other_reading(scenes, places)]
    if places >= 0.5 and highest_score >= UNTRAINED:
        found += [_wrong_classes(scenes, names), _wrong_masks(scenes)]
    if any(found):
        return [suspicion for suspicion in found if suspicion]
    if places < 0.1 and highest_score >= 0.5:
        return [
            "sure predictions, but hardly one at a ground truth: the annotations may belong to other images, "
            "or the boxes are in a format of their own"
        ]
    if places < 0.5 and highest_score < 0.3:
        return [f"low scores in wrong places: the network has hardly begun to learn, {MORE}"]
    return []


def _untrained(highest_score: float) -> str | None:
    if highest_score >= UNTRAINED:
        return None
    return f"no score reaches {UNTRAINED}: the network is not trained yet, {MORE}"


def _one_box(scenes: list[Scene]) -> str | None:
    """Whether all predictions of an image are one box, in nine images of ten that have several."""
    several = [scene.boxes for scene in scenes if len(scene.boxes) > 1]
    same = [coco_mask.iou(boxes, np.ascontiguousarray(boxes[:1]), [0]).min() > 0.95 for boxes in several]
    return "all predictions of an image are the same box" if same and np.mean(same) >= 0.9 else None


def _other_reading(scenes: list[Scene], places: float) -> str | None:
    """The way to read ground-truth boxes that makes most of them fit, where they do not as they are."""
    scales = [scene.scale() for scene in scenes if len(scene.boxes)]
    fit = "the boxes fit if those of the ground truth"
    readings: list[tuple[str, Callable[[Scene], Array]]] = [
        (
            f"{fit} are read as x1, y1, x2, y2: COCO's `bbox` is x, y, width, height",
            lambda s: np.concatenate([s.truth_boxes[:, :2], s.truth_boxes[:, 2:] - s.truth_boxes[:, :2]], 1),
        ),
        (
            f"{fit} are read as centre, width, height: COCO's `bbox` has the corner",
            lambda s: np.concatenate([s.truth_boxes[:, :2] - s.truth_boxes[:, 2:] / 2, s.truth_boxes[:, 2:]], 1),
        ),
        ("the boxes fit if x and y are swapped", lambda s: s.truth_boxes[:, [1, 0, 3, 2]]),
    ]
    if scales:
        x, y = np.median(scales, 0)
        text = f"{fit} are scaled by {x:.3g} in x and {y:.3g} in y"
        readings.append((f"{text}: image and annotations may differ in size", _scaled))
    for text, reading in readings:
        fitting = (best(scenes, reading) >= FITS).mean()
        if fitting >= 0.5 and places < fitting / 2:
            return f"{text} ({fitting:.0%} instead of {places:.0%} of them fit)"
    return None


def _scaled(scene: Scene) -> Array:
    return scene.truth_boxes * np.tile(scene.scale(), 2) if len(scene.boxes) else scene.truth_boxes


def _wrong_classes(scenes: list[Scene], names: dict[int, str]) -> str | None:
    """Whether the surest prediction at most ground truths has another class than they have."""
    seen: Counter[tuple[int, int]] = Counter()
    for scene in scenes:
        fits = scene.iou(scene.truth_boxes) >= FITS
        there = fits.any(axis=0)
        surest = fits.argmax(axis=0)[there]
        seen.update(zip(scene.truth_classes[there].tolist(), scene.classes[surest].tolist(), strict=True))
    wrong = Counter({pair: count for pair, count in seen.items() if pair[0] != pair[1]})
    if wrong.total() < 0.8 * seen.total():
        return None
    of_class = Counter(wanted for wanted, _ in seen.elements())
    usual = sum(max(count for (other, _), count in seen.items() if other == wanted) for wanted in of_class)
    if usual < 0.5 * seen.total():
        return f"right places, but classes as by chance: classification has not begun to learn, {MORE}"
    examples = [
        f"{count} of {of_class[wanted]} `{names[wanted]}` as `{names.get(given, given)}`"
        for (wanted, given), count in wrong.most_common(3)
    ]
    order = {key: position for position, key in enumerate(sorted(names))}
    shifts = Counter(order[given] - order[wanted] for wanted, given in wrong.elements() if given in order)
    shift, count = shifts.most_common(1)[0] if shifts else (0, 0)
    shifted = f"; in the order of ids all are {shift:+d} off" if len(wrong) > 1 and count >= 0.9 * wrong.total() else ""
    return (
        f"right places, wrong classes: found are {', '.join(examples)}{shifted}; "
        "compare the category ids and names of these annotations with those of the training"
    )


def _wrong_masks(scenes: list[Scene]) -> str | None:
    """Whether masks are wrong where box and class are right."""
    overlaps: list[float] = []
    for scene in scenes:
        drawn = [bool(annotation["segmentation"]) for annotation in scene.truth]
        fits = (scene.iou(scene.truth_boxes) >= FITS) & (scene.classes[:, None] == scene.truth_classes) & drawn
        for index in np.flatnonzero(fits.any(axis=0))[: MOST_MASKS - len(overlaps)]:
            result = scene.found[int(fits[:, index].argmax())]["segmentation"]
            mask = mask_ops.compressed(scene.truth[index]["segmentation"], *result["size"])
            overlaps.append(float(coco_mask.iou([result], [mask], [0])[0, 0]))
    if not overlaps or np.median(overlaps) >= 0.3:
        return None
    return (
        f"boxes and classes are right, but masks are not (their median IoU is {np.median(overlaps):.2f}): "
        "compare `segmentation` and `bbox` of the annotations, and look at the mask loss"
    )
