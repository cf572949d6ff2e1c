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
from queryinst.ops import ranks
from queryinst.structures import StageOutput
from queryinst.visualize.figures import query_map

LIMIT = 0.25  # score
AT = -1.0986  # the logit of it, and a little more
LOW, HIGH = AT - 0.01, 5.0


def stage(scores: list[list[float]], boxes: list[list[list[float]]]) -> StageOutput:
    """Of two classes the second has the scores, image by image."""
    logits = torch.full((len(scores), len(scores[0]), 2), LOW)
    logits[..., 1] = torch.tensor(scores)
    return StageOutput(logits, torch.tensor(boxes), torch.empty(0), torch.empty(0))


def evaluate(
    callback: Any,
    stages: list[StageOutput],
    sizes: list[list[list[int]]],
    fn: str = "fit",
    first: bool = True,
) -> dict[str, float]:
    """An evaluation after step 8, batch by batch; what is logged."""
    logged: dict[str, float] = {}
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=fn), global_step=8, current_epoch=1, is_global_zero=first, loggers=["a logger"]
    )
    conductor: Any = SimpleNamespace(device=torch.device("cpu"), log=logged.__setitem__)
    callback.on_validation_epoch_start(trainer, conductor)
    for output, size in zip(stages, sizes, strict=True):
        earlier = stage([[HIGH] * output.logits.shape[1]] * len(size), output.boxes.tolist())
        conductor.stages = [earlier, output]
        batch = SimpleNamespace(sizes=torch.tensor(size), image_ids=list(range(len(size))))
        callback.on_validation_batch_end(trainer, conductor, None, batch, 0)
    callback.on_validation_epoch_end(trainer, conductor)
    return logged


BOX = [[[0.0, 0, 9, 9]]]


def test_how_often_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Four images of three sizes. Query 0 is in the first two and the last, 1 in the first; 2 has low scores alone."""
    drawn, sent = list[Any](), list[Any]()
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[1] = (250, 120, 10)
    monkeypatch.setattr(query_use, "query_map", lambda *arguments: drawn.append(arguments) or picture)
    monkeypatch.setattr(query_use, "send_picture", lambda *arguments: sent.append(arguments))
    none = [0.0, 0, 9, 9]
    together = stage(
        [[HIGH, AT, LOW], [AT, LOW, LOW]],
        [[[0, 0, 10, 20], [50, 100, 100, 200], none], [[10, 0, 30, 10], none, none]],
    )
    alone = stage([[LOW, LOW, LOW]], [[none, none, none]])
    turned = stage([[HIGH, LOW, LOW]], [[[40, 50, 30, 70], none, none]])  # its left is right of its right
    sizes = [[[200, 100], [50, 100]], [[9, 9]], [[100, 50]]]
    logged = evaluate(QueryUse(3, LIMIT, tmp_path), [together, alone, turned], sizes)
    assert logged == {"val/queries_used": pytest.approx(2 / 3)}
    ((share, centres, sides, score),) = drawn
    assert share.tolist() == [0.75, 0.25, 0.0]
    x, y = (0.05 + 0.2 + 0.7) / 3, (0.05 + 0.1 + 0.6) / 3
    np.testing.assert_allclose(centres, [[x, y], [0.75, 0.75], [0, 0]], rtol=1e-6)
    np.testing.assert_allclose(sides, [(0.1 + 0.2 + 0) / 3, 0.5, 0], rtol=1e-6)
    assert score == LIMIT
    written = cv2.imread(str(tmp_path / "pictures" / "queries_002.png"))
    assert np.array_equal(written[..., ::-1], picture), "red is red"
    assert sent == [(["a logger"], "val/queries", picture, 7)], "it follows step 7"


def test_processes_count_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """One sees an image, the other none."""
    drawn = list[Any]()
    monkeypatch.setattr(query_use, "query_map", lambda *arguments: drawn.append(arguments) or np.zeros((4, 4, 3)))
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "mean", lambda values: values / 2)
    evaluate(QueryUse(1, LIMIT, tmp_path), [stage([[HIGH]], [[[0.0, 0, 50, 50]]])], [[[100, 100]]])
    ((share, centres, sides, _),) = drawn
    assert (share.tolist(), centres.tolist(), sides.tolist()) == ([1.0], [[0.25, 0.25]], [0.5])


def test_the_picture_is_the_map(tmp_path: Path):
    evaluate(QueryUse(2, LIMIT, tmp_path), [stage([[HIGH, LOW]], [[[0, 0, 50, 50], [0, 0, 9, 9]]])], [[[100, 100]]])
    written = cv2.imread(str(tmp_path / "pictures" / "queries_002.png"))
    expected = query_map(np.float32([1, 0]), np.float32([[0.25, 0.25], [0, 0]]), np.float32([0.5, 0]), LIMIT)
    assert np.array_equal(written[..., ::-1], expected)
    assert (expected != 255).any()


def test_where_there_is_no_picture(tmp_path: Path):
    output = stage([[HIGH, LOW]], [[[0, 0, 50, 50], [0, 0, 9, 9]]])
    assert evaluate(QueryUse(2, LIMIT, None), [output], [[[100, 100]]]) == {"val/queries_used": 0.5}
    assert evaluate(QueryUse(2, LIMIT, tmp_path), [output], [[[100, 100]]], first=False) == {"val/queries_used": 0.5}
    assert evaluate(QueryUse(2, LIMIT, tmp_path), [output], [[[100, 100]]], fn="validate") == {}
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_begins_anew():
    callback = QueryUse(1, LIMIT, None)
    assert evaluate(callback, [stage([[HIGH]], BOX)], [[[10, 10]]])["val/queries_used"] == 1
    assert evaluate(callback, [stage([[LOW]], BOX)], [[[10, 10]]])["val/queries_used"] == 0
    assert callback.images == 1
