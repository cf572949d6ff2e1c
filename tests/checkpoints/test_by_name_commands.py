"""What people type: a name in place of a checkpoint, in every command, and whether published AP is met."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SHORT, Run
from publisher import NAME, Publisher, publishing
from test_convert import published as write_published

import queryinst
from queryinst.checkpoints import exported
from queryinst.checkpoints.agreement import Difference
from queryinst.demo_page import page
from queryinst.evaluation import expected as module

CLASSES = [{"id": k, "name": f"class {k}"} for k in (1, 2, 3)]
MODEL = ["model.num_proposals=4", "model.num_stages=2", "model.width=16", "model.dynamic_width=4", "model.ffn_width=8"]
MODEL += ["model.num_heads=8", "model.regression_layers=3", "model.mask_convs=4", "trainer.max_train_batches=1"]
FROM = ["backbone=resnet18", "backbone.weights=null", f"weights={NAME}"]


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_published(tmp_path_factory.mktemp("published") / "a.pth", 3).read_bytes()


@pytest.fixture
def publisher(content: bytes, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("QUERYINST_CACHE", str(workplace / "cache"))
    with publishing(content, monkeypatch, box=0.0, mask=0.1) as made:
        yield made


@pytest.fixture
def data(publisher: Publisher) -> list[str]:
    """One image with one object, as settings of `evaluate`."""
    Path("val").mkdir()
    cv2.imwrite("val/a.png", np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8))
    entry = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [5, 5, 30, 20], "area": 600, "iscrowd": 0}
    entry["segmentation"] = [[5, 5, 35, 5, 35, 25, 5, 25]]
    images = [{"id": 1, "file_name": "a.png", "height": 40, "width": 50}]
    Path("val.json").write_text(json.dumps({"images": images, "annotations": [entry], "categories": CLASSES}))
    return ["images=val", "annotations=val.json", "num_workers=0"]


def test_predict_export_and_the_library(
    publisher: Publisher, data: list[str], run: Run, monkeypatch: pytest.MonkeyPatch
):
    code, text = run("predict", f"checkpoint={NAME}", "source=val/a.png", "score=0", "overlays=false")
    assert code == 0, text
    assert f"converting {NAME}" in text
    assert len(json.loads(Path("predictions/predictions.json").read_text())) == 4
    assert len(publisher.asked) == 1
    assert len(queryinst.load(NAME, "cpu").predict("val/a.png", score=0)) == 4
    for name in ("trace", "pt2_runner"):  # what is in the file is for others to say
        monkeypatch.setattr(exported, name, lambda *_: None)
    monkeypatch.setattr(exported, "compare", lambda *_: Difference(0.0, 0.0, 0.0))
    monkeypatch.setattr(exported, "_write_pt2", lambda _, path, record: path.write_text(record))
    code, text = run("export", NAME, "model.pt2")
    assert code == 0, text
    assert "network       resnet18, 4 proposals, 3 classes" in text
    assert json.loads(Path("model.pt2").read_text())["category_names"] == ["class 1", "class 2", "class 3"]
    code, text = run("convert", NAME, "r18.safetensors")
    assert code == 0, text
    assert len(publisher.asked) == 1


def test_demo(publisher: Publisher, run: Run, monkeypatch: pytest.MonkeyPatch):
    served = []
    monkeypatch.setattr(page, "serve", lambda *arguments, **named: served.append(named))
    code, text = run("demo", f"checkpoint={NAME}", "port=17861")
    assert code == 0, text
    assert (served[0]["title"], served[0]["proposals"]) == (f"queryinst: {NAME}", 4)


def test_evaluate_says_whether_ap_is_met(data: list[str], run: Run, monkeypatch: pytest.MonkeyPatch):
    words = ["evaluate", f"checkpoint={NAME}", *data]
    code, text = run(*words, "expect=0.2/0.1", "output=a.json")
    assert code == 0, text
    assert "\nexpected AP is met within 0.2: box AP 0.00 for 0.2, mask AP 0.00 for 0.1\n" in text
    record = json.loads(Path("a.json").read_text())["expected"]
    assert record == {"points": {"bbox": 0.2, "segm": 0.1}, "tolerance": 0.2, "met": True}
    code, text = run(*words, "expect=37.5", "all_stages=true", "tolerance=37", "output=a.json")
    assert code == 1, text
    assert "\nexpected AP is NOT met within 37: mask AP 0.00 for 37.5\n" in text
    assert json.loads(Path("a.json").read_text())["expected"]["met"] is False
    code, text = run(*words, "expect=published")
    assert code == 2
    assert "published AP is that of COCO val2017, 5000 images, and val.json has 1: give images=COCO/val2017 " in text
    monkeypatch.setattr(module, "VAL2017", 1)
    code, text = run(*words, "expect=published")
    assert code == 0, text
    assert "expected AP is met within 0.2: box AP 0.00 for 0, mask AP 0.00 for 0.1" in text
    code, text = run(*words, "expect=published", "tolerance=0.05")
    assert code == 1, text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["expect=42.0/37.5"],
            "mmdet:tiny comes without data: give images=FOLDER annotations=FILE, such as COCO's val2017",
        ),
        (
            ["images=a", "annotations=b", "expect=0.375x"],
            "expect takes 'published', MASK or BOX/MASK, AP in points from 0 ",
        ),
        (
            ["images=a", "annotations=b", "expect=published", "elastic=true"],
            "expect is of the whole model, and elastic=true",
        ),
        (["images=a", "annotations=b", "tolerance=-1"], "tolerance must be at least 0"),
        (
            ["checkpoint=x.ckpt", "expect=published"],
            "expect=published is for published weights by name, such as checkpoint=",
        ),
    ],
)
def test_mistakes_are_said_before_anything_is_fetched(publisher: Publisher, run: Run, words: list[str], said: str):
    code, text = run("evaluate", *[f"checkpoint={NAME}"] * ("checkpoint=x.ckpt" not in words), *words)
    assert code == 2
    assert text.startswith(f"error: {said}")
    assert publisher.asked == []


def test_a_model_for_video_has_no_published_ap(workplace: Path, untrained_video: Path, run: Run):
    code, text = run("evaluate", f"checkpoint={untrained_video}", "expect=37.5")
    assert (code, text.count("\n")) == (2, 1)
    assert text.startswith("error: expect is for images, and ")


def test_fine_tuning_finds_its_run_again_without_network_or_cache(
    publisher: Publisher, run: Run, monkeypatch: pytest.MonkeyPatch
):
    code, text = run("train", *SHORT, *MODEL, *FROM)
    assert code == 0, text
    assert re.search(rf"weights +\d+ of \d+ tensors from {NAME}; ", text)
    (folder,) = Path("outputs").iterdir()
    publisher.close()
    monkeypatch.setenv("QUERYINST_CACHE", "another")
    code, text = run("train", *SHORT, *MODEL, *FROM)
    assert code == 0, text
    assert [path.name for path in Path("outputs").iterdir()] == [folder.name]
    assert "finished" in text
