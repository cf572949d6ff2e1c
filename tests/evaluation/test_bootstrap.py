"""AP from stored matches: COCOeval's to the last digits, and with weights what copies of images give."""

import contextlib
import io
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from queryinst.errors import UserError
from queryinst.evaluation.bootstrap import Matches, average, interval, precisions, read, resamples
from queryinst.evaluation.matches import frame_of, matches_of, save

CATEGORIES = (3, 7, 90)


def scenes(seed: int, images: int = 12, quality: float = 0.8) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Random ground truth with crowds, and detections that are some of it, moved, beside false ones."""
    rng = np.random.default_rng(seed)
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(images):
        for _ in range(rng.integers(0, 7)):
            box = [*rng.uniform(0, 80, 2), *rng.uniform(8, 60, 2)]
            category = int(rng.choice(CATEGORIES[:2]))
            truth.append({"image_id": image, "category_id": category, "bbox": box, "iscrowd": int(rng.random() < 0.15)})
            if rng.random() < quality:
                moved = np.array(box) + rng.normal(0, 4 * (1.2 - quality), 4)
                found.append({"image_id": image, "category_id": category, "bbox": np.maximum(moved, 1).tolist()})
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 80, 2), *rng.uniform(8, 60, 2)]
            found.append({"image_id": image, "category_id": int(rng.choice(CATEGORIES)), "bbox": box})
    for row in found:
        row["score"] = float(np.float32(rng.random()))
    content = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": category} for category in CATEGORIES],
        "annotations": truth,
    }
    return content, found


def evaluate(content: dict[str, Any], found: list[dict[str, Any]]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        tables = [COCO(), COCO()]
        for table, rows in zip(tables, (content["annotations"], found), strict=True):
            boxes = [{"iscrowd": 0, **row, "area": row["bbox"][2] * row["bbox"][3]} for row in rows]
            table.dataset = {**content, "annotations": [{**row, "id": n} for n, row in enumerate(boxes, 1)]}
            table.createIndex()
        evaluator = COCOeval(*tables, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def extract(evaluator: COCOeval) -> dict[str, np.ndarray]:
    """What a run keeps of its boxes."""
    return {name.removeprefix("bbox_"): array for name, array in matches_of(evaluator, "bbox").items()}


def stored(evaluator: COCOeval) -> Matches:
    return Matches(**extract(evaluator), categories=len(CATEGORIES))


@pytest.mark.parametrize("seed", range(8))
def test_equal_to_cocoeval(seed: int):
    evaluator = evaluate(*scenes(seed))
    matches = stored(evaluator)
    (found,) = precisions(matches, np.ones((1, 12), np.int64))
    theirs = evaluator.eval["precision"][:, :, :, 0, -1].mean(1).T  # (K, T), -1: no such class
    np.testing.assert_allclose(np.nan_to_num(found, nan=-1), theirs, atol=1e-12)
    assert average(found[None])[0] == pytest.approx(evaluator.stats[0], abs=1e-12)


def test_crowds_take_part_in_these_tests():
    assert sum(stored(evaluate(*scenes(seed))).ignored.any() for seed in range(8)) >= 5


@pytest.mark.parametrize("seed", range(5))
def test_a_weight_is_so_many_copies_of_the_image(seed: int):
    content, found = scenes(seed)
    weights = np.random.default_rng(seed).integers(0, 4, (1, 12))
    copied: list[list[dict[str, Any]]] = [[], []]
    images = []
    for image, weight in enumerate(weights[0]):
        for copy in range(weight):
            images.append({"id": 100 * image + copy})
            for rows, into in zip((content["annotations"], found), copied, strict=True):
                into += [{**row, "image_id": 100 * image + copy} for row in rows if row["image_id"] == image]
    theirs = evaluate({**content, "images": images, "annotations": copied[0]}, copied[1]).stats[0]
    ours = average(precisions(stored(evaluate(content, found)), weights))[0]
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_many_rows_at_once_are_each_row_alone(monkeypatch: pytest.MonkeyPatch):
    matches = stored(evaluate(*scenes(3)))
    weights = resamples(12, 30, seed=1)
    assert (weights.sum(1) == 12).all()
    assert (weights == resamples(12, 30, seed=1)).all()
    together = precisions(matches, weights)
    monkeypatch.setattr("queryinst.evaluation.bootstrap.CELLS", 100)  # a few at a time
    np.testing.assert_allclose(precisions(matches, weights), together, rtol=1e-12)
    alone = np.concatenate([precisions(matches, row[None]) for row in weights])
    np.testing.assert_allclose(alone, together, rtol=1e-12)


def test_no_difference_and_a_clear_one():
    rng = np.random.default_rng(0)
    content, found = scenes(0, images=60)
    weights = resamples(60, 400)
    luck = [{**row, "score": float(np.float32(row["score"] + rng.normal(0, 0.05)))} for row in found]
    poor = [row for row in found if rng.random() < 0.3]
    first, same, worse = (average(precisions(stored(evaluate(content, rows)), weights)) for rows in (found, luck, poor))
    low, high = interval(first - same)
    assert low < 0 < high
    others = interval(first - average(precisions(stored(evaluate(content, luck)), resamples(60, 400, seed=1))))
    assert high - low < 0.5 * (others[1] - others[0]), "paired: narrower than of other images each"
    low, high = interval(first - worse)
    assert low > 0


def test_nothing_found_and_nothing_to_find():
    content, _ = scenes(0)
    (found,) = precisions(stored(evaluate(content, [])), np.ones((1, 12), np.int64))
    assert (found[:2] == 0).all()
    assert np.isnan(found[2]).all()
    nothing = stored(evaluate({**content, "annotations": []}, scenes(0)[1]))
    assert np.isnan(average(precisions(nothing, np.ones((2, 12), np.int64)))).all()


def half_a_million() -> Matches:
    """Detections as of COCO's validation set: 100 in each of 5,000 images, of 80 classes."""
    rng = np.random.default_rng(0)
    images, count, classes, objects = 5000, 500_000, 80, 36_000
    found = np.linspace(0.6, 0.1, 10) * objects / count  # of the detections, at each threshold
    return Matches(
        image=np.repeat(np.arange(images), count // images),
        category=rng.integers(0, classes, count),
        score=rng.random(count).astype(np.float32),
        matched=rng.random((count, 1)) < found,
        ignored=np.repeat(rng.random((count, 1)) < 0.005, 10, 1),
        truth_image=rng.integers(0, images, objects),
        truth_category=rng.integers(0, classes, objects),
        categories=classes,
    )


@pytest.mark.slow
def test_a_whole_bootstrap_of_half_a_million_detections():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    low, high = interval(average(precisions(half_a_million(), resamples(5000, 1000))))
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6  # KB on Linux
    print(f"\n1000 resamples: {time.perf_counter() - start:.0f} s, {more:.2f} GB more")
    assert 0 < high - low < 0.1
    assert more < 1


def write_file(folder: Path, evaluator: COCOeval, **changed: Any) -> None:
    one = extract(evaluator)
    arrays = {f"{kind}_{key}": value for kind in ("bbox", "segm") for key, value in one.items()}
    save(frame_of(evaluator) | arrays | changed, folder)


def test_the_file_in_any_order_of_images(tmp_path: Path):
    evaluator = evaluate(*scenes(4))
    for name in "ab":
        (tmp_path / name).mkdir()
    write_file(tmp_path / "a", evaluator)
    one = extract(evaluator)
    order = np.random.default_rng(0).permutation(12)
    moved = {key: np.argsort(order)[one[key]].astype(np.int32) for key in ("image", "truth_image")}
    changed = {f"{kind}_{key}": value for kind in ("bbox", "segm") for key, value in moved.items()}
    write_file(tmp_path / "b", evaluator, image_ids=np.arange(12)[order], **changed)
    first, second = (read(tmp_path / name / "matches.npz") for name in "ab")
    assert first.image_ids.tolist() == second.image_ids.tolist()
    weights = resamples(12, 20)
    for kind in ("bbox", "segm"):
        ours, theirs = (precisions(file.kinds[kind], weights) for file in (first, second))
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_damaged_file_is_one_sentence(tmp_path: Path):
    path = tmp_path / "matches.npz"
    for content in (b"no", b"PK\x03\x04 cut short"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"matches\.npz is damaged"):
            read(path)
    np.savez(path, image_ids=np.arange(3))
    with pytest.raises(UserError, match=r"matches\.npz is damaged .*category_ids"):
        read(path)
