"""What the page answers, word by word."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, small_model
from PIL import Image

from queryinst.checkpoints.load import Checkpoint
from queryinst.config import AugmentationConfig, BackboneConfig, ModelConfig, PostprocessConfig, TrainConfig
from queryinst.demo_page import answer as page
from queryinst.demo_page.answer import BOXES, IMAGES, INVITATION, Answerer, answerer
from queryinst.demo_page.look import Look
from queryinst.models.queryinst import QueryInst

NAMES = ["cat", "dog", "<cow>"]


def checkpoint() -> Checkpoint:
    model = ModelConfig(**SMALL, postprocess=PostprocessConfig(max_detections=18))
    backbone = BackboneConfig(name="tiny", frozen_stages=-1, norm="batch")
    config = TrainConfig(model=model, backbone=backbone, augmentation=AugmentationConfig(test_short_side=64))
    return Checkpoint(Path("best.ckpt"), config, [1, 2, 3], NAMES, {})


@pytest.fixture
def model() -> QueryInst:
    model = small_model().eval()
    for stage in model.stages:
        torch.nn.init.normal_(stage.box.cls.weight, std=1.0)
        torch.nn.init.zeros_(stage.box.cls.bias)
    return model


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for number in range(IMAGES + 1):
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), np.uint8)).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(IMAGES + 1)]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Look]:
    """Every image that a network has run on."""
    made: list[Look] = []

    class Seen(Look):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)  # type: ignore[arg-type]
            self.seconds = 0.0374
            made.append(self)

    monkeypatch.setattr(page, "Look", Seen)
    return made


def said(answer: Answerer, photo: str, score: float = 0.0, stages: int = 2, proposals: int = 6) -> list[str]:
    _, words = answer(photo, score, stages, proposals)
    return re.findall(r"<p[^>]*>(.*?)</p>", words)


def test_without_an_image_it_invites(model: QueryInst):
    assert answerer(model, checkpoint(), 1)(None, 0.3, 2, 6) == ("", f'<div class="said"><p>{INVITATION}</p></div>')


def test_it_counts_what_it_shows(model: QueryInst, photos: list[str], looked: list[Look]):
    answer = answerer(model, checkpoint(), 1)
    pictures, words = answer(photos[0], 0.0, 2, 4)
    assert '<p class="count">12 instances</p>' in words
    (look,) = looked
    labels = look.show(0.0, 2, 4).detections.labels.tolist()
    counts = {name: labels.count(label) for label, name in enumerate(["cat", "dog", "&lt;cow&gt;"])}
    assert dict(part.split(" ")[::-1] for part in said(answer, photos[0], 0.0, 2, 4)[1].split(", ")) == {
        name: str(count) for name, count in counts.items()
    }
    assert "<cow>" not in pictures + words
    assert pictures.count("<title>") == 12
    assert said(answer, photos[0], 0.0, 2, 4)[2] == (
        "2 of 2 stages, 4 of 6 proposals go on after the first. The network took 37 ms, once for this image."
    )
    assert said(answer, photos[0], 0.0, 1, 4)[2].startswith("1 of 2 stages. The network took 37 ms")
    best, second = look.show(0.0, 2, 6).detections.scores[:2].tolist()
    assert said(answer, photos[0], (best + second) / 2)[0] == "1 instance"
    assert said(answer, photos[0], 1.0)[:2] == ["0 instances", ""]


def test_not_all_boxes_move_where_there_are_many(model: QueryInst, photos: list[str], monkeypatch: pytest.MonkeyPatch):
    assert BOXES == 50
    monkeypatch.setattr(page, "BOXES", 5)
    pictures, words = answerer(model, checkpoint(), 1)(photos[0], 0.0, 2, 6)
    assert pictures.count("<title>") == 5
    assert "18 instances" in words


def test_the_last_images_are_remembered(model: QueryInst, photos: list[str], looked: list[Look]):
    answer = answerer(model, checkpoint(), 1)
    for photo in photos[:IMAGES] * 2:
        answer(photo, 0.5, 2, 6)
    assert len(looked) == IMAGES == 4
    answer(photos[IMAGES], 0.5, 2, 6)
    answer(photos[1], 0.5, 2, 6)
    assert len(looked) == IMAGES + 1, "the second is remembered still"
    answer(photos[0], 0.5, 2, 6)
    assert len(looked) == IMAGES + 2, "the oldest was forgotten"


def test_what_is_no_image_is_said_in_its_place(model: QueryInst, tmp_path: Path):
    (tmp_path / "a<b>.png").write_text("no image")
    Image.new("L", (1001, 1000)).save(tmp_path / "wide.png")
    answer = answerer(model, checkpoint(), 1)
    pictures, words = answer(str(tmp_path / "a<b>.png"), 0.5, 2, 6)
    assert pictures == ""
    assert words.startswith('<div class="said"><p class="problem" role="alert">a&lt;b&gt;.png is not an image')
    assert "has 1001 x 1000 pixels" in answer(str(tmp_path / "wide.png"), 0.5, 2, 6)[1]
