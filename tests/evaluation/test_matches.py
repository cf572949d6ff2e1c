"""Average precision can be had again from what is kept of the matching."""

from pathlib import Path
from types import SimpleNamespace
from typing import IO

import numpy as np
import pytest
import torch

from queryinst.evaluation import matches
from queryinst.evaluation.coco import KINDS, CocoEvaluator
from queryinst.structures import Detections

SQUARE = [[10.0, 10, 40, 10, 40, 40, 10, 40]]


def annotation(number: int, image: int, category: int, **changes: object) -> dict[str, object]:
    whole = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "area": 900.0}
    return {**whole, "bbox": [10.0, 10, 30, 30], "segmentation": SQUARE, **changes}


CROWD = {"size": [60, 60], "counts": [0, 3600]}
CONTENT = {
    "images": [{"id": key, "height": 60, "width": 60} for key in (7, 3, 5)],
    "categories": [{"id": 4, "name": "a"}, {"id": 2, "name": "b"}],
    "annotations": [
        annotation(1, 7, 4),
        annotation(2, 3, 2),
        annotation(3, 3, 4, iscrowd=1, segmentation=CROWD, bbox=[0.0, 0, 60, 60]),
    ],
}


def found(*boxes: tuple[list[float], float, int]) -> Detections:
    return Detections(
        torch.tensor([box for box, _, _ in boxes]).reshape(-1, 4),
        torch.tensor([score for _, score, _ in boxes]),
        torch.tensor([label for _, _, label in boxes], dtype=torch.int64),
        torch.ones(len(boxes), 28, 28),
        (60, 60),
    )


def evaluated() -> CocoEvaluator:
    evaluator = CocoEvaluator(CONTENT, keep_matches=True)
    exact, half = [10.0, 10, 40, 40], [10.0, 10, 40, 28]
    evaluator.update([7], [found((exact, 0.9, 1), (half, 0.8, 1), (exact, 0.7, 0))])
    evaluator.update([3], [found((half, 0.6, 0), (exact, 0.5, 1))])  # the second finds the crowd region
    evaluator.update([5], [found()])
    evaluator.compute()
    return evaluator


def test_what_is_kept():
    kept = evaluated().matches
    assert kept["image_ids"].tolist() == [3, 5, 7]
    assert kept["category_ids"].tolist() == [2, 4]
    assert np.allclose(kept["thresholds"], np.arange(0.5, 1, 0.05))
    for kind in KINDS:
        rows = sorted(
            zip(
                [round(score, 2) for score in kept[f"{kind}_score"].tolist()],
                kept[f"{kind}_image"].tolist(),
                kept[f"{kind}_category"].tolist(),
                kept[f"{kind}_matched"].sum(axis=1).tolist(),
                kept[f"{kind}_ignored"].sum(axis=1).tolist(),
                strict=True,
            ),
            reverse=True,
        )
        assert [row[:3] for row in rows] == [(0.9, 2, 1), (0.8, 2, 1), (0.7, 2, 0), (0.6, 0, 0), (0.5, 0, 1)]
        assert [row[3] for row in rows] == [10, 0, 0, 3, 10]  # 0.6 of the square: three thresholds
        assert [row[4] for row in rows] == [0, 0, 0, 0, 10]
        assert kept[f"{kind}_truth_image"].tolist() == [0, 2]
        assert kept[f"{kind}_truth_category"].tolist() == [0, 1]


def test_it_is_written_whole(tmp_path: Path):
    kept = evaluated().matches
    matches.save(kept, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["matches.npz"]
    with np.load(tmp_path / "matches.npz") as file:
        assert set(file) == set(kept)
        assert all(np.array_equal(file[name], kept[name]) for name in kept)


def test_nothing_at_all():
    evaluator = CocoEvaluator({**CONTENT, "annotations": []}, keep_matches=True)
    evaluator.update([5], [found()])
    evaluator.compute()
    assert len(evaluator.matches["segm_score"]) == len(evaluator.matches["segm_truth_image"]) == 0
    assert evaluator.matches["segm_matched"].shape == (0, 10)


def test_how_the_numbers_are_kept():
    kept = {name: array.dtype for name, array in evaluated().matches.items()}
    of_kind = {"image": "i4", "category": "i2", "score": "f4", "matched": "?", "ignored": "?"}
    of_kind |= {"truth_image": "i4", "truth_category": "i2"}
    expected = {f"{kind}_{name}": np.dtype(code) for kind in KINDS for name, code in of_kind.items()}
    frame = {"image_ids": np.dtype("i8"), "category_ids": np.dtype("i8"), "thresholds": np.dtype("f8")}
    assert kept == expected | frame


def test_a_hundred_detections_of_an_image_and_class():
    evaluator = CocoEvaluator({**CONTENT, "annotations": [annotation(1, 7, 4)]}, keep_matches=True)
    scores = [0.3 + k / 1000 for k in range(120)]
    evaluator.update([7], [found(*(([0.0, 0, 5, 5], score, label) for score in scores for label in (0, 1)))])
    evaluator.compute()
    kept = evaluator.matches
    assert kept["bbox_category"].tolist() == [0] * 100 + [1] * 100
    assert kept["bbox_score"].tolist() == [np.float32(score) for score in scores[:19:-1]] * 2


def test_what_was_there_stays_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = evaluated().matches
    matches.save(kept, tmp_path)

    def half(file: IO[bytes], **arrays: object) -> None:
        file.write(b"PK")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(OSError, match="disk full"):
        matches.save(kept, tmp_path)
    with np.load(tmp_path / "matches.npz") as file:
        assert set(file) == set(kept)


def test_ids_are_whole_numbers_where_there_are_none():
    nothing = SimpleNamespace(params=SimpleNamespace(imgIds=[], catIds=[], iouThrs=np.array([0.5])))
    frame = matches.frame_of(nothing)
    assert (frame["image_ids"].dtype, frame["category_ids"].dtype) == (np.int64, np.int64)
    assert frame["thresholds"].tolist() == [0.5]
