"""How far would other validation images move an AP? COCO's average precision with weighted images, and a bootstrap.

An image with the weight w counts as w copies of it would. So a resample of the validation set is a row of weights, and
a thousand of them are evaluated together, without matching anything again. Two models are compared on the same rows:
the difference of two APs moves much less from one resample to the next than each of them does (the paired bootstrap;
Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 13 and 15).
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from queryinst.errors import UserError

KINDS = ("bbox", "segm", "boundary")
RECALLS = np.linspace(0, 1, 101)  # where COCOeval reads the precision
CELLS = 4_000_000  # detections x resamples held at once: about 150 MB with everything made of them

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    """Which detections of one kind met a ground truth: D detections, G ground truths that count, T IoU thresholds.

    Detections of equal score are ranked in the order of the rows, which is COCOeval's where the rows are in the order
    of its images.
    """

    image: Ints  # (D,) column of the weights
    category: Ints  # (D,) label
    score: NDArray[np.float32]  # (D,)
    matched: Flags  # (D, T) met a ground truth
    ignored: Flags  # (D, T) left out: met a crowd region, say
    truth_image: Ints  # (G,)
    truth_category: Ints  # (G,)
    categories: int  # K


@dataclass(frozen=True)
class MatchFile:
    """`matches.npz` of a run: images in the order of their ids."""

    image_ids: Ints  # (I,) rising
    category_ids: Ints  # (K,)
    kinds: dict[str, Matches]  # bbox and segm; of video segm alone, and its images are videos


def read(path: Path) -> MatchFile:
    """Read `matches.npz`. Raises UserError where it is damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            ids = file["image_ids"]
            order = np.argsort(ids, kind="stable")
            column = np.empty(len(ids), np.int64)
            column[order] = np.arange(len(ids))
            categories = file["category_ids"].astype(np.int64)
            kinds = {
                kind: Matches(
                    image=column[file[f"{kind}_image"]],
                    category=file[f"{kind}_category"].astype(np.int64),
                    score=file[f"{kind}_score"],
                    matched=file[f"{kind}_matched"],
                    ignored=file[f"{kind}_ignored"],
                    truth_image=column[file[f"{kind}_truth_image"]],
                    truth_category=file[f"{kind}_truth_category"].astype(np.int64),
                    categories=len(categories),
                )
                for kind in KINDS
                if f"{kind}_image" in file
            }
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}): delete it to compare without, or evaluate the run again"
        ) from None
    return MatchFile(ids[order].astype(np.int64), categories, kinds)


def resamples(images: int, count: int, seed: int = 0) -> Ints:
    """(count, images) weights: how often each image is drawn when as many are drawn with replacement as there are."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=count)


def precisions(matches: Matches, weights: Ints) -> Floats:
    """Average precision by class and IoU threshold, as COCOeval's with area "all" and 100 detections.

    Args:
        matches: of one run.
        weights: (B, I) how often each image counts; a row of ones is the validation set itself.

    Returns:
        (B, K, T); NaN for a class of which no ground truth counts, as the -1 of COCOeval.
    """
    out = np.full((len(weights), matches.categories, matches.matched.shape[1]), np.nan)
    by_class = np.lexsort((-matches.score, matches.category))  # stable
    edges = np.searchsorted(matches.category[by_class], np.arange(matches.categories + 1))
    columns = np.ascontiguousarray(weights.T.astype(np.int32))  # (I, B): a row is copied as a whole
    for label in range(matches.categories):
        rows = by_class[edges[label] : edges[label + 1]]
        of_truth = matches.truth_image[matches.truth_category == label]
        objects = weights @ np.bincount(of_truth, minlength=weights.shape[1])  # (B,)
        step = max(1, CELLS // max(len(rows), 1))
        for start in range(0, len(weights), step):
            part = slice(start, start + step)
            found = _of_class(matches, rows, columns[:, part], np.maximum(objects[part], 1))
            out[part, label] = np.where(objects[part, None] > 0, found, np.nan)
    return out


def _of_class(matches: Matches, rows: Ints, columns: NDArray[np.int32], objects: Ints) -> Floats:
    """(B, T) average precision of one class; `rows` has the best score first.

    Precision is wanted at hits only: between two hits it falls and recall stands still.
    """
    out = np.zeros((len(objects), matches.matched.shape[1]))
    weight = columns[matches.image[rows]]  # (D, B)
    ranked = weight.cumsum(0, dtype=np.int32)
    for threshold in range(out.shape[1]):
        ignored = matches.ignored[rows, threshold]
        hits = np.flatnonzero(matches.matched[rows, threshold] & ~ignored)
        if not len(hits):
            continue
        true = weight[hits].cumsum(0)
        counted = ranked[hits]
        if ignored.any():
            counted = counted - (weight * ignored[:, None]).cumsum(0, dtype=np.int32)[hits]
        precision = true / (counted + np.spacing(1))  # COCOeval's guard against 0 / 0
        envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
        reached = np.searchsorted(RECALLS, true / objects, side="right")  # recalls that are reached with each hit
        out[:, threshold] = (envelope * np.diff(reached, axis=0, prepend=0)).sum(0) / len(RECALLS)
    return out


def average(values: Floats) -> Floats:
    """(B,) AP: the mean over the classes that occur and all IoU thresholds, of `precisions`."""
    there = ~np.isnan(values)
    total = np.where(there, values, 0).sum((1, 2))
    return np.divide(total, there.sum((1, 2)), out=np.full(len(values), np.nan), where=there.any((1, 2)))


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of resampled values, NaN left out."""
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
