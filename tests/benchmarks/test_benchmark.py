"""The benchmark runs and prints its ratios, and compares the same work. Nothing here is timed."""

import copy
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Run

from queryinst.benchmarks import data, frame, masks, opening, scenes, train
from queryinst.benchmarks import step as measured
from queryinst.benchmarks.kept import Kept
from queryinst.benchmarks.step import PARTS, Case, Step
from queryinst.config import ModelConfig, OptimizerConfig, PostprocessConfig, ScheduleConfig, TrainConfig
from queryinst.data.coco import CocoFile
from queryinst.data.dataset import CocoDataset
from queryinst.data.index import SMALLEST
from queryinst.data.transforms import TrainGeometry
from queryinst.lightning.module import QueryInstModule, Training
from queryinst.studies.command import compose


def cells(text: str) -> list[list[str]]:
    """The rows of Markdown tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_data_prints_a_line_for_each_count(run: Run, workplace: Path):
    code, said = run("benchmark", "data", "--images", "2", "--instances", "3", "12", "--rounds", "1")
    assert code == 0
    assert [row[0] for row in cells(said)] == ["objects", "-------", "3", "12"]
    assert "written" not in said  # this is no checkout


@pytest.mark.usefixtures("forked")
def test_data_opens_a_large_file(run: Run, workplace: Path):
    sizes = ["--open", "--open-images", "30", "--open-annotations", "200"]
    code, said = run("benchmark", "data", "--images", "1", "--instances", "1", "--rounds", "1", *sizes)
    assert code == 0
    assert "opening 30 images, 200 annotations" in said
    assert re.search(r"first time +\| +[\d.]+ s +\| +[\d.]+ GiB", said)
    assert re.search(r"holds -?\d+ MB more, and shares -?\d+ MB", said)


def test_masks_are_equal_and_the_record_says_what_was_measured_where(run: Run, tmp_path: Path):
    sizes = ["--masks", "5", "2", "--height", "60", "--width", "80", "--rounds", "1"]
    code, said = run("benchmark", "masks", *sizes, "--to", str(tmp_path / "to"))
    assert code == 0
    assert [(row[0], row[-1]) for row in cells(said)[2:]] == [("5", "0 of 24000"), ("2", "0 of 9600")]
    (path,) = (tmp_path / "to").glob("*.json")
    content = json.loads(path.read_text())
    assert content["part"] == "masks"
    assert content["command"].startswith("python -m queryinst.benchmark masks --masks 5 2")
    assert torch.__version__.startswith(content["versions"]["torch"])
    assert content["hardware"]["name"].endswith("1 thread")
    assert [(found["masks"], found["different"]) for found in content["results"]["times"]] == [(5, 0), (2, 0)]
    told = path.with_suffix(".md").read_text()
    assert told.startswith(f"# {content['hardware']['name']}\n")
    assert cells(told) == cells(said)


def test_a_checkout_keeps_its_records(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "experiments").mkdir()
    monkeypatch.chdir(tmp_path)
    code, _ = run("benchmark", "masks", "--masks", "1", "--height", "60", "--width", "80", "--rounds", "1")
    assert code == 0
    assert len(list(tmp_path.glob("experiments/benchmark/masks-*-1-thread.*"))) == 2


def test_a_gpu_names_its_records():
    found = {"processor": "P", "threads": 4, "gpus": ["A", "B"]}
    names = [frame.name_of(found, device) for device in ("cuda", "cuda:1", "cpu")]
    assert names == ["A", "B", "P, 4 threads"]


def test_nonsense_is_refused(run: Run):
    code, said = run("benchmark", "masks", "--masks", "0")
    assert code == 2
    assert "0 is not 1 or more" in said


def test_the_measured_augmentation_is_the_published_one():
    config = compose("config", TrainConfig, ["augmentation=ms_crop"])
    assert config.augmentation == data.MS_CROP
    assert (ROOT / "conf/augmentation/ms_crop.yaml").exists()


def test_both_ways_make_the_same_sample(tmp_path: Path):
    path = scenes.make(tmp_path / "scene", images=3, instances=8)
    source = CocoFile(path, path.parent)
    ours = CocoDataset(source.images, TrainGeometry(data.MS_CROP), source.instances, mask_size=800)
    plain = data.BitmapDataset(path, data.MS_CROP)
    for epoch in range(4):
        for position in range(3):
            sample, bitmaps = ours[epoch, position], plain[epoch, position]
            assert sample.image.shape == bitmaps["image"].shape
            assert bitmaps["masks"].shape[1:] == sample.image.shape[1:]
            assert (sample.image.float() - bitmaps["image"].float()).abs().mean() < 6
            targets = sample.targets
            torch.testing.assert_close(targets.boxes, torch.as_tensor(bitmaps["boxes"]).float(), rtol=0, atol=0.1)
            assert (targets.labels + 1).tolist() == bitmaps["labels"].tolist()
            sides = targets.mask_boxes[:, 2:] - targets.mask_boxes[:, :2]
            areas = targets.masks.float().mean((1, 2)) * sides.prod(1)
            assert areas.tolist() == pytest.approx(bitmaps["masks"].sum((1, 2)).tolist(), rel=0.1, abs=40)
            for mask, (left, top, right, bottom) in zip(bitmaps["masks"], targets.boxes.int().tolist(), strict=True):
                inside = mask[max(top - 4, 0) : bottom + 4, max(left - 4, 0) : right + 4]
                assert inside.sum() >= 0.9 * mask.sum(), "a bitmap is where its box is"


@pytest.mark.usefixtures("forked")
def test_generated_annotations_are_read(tmp_path: Path):
    scenes.write_annotations(tmp_path / "instances.json", 20, 300)
    source = CocoFile(tmp_path / "instances.json", tmp_path)
    assert len(source.images) == 20
    assert sum(len(source.annotations(image)) for image in source.images) == 300
    assert opening.open_in_process(source.path).images == 20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says whose memory is whose")
def test_a_loader_process_shares_a_large_file(tmp_path: Path):
    scenes.write_annotations(tmp_path / "instances.json", 2000, 60_000)
    size = (tmp_path / "instances.json").stat().st_size
    assert size > SMALLEST
    own, shared = opening.serve_in_process(tmp_path / "instances.json")
    assert shared > 0.8 * size
    assert own < 0.2 * size


@pytest.mark.parametrize("count", [1, 7])
def test_paste_whole_is_one_mask_after_another(count: int):
    rng = np.random.default_rng(0)
    probabilities = torch.from_numpy(rng.random((count, 28, 28), np.float32))
    boxes = torch.tensor([[3.0, 4, 30, 20]]).repeat(count, 1) + torch.arange(count)[:, None]
    together = masks.paste_whole(probabilities, boxes, (40, 50))
    for index in range(count):
        alone = masks.paste_whole(probabilities[index : index + 1], boxes[index : index + 1], (40, 50))
        assert (together[index] == alone[0]).all()


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The step of a small network."""
    small = functools.partial(ModelConfig, num_stages=2, width=32, dynamic_width=8, ffn_width=32, mask_convs=1)
    monkeypatch.setattr(measured, "ModelConfig", small)


@pytest.mark.usefixtures("forked", "_small")
def test_a_training_step_is_told_by_part(run: Run, tmp_path: Path):
    sizes = ["--backbone", "tiny", "--sizes", "64x96", "--objects", "2", "--proposals", "4", "--threads", "1"]
    code, said = run("benchmark", "train", *sizes, "--precision", "bf16", "--rounds", "1", "--to", str(tmp_path))
    assert code == 0
    (path,) = tmp_path.glob("train-*.json")
    (step,) = json.loads(path.read_text())["results"]["steps"]
    assert step["precision"] == "bf16"
    assert tuple(step["parts"]) == PARTS
    assert all(seconds > 0 for seconds in step["parts"].values())
    memory = step["memory"]
    assert tuple(memory) == train.MEMORY
    assert all(memory[name] > 0 for name in train.MEMORY if name != "matching")
    # Two averages of every parameter that trains, and a step count of 4 bytes.
    assert memory["AdamW"] == pytest.approx(2 * memory["gradients"], rel=0.01)
    assert sum(memory.values()) < step["peak"]
    assert {row[0] for row in cells(said)} >= set(PARTS)
    assert "x" not in cells(said)[2][-1], "MMDetection was measured with other sizes"


def test_what_autograd_keeps_counts_once_and_without_parameters():
    linear, x = torch.nn.Linear(8, 16), torch.randn(4, 8)

    def forward(done: Callable[[str], None]) -> torch.Tensor:
        y = linear(x).relu()  # keep x, and what relu gives
        done("first")
        y = y.square()  # keeps the latter again
        done("second")
        z = y[:2].exp()  # keeps what it gives
        done("third")
        return z

    expected = {"first": 4 * 8 * 4 + 4 * 16 * 4, "second": 0, "third": 2 * 16 * 4}
    assert Kept(linear).measure(forward) == expected


def test_a_size_is_height_and_width(run: Run):
    for wrong in ("800", "800x1210", "0x32"):
        code, said = run("benchmark", "train", "--sizes", wrong)
        assert (code, f"{wrong} is not HEIGHTxWIDTH in multiples of 32" in said) == (2, True)


@pytest.mark.usefixtures("_small")
def test_the_measured_step_is_the_modules(tmp_path: Path):
    """The same losses from the same weights and batch, as training has them."""
    case = Case(4, "fp32", False, 2, 64, 96, 2, "tiny", "cpu", None, 1)
    step = Step(case)
    training = Training(step.criterion, OptimizerConfig(), ScheduleConfig(), 2, 10)
    module = QueryInstModule(copy.deepcopy(step.model), {}, PostprocessConfig(), training, None, tmp_path)
    expected = module.losses(step.batch)
    assert torch.equal(step(), expected)
    seconds = train.Clock(lambda: None)
    assert not torch.equal(step(seconds), expected), "a step has been made"
    assert set(seconds.seconds) == set(PARTS)


def test_both_backends_of_the_evaluation_give_the_same_numbers(run: Run, tmp_path: Path):
    pytest.importorskip("faster_coco_eval")
    sizes = ["--images", "12", "--objects", "4", "--detections", "6", "--rounds", "1", "--to", str(tmp_path)]
    code, said = run("benchmark", "evaluation", *sizes)
    assert code == 0
    (path,) = tmp_path.glob("evaluation-*.json")
    numbers = json.loads(path.read_text())["results"]["numbers"]
    assert len(numbers["pycocotools"]) == 24
    assert numbers["pycocotools"] == pytest.approx(numbers["faster_coco_eval"], abs=1e-9)
    assert 0.05 < numbers["pycocotools"]["segm_AP"] < 0.95
    assert "the same 24 numbers" in said
