"""AP from stored matches against its definition spelled out, and what a file of matches is read into."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from queryinst.errors import UserError
from queryinst.evaluation.bootstrap import Matches, average, interval, precisions, read, resamples


def slow(matches: Matches, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K, T) for one row of weights: every detection counts as often as its image, and so does every object."""
    out = np.full((matches.categories, matches.matched.shape[1]), math.nan)
    for label in range(matches.categories):
        objects = sum(weights[matches.truth_image[matches.truth_category == label]])
        if not objects:
            continue
        rows = [row for row in range(len(matches.score)) if matches.category[row] == label]
        rows.sort(key=lambda row: -matches.score[row])
        for threshold in range(out.shape[1]):
            true = false = 0
            points = [(0.0, 0.0)]
            for row in rows:
                if matches.ignored[row, threshold]:
                    continue
                true += weights[matches.image[row]] * matches.matched[row, threshold]
                false += weights[matches.image[row]] * (not matches.matched[row, threshold])
                points.append((true / objects, true / max(true + false, 1)))
            best = [
                max((p for reached, p in points if reached >= level), default=0.0) for level in np.linspace(0, 1, 101)
            ]
            out[label, threshold] = np.mean(best)
    return out


def random_matches(seed: int, images: int = 7, categories: int = 4, thresholds: int = 3) -> Matches:
    """Any flags at any threshold, equal scores, classes without detections and without objects, and one object each."""
    rng = np.random.default_rng(seed)
    detections, objects = int(rng.integers(0, 60)), int(rng.integers(0, 25))
    return Matches(
        image=np.sort(rng.integers(0, images, detections)),
        category=rng.integers(0, categories - seed % 2, detections),
        score=rng.integers(0, 12, detections).astype(np.float32) / 12,
        matched=rng.random((detections, thresholds)) < [0.7, 0.04, 0.4],
        ignored=rng.random((detections, thresholds)) < [0.2, 0.2, 0.0],
        truth_image=rng.integers(0, images, objects),
        truth_category=rng.integers(0, categories, objects) // (1 + seed % 3),
        categories=categories,
    )


@pytest.mark.parametrize("cells", [4_000_000, 50])
@pytest.mark.parametrize("seed", range(12))
def test_equal_to_the_definition(monkeypatch: pytest.MonkeyPatch, seed: int, cells: int):
    monkeypatch.setattr("queryinst.evaluation.bootstrap.CELLS", cells)
    matches, weights = random_matches(seed), np.random.default_rng(seed).integers(0, 4, (9, 7))
    expected = np.stack([slow(matches, row) for row in weights])
    np.testing.assert_allclose(precisions(matches, weights), expected, rtol=1e-12)


def one_object(**changes: Any) -> Matches:
    """Seen in image 1 of 3, and found."""
    alone: dict[str, Any] = {
        "image": np.array([1]),
        "category": np.array([0]),
        "score": np.array([0.5], np.float32),
        "matched": np.ones((1, 2), bool),
        "ignored": np.zeros((1, 2), bool),
        "truth_image": np.array([1]),
        "truth_category": np.array([0]),
        "categories": 1,
    }
    return Matches(**alone | changes)


def test_one_object_counts_where_its_image_does():
    found = precisions(one_object(), np.array([[1, 1, 1], [0, 1, 0], [0, 5, 0], [4, 0, 4]]))
    np.testing.assert_allclose(found[:3], np.ones((3, 1, 2)), rtol=1e-12)
    assert np.isnan(found[3]).all()
    assert precisions(one_object(matched=np.array([[False, True]])), np.ones((1, 3), int)).tolist()[0][0][0] == 0


def test_a_recall_that_is_reached_exactly_counts():
    """One of four objects: 0.25, which is the 26th of 101 recalls."""
    matches = one_object(truth_image=np.array([0, 1, 2, 2]), truth_category=np.zeros(4, int))
    assert precisions(matches, np.ones((1, 3), int))[0, 0].tolist() == pytest.approx([26 / 101] * 2, abs=1e-12)


def test_the_mean_is_over_what_is_defined():
    values = np.array([[[0.5, 0.7], [math.nan, math.nan]], [[math.nan] * 2] * 2, [[0.0, 1.0], [0.25, 0.75]]])
    assert average(values).tolist() == pytest.approx([0.6, math.nan, 0.5], nan_ok=True)


def test_the_middle_of_resampled_values():
    values = np.arange(1001.0)[::-1]
    assert interval(values) == pytest.approx((25, 975))
    assert interval(values, 0.5) == pytest.approx((250, 750))
    low, high = interval(np.array([math.nan, 3, 3, math.nan], np.float32))
    assert (low, high) == (3, 3)
    assert type(low) is type(high) is float, "to be written as JSON"


def test_resamples_draw_every_image_alike():
    weights = resamples(5, 4000)
    assert weights.shape == (4000, 5)
    assert (weights.sum(1) == 5).all()
    assert weights.mean(0) == pytest.approx([1] * 5, abs=0.06)
    assert weights.var(0) == pytest.approx([0.8] * 5, abs=0.08), "5 draws, each with a chance of 1/5"
    assert (weights[:3] == resamples(5, 3, seed=0)).all(), "the same for everybody"
    assert (weights[:3] != resamples(5, 3, seed=1)).any()


def arrays(kind: str = "segm") -> dict[str, NDArray[Any]]:
    """What a file holds of one kind, its images not in the order of their ids."""
    return {
        "image_ids": np.array([30, 10, 20], np.int32),
        "category_ids": np.array([4, 9], np.int16),
        f"{kind}_image": np.array([0, 1, 2, 0], np.int32),
        f"{kind}_category": np.array([1, 0, 1, 1], np.int16),
        f"{kind}_score": np.array([0.5, 0.25, 0.75, 0.125], np.float32),
        f"{kind}_matched": np.array([[1, 0], [0, 1], [1, 1], [0, 0]], bool),
        f"{kind}_ignored": np.array([[0, 0], [1, 1], [0, 1], [0, 0]], bool),
        f"{kind}_truth_image": np.array([2, 0], np.int32),
        f"{kind}_truth_category": np.array([1, 0], np.int16),
    }


def test_a_file_is_read_in_the_order_of_its_ids(tmp_path: Path):
    np.savez(tmp_path / "matches.npz", **arrays())
    file = read(tmp_path / "matches.npz")
    assert (file.image_ids.tolist(), file.image_ids.dtype) == ([10, 20, 30], np.int64)
    assert (file.category_ids.tolist(), file.category_ids.dtype) == ([4, 9], np.int64)
    assert list(file.kinds) == ["segm"], "of video there are no boxes"
    one = file.kinds["segm"]
    assert (one.image.tolist(), one.image.dtype) == ([2, 0, 1, 2], np.int64)
    assert (one.category.tolist(), one.category.dtype) == ([1, 0, 1, 1], np.int64)
    assert (one.score.tolist(), one.score.dtype) == ([0.5, 0.25, 0.75, 0.125], np.float32)
    assert one.matched.tolist() == [[1, 0], [0, 1], [1, 1], [0, 0]]
    assert one.ignored.tolist() == [[0, 0], [1, 1], [0, 1], [0, 0]]
    assert (one.truth_image.tolist(), one.truth_image.dtype) == ([1, 2], np.int64)
    assert (one.truth_category.tolist(), one.truth_category.dtype) == ([1, 0], np.int64)
    assert one.categories == 2
    np.savez(tmp_path / "matches.npz", **arrays() | arrays("bbox"))
    assert list(read(tmp_path / "matches.npz").kinds) == ["bbox", "segm"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"segm_image": np.array([0, 1, 2, 3])}, "index 3 is out of bounds for axis 0 with size 3"),
        ({"image_ids": np.array([{}, 1, 2])}, "Object arrays cannot be loaded when allow_pickle=False"),
        ({"segm_score": None}, "segm_score is not a file in the archive"),
    ],
    ids=["an image too many", "a pickle", "an array too few"],
)
def test_a_damaged_file_says_what_to_do(tmp_path: Path, changes: dict[str, Any], reason: str):
    path = tmp_path / "matches.npz"
    np.savez(path, **{name: array for name, array in (arrays() | changes).items() if array is not None})
    with pytest.raises(UserError) as error:
        read(path)
    expected = f"{path} is damaged ({reason}): delete it to compare without, or evaluate the run again"
    assert str(error.value).replace("'", "") == expected.replace("'", "")


def test_a_file_that_is_empty_or_not_there_is_damaged(tmp_path: Path):
    path = tmp_path / "matches.npz"
    for _ in range(2):
        with pytest.raises(UserError, match=r"matches\.npz is damaged \("):
            read(path)
        path.touch()
