"""Which detection found which object: what average precision is made of, so that runs can be compared by image."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matches = dict[str, NDArray[Any]]
FILE = "matches.npz"


def matches_of(evaluator: Any, kind: str) -> Matches:
    """The arrays of one kind ("bbox" or "segm") from a pycocotools COCOeval that has evaluated.

    All areas; at most 100 detections per image and class (the last of `maxDets`), D in all, and G objects that count.

    Returns:
        `{kind}_image` (D,) int32, position in `image_ids`; `{kind}_category` (D,) int16, label; `{kind}_score` (D,)
        float32; `{kind}_matched` (D, 10) bool, whether it found an object, at each IoU threshold; `{kind}_ignored`
        (D, 10) bool, whether it is left out (it found a crowd region); `{kind}_truth_image` (G,) int32 and
        `{kind}_truth_category` (G,) int16: where the objects are.
    """
    parameters = evaluator.params
    images = {key: position for position, key in enumerate(parameters.imgIds)}
    labels = {key: label for label, key in enumerate(parameters.catIds)}
    whole = parameters.areaRng[0]
    found = [entry for entry in evaluator.evalImgs if entry and entry["aRng"] == whole]
    detections = [len(entry["dtScores"]) for entry in found]
    objects = [int((1 - np.asarray(entry["gtIgnore"])).sum()) for entry in found]
    image = np.array([images[entry["image_id"]] for entry in found], np.int32)
    label = np.array([labels[entry["category_id"]] for entry in found], np.int16)
    none = np.zeros((len(parameters.iouThrs), 0))
    return {
        f"{kind}_image": np.repeat(image, detections),
        f"{kind}_category": np.repeat(label, detections),
        f"{kind}_score": np.concatenate([[], *(entry["dtScores"] for entry in found)]).astype(np.float32),
        f"{kind}_matched": np.concatenate([none, *(entry["dtMatches"] for entry in found)], axis=1).T > 0,
        f"{kind}_ignored": np.concatenate([none, *(entry["dtIgnore"] for entry in found)], axis=1).T > 0,
        f"{kind}_truth_image": np.repeat(image, objects),
        f"{kind}_truth_category": np.repeat(label, objects),
    }


def frame_of(evaluator: Any) -> Matches:
    """What the arrays of both kinds refer to: `image_ids` (I,), `category_ids` (K,), `thresholds` (10,)."""
    parameters = evaluator.params
    return {
        "image_ids": np.array(parameters.imgIds, np.int64),
        "category_ids": np.array(parameters.catIds, np.int64),
        "thresholds": np.asarray(parameters.iouThrs, np.float64),
    }


def save(matches: Matches, folder: Path) -> None:
    """Write `matches.npz` into a folder, all or nothing."""
    partial = folder / f"{FILE}.partial"
    with partial.open("wb") as file:
        np.savez_compressed(file, **matches)  # type: ignore[arg-type]
    partial.replace(folder / FILE)
