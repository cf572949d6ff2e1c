"""A trained model with fewer stages and proposals: every setting is evaluated as if it were a model of its own."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import Run, random_batch, small_model

from queryinst.config import PostprocessConfig
from queryinst.evaluation.coco import CocoEvaluator
from queryinst.lightning.elastic import ElasticModule, Setting, pareto
from queryinst.models.cost import flops
from queryinst.models.postprocess import detect

SQUARE = {"bbox": [4.0, 4, 40, 40], "segmentation": [[4.0, 4, 44, 4, 44, 44, 4, 44]], "area": 1600.0, "iscrowd": 0}
CONTENT = {
    "images": [{"id": key, "height": 64, "width": 64} for key in (0, 1)],
    "categories": [{"id": key, "name": f"class {key}"} for key in (1, 2, 3)],
    "annotations": [{**SQUARE, "id": 1 + key, "image_id": key, "category_id": 1} for key in (0, 1)],
}


def test_each_setting_is_evaluated_alone():
    model, batch, config = small_model().eval(), random_batch([1, 1]), PostprocessConfig()
    module = ElasticModule(model, CONTENT, [6, 3], config, "pycocotools")
    assert list(module.grid) == [Setting(1, 6), Setting(2, 6), Setting(2, 3)]
    with torch.no_grad():
        module.validation_step(batch, 0)
        pyramid = model.pyramid(model.normalise(batch.images, batch.sizes))
        for (stages, proposals), evaluator in module.grid.items():
            output = model.query(pyramid, batch.sizes, stages, proposals if stages > 1 else None)
            alone = CocoEvaluator(CONTENT)
            alone.update(batch.image_ids, detect(model, output, batch.sizes, batch.original_sizes, config))
            assert evaluator.results == alone.results
            assert len(alone.results[0]) == proposals
    module.on_validation_epoch_end()
    module.add_cost(64)
    assert module.rows[0]["gflops"] < module.rows[2]["gflops"] < module.rows[1]["gflops"]
    assert module.rows[1]["gflops"] == pytest.approx(flops(model, 64, 64) / 1e9)
    assert all(row["seconds_per_image"] > 0 for row in module.rows)


def test_the_front():
    rows = [
        {"segm_AP": ap, "gflops": cost} for ap, cost in ((0.3, 1), (0.5, 3), (0.4, 3), (0.2, 0.5), (0.5, 4), (0.3, 2))
    ]
    assert pareto(rows) == {0, 1, 3}


def test_the_command(run: Run, trained: Path):
    code, said = run("evaluate", f"checkpoint={trained}/best.ckpt", "elastic=true", "proposals=[20,5]")
    assert code == 0, said
    rows = json.loads((trained / "elastic.json").read_text())["rows"]
    assert [(row["stages"], row["proposals"]) for row in rows] == [(1, 20), (2, 20), (2, 5), (3, 20), (3, 5)]
    result = json.loads((trained / "result.json").read_text())
    assert (trained / "elastic.png").read_bytes().startswith(b"\x89PNG")
    full = next(row for row in rows if (row["stages"], row["proposals"]) == (3, 20))
    assert full["segm_AP"] == pytest.approx(result["metrics"]["segm_AP"], abs=1e-9)
    for stage in (1, 2):
        row = next(row for row in rows if (row["stages"], row["proposals"]) == (stage, 20))
        assert row["bbox_AP"] == pytest.approx(result["stages"][stage - 1]["bbox_AP"], abs=1e-9)
    assert re.search(r"3 +20 +0\.\d{3} +0\.\d{3} +0\.\d\d +\d+\.\d", said)
    code, said = run("evaluate", f"checkpoint={trained}/best.ckpt", "elastic=true", "proposals=[21]")
    assert code == 2
    assert "proposals must be at most 20, as many as the model has; got 21" in said
