"""The proposal-use map: which queries find something, how often, where."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from queryinst.lightning.callbacks import query_use
from queryinst.lightning.callbacks.query_use import QueryUse
from queryinst.structures import StageOutput

LOW, HIGH = -5.0, 5.0  # logits


def stage(scores: list[float], boxes: list[list[float]]) -> StageOutput:
    """One image, two classes, of which the second has the scores."""
    logits = torch.full((1, len(scores), 2), LOW)
    logits[0, :, 1] = torch.tensor(scores)
    queries = torch.zeros(1, len(scores), 4)
    return StageOutput(logits, torch.tensor([boxes]), queries, queries)


def evaluate(callback: Any, stages: list[StageOutput], sizes: list[list[int]], fn: str = "fit") -> dict[str, float]:
    logged: dict[str, float] = {}
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=fn), global_step=8, current_epoch=1, is_global_zero=True, loggers=[]
    )
    conductor: Any = SimpleNamespace(device=torch.device("cpu"), log=logged.__setitem__)
    callback.on_validation_epoch_start(trainer, conductor)
    for output, size in zip(stages, sizes, strict=True):
        conductor.stages = [output]
        batch = SimpleNamespace(sizes=torch.tensor([size]), image_ids=[1])
        callback.on_validation_batch_end(trainer, conductor, None, batch, 0)
    callback.on_validation_epoch_end(trainer, conductor)
    return logged


def test_how_often_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Query 0 in both images, of two sizes; query 1 in one of them; query 2 in none."""
    seen: list[Any] = []
    picture = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setattr(query_use, "query_map", lambda *arguments: seen.extend(arguments) or picture)
    first = stage([HIGH, HIGH, LOW], [[0, 0, 10, 20], [50, 100, 100, 200], [0, 0, 9, 9]])
    second = stage([HIGH, LOW, LOW], [[10, 0, 30, 10], [0, 0, 1, 1], [0, 0, 9, 9]])
    logged = evaluate(QueryUse(3, 0.5, tmp_path), [first, second], [[200, 100], [50, 100]])
    assert logged == {"val/queries_used": pytest.approx(2 / 3)}
    share, centres, sizes, score = seen
    assert share.tolist() == [1.0, 0.5, 0.0]
    np.testing.assert_allclose(centres, [[(0.05 + 0.2) / 2, (0.05 + 0.1) / 2], [0.75, 0.75], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(sizes, [(0.1 + 0.2) / 2, 0.5, 0], rtol=1e-6)
    assert score == 0.5
    assert (tmp_path / "pictures" / "queries_002.png").exists()


def test_the_picture_and_its_absence(tmp_path: Path):
    output = stage([HIGH, LOW], [[0, 0, 50, 50], [0, 0, 9, 9]])
    evaluate(QueryUse(2, 0.5, tmp_path), [output], [[100, 100]])
    assert min(cv2.imread(str(tmp_path / "pictures" / "queries_002.png")).shape[:2]) > 300
    assert evaluate(QueryUse(2, 0.5, None), [output], [[100, 100]]) == {"val/queries_used": 0.5}
    assert evaluate(QueryUse(2, 0.5, tmp_path / "x"), [output], [[100, 100]], fn="validate") == {}
    assert not (tmp_path / "x").exists()


def test_an_evaluation_begins_anew():
    callback = QueryUse(1, 0.5, None)
    box = [[0.0, 0, 9, 9]]
    assert evaluate(callback, [stage([HIGH], box)], [[10, 10]])["val/queries_used"] == 1
    assert evaluate(callback, [stage([LOW], box)], [[10, 10]])["val/queries_used"] == 0
