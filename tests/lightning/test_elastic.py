"""A trained model with fewer stages and proposals: every setting is evaluated as if it were a model of its own."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import BRIEF, Run, random_batch, small_model

from queryinst.config import PostprocessConfig
from queryinst.errors import UserError
from queryinst.evaluation.coco import CocoEvaluator
from queryinst.lightning import elastic
from queryinst.lightning.elastic import ElasticModule, Setting, pareto, table
from queryinst.models.cost import flops
from queryinst.models.postprocess import detect

SQUARE = {"bbox": [4.0, 4, 40, 40], "segmentation": [[4.0, 4, 44, 4, 44, 44, 4, 44]], "area": 1600.0, "iscrowd": 0}
CONTENT = {
    "images": [{"id": key, "height": 64, "width": 64} for key in (0, 1)],
    "categories": [{"id": key, "name": f"class {key}"} for key in (1, 2, 3)],
    "annotations": [{**SQUARE, "id": 1 + key, "image_id": key, "category_id": 1} for key in (0, 1)],
}


def test_each_setting_is_evaluated_alone(monkeypatch: pytest.MonkeyPatch):
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
    assert [(row["stages"], row["proposals"]) for row in module.rows] == list(module.grid)
    taken = {"stages": 10.0, "proposals": 1.0}  # seconds
    monkeypatch.setattr(elastic, "seconds", lambda *_, **how: sum(taken[name] * how[name] for name in how))
    module.add_cost(64)
    assert [row["seconds_per_image"] for row in module.rows] == [16.0, 26.0, 23.0]
    assert module.rows[0]["gflops"] < module.rows[2]["gflops"] < module.rows[1]["gflops"]
    assert module.rows[1]["gflops"] == pytest.approx(flops(model, 64, 64) / 1e9)


def test_what_cannot_be_evaluated_is_said():
    module = ElasticModule(small_model().eval(), CONTENT, [6], PostprocessConfig(), "pycocotools")
    batch = random_batch([1, 1])
    with pytest.raises(UserError, match="^image 7 is broken$"):
        module.validation_step(replace(batch, problems=["image 7 is broken"]), 0)
    module.model.stages[1].mask.logits.bias.data[:] = float("nan")
    with torch.no_grad(), pytest.raises(UserError, match="^stage 2 gives NaN or infinite masks for image 0: "):
        module.validation_step(batch, 0)


def test_the_table_marks_what_nothing_cheaper_beats():
    names = ("stages", "proposals", "segm_AP", "bbox_AP", "gflops", "seconds_per_image")
    rows = [dict(zip(names, row, strict=True)) for row in ((1, 6, 0.25, 0.5, 1.5, 0.002), (2, 6, 0.125, 0.25, 20, 1.5))]
    assert table(rows) == (
        "stages  proposals  mask AP  box AP   GFLOPs      ms\n"
        "     1          6    0.250   0.500     1.50     2.0  *\n"
        "     2          6    0.125   0.250    20.00  1500.0\n"
        "* no other row has as much mask AP for fewer GFLOPs"
    )


def test_the_front():
    rows = [
        {"segm_AP": ap, "gflops": cost} for ap, cost in ((0.3, 1), (0.5, 3), (0.4, 3), (0.2, 0.5), (0.5, 4), (0.3, 2))
    ]
    assert pareto(rows) == {0, 1, 3}


def fill_images_with_objects(path: Path) -> None:
    """Every object as large as its image, which is where queries begin: little learning finds some of them."""
    content = json.loads(path.read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    for annotation in content["annotations"]:
        width, height = sizes[annotation["image_id"]]
        outline = [0, 0, width, 0, width, height, 0, height]
        annotation |= {"bbox": [0, 0, width, height], "area": width * height, "segmentation": [outline], "iscrowd": 0}
    path.write_text(json.dumps(content))


def test_the_command(run: Run, workplace: Path):
    for split in ("train", "val"):
        fill_images_with_objects(workplace / f"data/shapes_tiny/annotations/instances_{split}.json")
    code, said = run("train", *BRIEF, "callbacks.pictures=0", "schedule.epochs=1", "model.proposal_init=image")
    assert code == 0, said
    (folder,) = workplace.glob("outputs/*")
    code, said = run("evaluate", f"checkpoint={folder}/best.ckpt", "elastic=true", "proposals=[20,5]")
    assert code == 0, said
    rows = json.loads((folder / "elastic.json").read_text())["rows"]
    assert [(row["stages"], row["proposals"]) for row in rows] == [(1, 20), (2, 20), (2, 5), (3, 20), (3, 5)]
    result = json.loads((folder / "result.json").read_text())
    assert (folder / "elastic.png").read_bytes().startswith(b"\x89PNG")
    alone = {1: result["stages"][0], 2: result["stages"][1], 3: result["metrics"]}
    assert alone[1]["bbox_AP"] != alone[3]["bbox_AP"], "or one stage could pass for another"
    for stage, metrics in alone.items():
        row = next(row for row in rows if (row["stages"], row["proposals"]) == (stage, 20))
        shared = [name for name in metrics if "/" not in name and not name.startswith("boundary")]
        assert {name: row[name] for name in shared} == pytest.approx({name: metrics[name] for name in shared}, abs=1e-9)
    assert re.search(r"3 +20 +0\.\d{3} +0\.\d{3} +0\.\d\d +\d+\.\d", said)
    code, said = run("evaluate", f"checkpoint={folder}/best.ckpt", "elastic=true", "proposals=[21]")
    assert code == 2
    assert "proposals must be at most 20, as many as the model has; got 21" in said
