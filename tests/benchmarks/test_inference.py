"""The published way is the oracle of ours, and the benchmark of both tells what it measured. Nothing here is timed."""

import functools
import json
from pathlib import Path

import pytest
import torch
from conftest import Run, random_batch, small_model

from queryinst.benchmarks import inference, published
from queryinst.config import ModelConfig, PostprocessConfig
from queryinst.evaluation.coco import to_coco
from queryinst.models.deploy import deploy
from queryinst.models.packed import pack
from queryinst.models.postprocess import detect


@pytest.mark.parametrize("deployed", [False, True])
def test_ours_is_the_published_way(deployed: bool):
    model, batch = small_model(num_proposals=40).eval(), random_batch([1, 1])
    original = torch.tensor([[50, 90], [128, 64]])
    with torch.inference_mode():
        maps = model.pyramid(model.normalise(batch.images, batch.sizes)).maps
        theirs = published.detect(model, model.query(published.Pyramid(maps), batch.sizes), batch.sizes, original)
        ours_model = pack(deploy(model)) if deployed else model
        output = ours_model(batch.images, batch.sizes)
        ours = detect(ours_model, output, batch.sizes, original, PostprocessConfig())
    for image, (plain, found) in enumerate(zip(theirs, ours, strict=True)):
        assert len(found.scores) == 40
        assert len(found.boxes.unique(dim=0)) < 40  # some query is kept with several classes
        entries = published.to_coco(image, plain), to_coco(image, found, list(range(3)))
        same = inference.equality(*entries)
        assert same["same"] == same["detections"] == 40
        assert same["different_pixels"] <= 1e-4 * same["pixels"]


def test_what_is_different_is_counted():
    code = {"size": [2, 2], "counts": "04"}
    one = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0.0, 0, 2, 2], "segmentation": code}
    others = [
        {**one, "segmentation": {"size": [2, 2], "counts": "13"}},
        {**one, "category_id": 2},
        {**one, "score": 0.6},
        {**one, "bbox": [0.0, 0, 3, 2]},
    ]
    found = inference.equality([one] * 4, others)
    assert found == {"detections": 4, "same": 1, "different_pixels": 1, "pixels": 4}


@pytest.mark.usefixtures("forked")
def test_the_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a small network, which the processes that are measured inherit."""
    small = functools.partial(ModelConfig, num_stages=2, width=32, dynamic_width=8, ffn_width=32, mask_convs=1)
    monkeypatch.setattr(inference, "ModelConfig", small)
    sizes = ["--sizes", "64x96", "32x32", "--batches", "1", "2", "--proposals", "5", "--rounds", "1"]
    how = ["--backbone", "tiny", "--stages", "--to", str(tmp_path)]
    code, said = run("benchmark", "inference", *sizes, *how)
    assert code == 0, said
    results = json.loads(next(tmp_path.glob("inference-*.json")).read_text())["results"]
    comparisons = results["comparisons"]
    assert [(one["height"], one["width"], one["batch"]) for one in comparisons] == [
        (64, 96, 1),
        (32, 32, 1),
        (64, 96, 2),
    ]
    for one in comparisons:
        assert one["equality"]["same"] == one["equality"]["detections"] == 5 * one["batch"]
        plain, ours = (one["ways"][way]["flops"] for way in ("published", "fp32"))
        assert plain["stages"] > ours["stages"] > 0  # what no image changes is not computed again
        assert plain["masks"] > ours["masks"] > 0
        assert abs(plain["backbone"] - ours["backbone"]) == 0
    assert [(row["stages"], row["proposals"]) for row in results["stages"]["5"][:4]] == [(1, 5), (2, 5), (2, 2), (2, 1)]
    assert results["peak"]["fp32"] > 1e9
    for part in ("backbone", "FPN", "stages", "masks", "post-processing", "all"):
        assert f"\n| {part} " in said


@pytest.mark.parametrize("size", ["800", "800x1217", "0x32", "axb"])
def test_a_size_that_is_none_is_refused(run: Run, size: str):
    code, said = run("benchmark", "inference", "--sizes", size)
    assert code == 2
    assert f"{size} is not HEIGHTxWIDTH in multiples of 32" in said
