import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, coco_folder

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.studies import beginning, suited
from queryinst.studies.beginning import Start
from queryinst.studies.command import compose


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU, and nothing to start from but what a test says."""
    monkeypatch.chdir(tmp_path)
    begin(monkeypatch, "nothing")


def begin(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def find(published: str | None, backbone: str) -> Start:
        if kind == "published" and published:
            return Start(kind, published, None, "")
        return Start("ImageNet", None, "imagenet", "") if kind != "nothing" else Start(kind, None, None, "")

    monkeypatch.setattr(beginning, "find", find)


def folder(
    root: Path, images: int = 108, objects: int = 35, side: int = 20, size: tuple[int, int] = (512, 512)
) -> Path:
    """A data set of this kind; the pictures themselves are not looked at."""
    for split, count in (("train", images), ("val", 4)):
        (root / f"{split}2017").mkdir(parents=True, exist_ok=True)
        listed = [{"id": n, "file_name": f"{n}.jpg", "height": size[0], "width": size[1]} for n in range(count)]
        corners = [1, 1, 1 + side, 1, 1 + side, 1 + side, 1, 1 + side]
        one = {"category_id": 1, "bbox": [1, 1, side, side], "segmentation": [corners], "iscrowd": 0}
        found = [one | {"id": n * objects + k, "image_id": n} for n in range(count) for k in range(objects)]
        content = {"images": listed, "annotations": found, "categories": [{"id": 1, "name": "one"}]}
        coco_folder(root, content, split).rename(root / f"annotations/instances_{split}2017.json")
    return root


def settings(root: Path, *words: str) -> TrainConfig:
    config = compose("config", TrainConfig, [f"data.root={root}", "trainer.accelerator=cpu", *words])
    assert isinstance(config, TrainConfig)
    return config


SMALL, LARGE = "+experiment=finetune_small", "+experiment=finetune"


def test_what_is_given_wins_over_what_would_be_chosen(tmp_path: Path):
    chosen = settings(folder(tmp_path / "data"), SMALL)
    words = {
        "model.num_proposals": 7,
        "backbone.frozen_stages": 2,
        "augmentation.test_short_side": 320,
        "data.batch_size": 3,
        "schedule.epochs": 2,
        "trainer.evaluate_every": 2,
        "optimizer.lr": 0.5,
    }
    given = settings(tmp_path / "data", SMALL, *(f"{key}={value}" for key, value in words.items()))
    for key, value in words.items():
        group, name = key.split(".")
        assert getattr(getattr(given, group), name) == value != getattr(getattr(chosen, group), name)
        assert key in chosen.chosen
        assert key not in given.chosen
    # what follows from it follows
    assert given.augmentation.long_side < chosen.augmentation.long_side
    assert given.schedule.warmup_iterations < chosen.schedule.warmup_iterations


@pytest.mark.parametrize(
    ("objects", "small", "large"), [(10, 50, 100), (60, 100, 100), (109, 200, 300), (600, 1000, 600)]
)
def test_there_are_queries_for_every_object(tmp_path: Path, objects: int, small: int, large: int):
    root = folder(tmp_path / "data", images=2, objects=objects)
    assert settings(root, SMALL).model.num_proposals == small
    assert settings(root, LARGE).model.num_proposals == large


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((512, 512), 40, 512),
        ((480, 640), 40, 480),
        ((200, 300), 40, 192),
        ((200, 300), 12, 256),
        ((200, 300), 2, 384),  # twice as large at most
        ((2000, 3000), 40, 512),  # no GPU
    ],
)
def test_small_objects_are_enlarged_and_large_images_are_not_kept(
    tmp_path: Path, size: tuple[int, int], side: int, expected: int
):
    config = settings(folder(tmp_path / "data", images=2, size=size, side=side), SMALL)
    assert config.augmentation.test_short_side == expected
    low, high = config.augmentation.short_sides
    assert low < expected < high


@pytest.mark.parametrize("images", [45, 100, 500, 100_000])
def test_small_data_is_seen_more_often(tmp_path: Path, images: int, monkeypatch: pytest.MonkeyPatch):
    root = folder(tmp_path / "data", images=min(images, 500), objects=1)
    if images > 500:
        monkeypatch.setattr("queryinst.data.facts.facts", lambda data: suited_facts(images))
    config = settings(root, SMALL)
    assert config.schedule.epochs == {45: 400, 100: 200, 500: 40, 100_000: 12}[images]
    assert config.data.batch_size == {45: 2, 100: 4, 500: 4, 100_000: 4}[images]
    assert 15 <= config.schedule.epochs / config.trainer.evaluate_every <= 40 or config.schedule.epochs == 12


@pytest.mark.parametrize(("objects", "images"), [(1, 4), (8, 4), (16, 2), (35, 1), (200, 1)])
def test_without_a_gpu_a_step_has_as_many_objects_as_it_needs(
    tmp_path: Path, objects: int, images: int, monkeypatch: pytest.MonkeyPatch
):
    root = folder(tmp_path / "data", objects=objects)
    config = settings(root, SMALL)
    assert config.data.batch_size == images
    assert config.optimizer.lr * images / config.optimizer.lr_batch == 5e-4
    monkeypatch.setattr(suited.Asked, "machine", "gpu")
    assert settings(root, SMALL).data.batch_size == 108 // 16


def test_the_learning_rate_is_that_of_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = folder(tmp_path / "data", objects=5)

    def rate(*words: str) -> float:
        config = settings(root, *words)
        return config.optimizer.lr * config.data.batch_size / config.optimizer.lr_batch

    assert rate(SMALL) == rate(SMALL, "data.batch_size=2") == 5e-4
    assert rate(LARGE) == rate(SMALL, "model.width=256") == 1e-4
    begin(monkeypatch, "published")
    assert rate(LARGE, "data.batch_size=16") == 4 * rate(LARGE, "data.batch_size=4") == pytest.approx(1e-4)
    assert rate(SMALL) == 5e-4, "it is no published network, and learns as when it began"


def suited_facts(images: int) -> Any:
    from queryinst.data.facts import Facts

    return Facts(images=images, short=480, long=640, objects=1, most=1, small=20)


def test_what_is_frozen_thaws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = folder(tmp_path / "data")
    assert settings(root, SMALL).backbone.thaw is None, "nothing is frozen"
    begin(monkeypatch, "ImageNet")
    assert settings(root, SMALL).backbone.thaw is None, "it would take half as long again"
    monkeypatch.setattr(suited.Asked, "machine", "gpu")
    assert settings(root, SMALL, "schedule.epochs=30").backbone.thaw == 10
    assert settings(root, SMALL, "schedule.epochs=2").backbone.thaw is None
    assert settings(root, SMALL, "schedule.epochs=30", "backbone.frozen_stages=-1").backbone.thaw is None


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("machine", ["cpu", "gpu"])
def test_bfloat16_where_the_machine_multiplies_it(
    tmp_path: Path, machine: str, has: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(suited.Asked, "machine", machine)
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: True)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: has and machine == "cpu", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: has and machine == "gpu")
    config = settings(folder(tmp_path / "data"), SMALL)
    assert config.trainer.precision == ("bf16-mixed" if has else "32-true")
    assert ("has no" in config.chosen["trainer.precision"]) is not has


def test_it_starts_from_the_best_that_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = folder(tmp_path / "data", objects=5)
    nothing = settings(root, LARGE)
    assert (nothing.weights, nothing.backbone.weights) == (None, None)
    assert (nothing.backbone.frozen_stages, nothing.backbone.norm) == (-1, "batch")
    begin(monkeypatch, "published")
    published = settings(root, LARGE)
    assert (published.weights, published.backbone.weights) == ("mmdet:ms_3x_pro100", None)
    assert (published.backbone.frozen_stages, published.backbone.norm) == (1, "fixed")
    assert settings(folder(tmp_path / "many", images=2, objects=120), LARGE).weights == "mmdet:ms_crop_3x_pro300"
    for other in ("model.num_stages=3", "model.num_proposals=150", "backbone=resnet101", "weights=null"):
        config = settings(root, LARGE, other)
        assert (config.weights, config.backbone.weights) == (None, "imagenet"), other
    assert nothing.schedule.epochs > config.schedule.epochs > published.schedule.epochs


def test_weights_of_ones_own_are_a_start(tmp_path: Path):
    root = folder(tmp_path / "data", objects=5)
    Path("r50.pth").touch()
    for words in ("backbone.weights=r50.pth", "weights=r50.pth"):
        config = settings(root, LARGE, words)
        assert (config.backbone.frozen_stages, config.backbone.norm) == (1, "fixed"), words
        assert config.backbone.weights == (words.removeprefix("backbone.weights=") if "backbone" in words else None)
    assert "starting from the weights given" in config.chosen["optimizer.lr"]


def test_images_are_cropped_where_there_is_time_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = folder(tmp_path / "data", images=2)
    assert settings(root, SMALL).augmentation.crop == 0
    assert settings(root, SMALL, "augmentation.crop=0.25").augmentation.crop == 0.25
    monkeypatch.setattr(suited.Asked, "machine", "gpu")
    assert settings(root, LARGE).augmentation.crop == 0.5


def test_a_fault_of_the_data_is_the_datas_sentence(tmp_path: Path):
    root = folder(tmp_path / "data", images=2)
    path = root / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["image_id"] = 77
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"instances_train2017\.json.* 77"):
        settings(root, SMALL)


def test_a_folder_that_is_not_clear_is_one_sentence_at_the_command_line(tmp_path: Path, run: Run):
    root = folder(tmp_path / "data", images=2)
    (root / "annotations/instances_train2017.json").rename(root / "annotations/train_a.json")
    shutil.copy(root / "annotations/train_a.json", root / "annotations/train_b.json")
    code, said = run("train", "data=coco", f"data.root={root}", "+experiment=finetune_small")
    assert code == 2
    assert said.startswith(f"error: {root} has several files for the training set (annotations/train_a.json")
    assert "overrides" not in said


def test_without_data_there_are_settings_for_photographs(tmp_path: Path):
    assert settings(tmp_path / "gone", SMALL).augmentation.test_short_side == 480


@pytest.mark.parametrize("data", ["shapes_tiny", "shapes_video_tiny"])
def test_what_is_still_to_be_made_is_not_looked_at(data: str, request: pytest.FixtureRequest, tmp_path: Path):
    """Or the second time the same command would mean another run."""
    words = [SMALL, f"data={data}", "trainer.accelerator=cpu", "tracker.by=iou"]
    before = compose("config", TrainConfig, words)
    request.getfixturevalue("shapes_root" if data == "shapes_tiny" else "clips_root")
    assert (tmp_path / before.data.root).is_dir()
    assert compose("config", TrainConfig, words) == before


def test_every_choice_of_a_recipe_is_known_and_every_known_one_is_made():
    text = "".join(path.read_text() for path in Path(__file__).parents[2].joinpath("conf").rglob("*.yaml"))
    made = {part.split("}")[0] for part in text.split("${suited:")[1:]}
    assert made == set(suited.CHOICES)
