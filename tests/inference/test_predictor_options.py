"""What a predictor takes from its checkpoint, what its options mean, and on what it computes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from queryinst.checkpoints.load import load
from queryinst.config import PostprocessConfig
from queryinst.errors import UserError
from queryinst.inference.predictor import Predictor, device_of
from queryinst.video_config import TrackerConfig

PHOTO = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)


def made(untrained: Path, **postprocess: Any) -> Predictor:
    """Of a checkpoint with settings that are nobody's default."""
    checkpoint = load(untrained)
    model = replace(checkpoint.config.model, postprocess=PostprocessConfig(**postprocess))
    config = replace(checkpoint.config, model=model, tracker=TrackerConfig(by="iou", retain=3))
    return Predictor(replace(checkpoint, config=config), "cpu")


@pytest.fixture(scope="module")
def predictor(untrained: Path) -> Predictor:
    return made(untrained)


def test_what_a_score_leaves_is_what_reaches_it_and_by_default_that_is_three_tenths(predictor: Predictor):
    scores = predictor.predict(PHOTO, score=0, max_detections=18).scores
    found = predictor.predict(PHOTO, max_detections=18).scores
    assert 0 < (scores < 0.3).sum() < ((scores < 0.5).sum()) < len(scores), "the default is told from its neighbours"
    assert found.tolist() == scores[scores >= 0.3].tolist()
    exactly = float(scores[4])
    assert len(predictor.predict(PHOTO, score=exactly, max_detections=18)) == 5


def test_the_network_is_that_of_the_checkpoint(untrained: Path):
    predictor = made(untrained, max_detections=5)
    assert predictor.tracker == TrackerConfig(by="iou", retain=3)
    assert len(predictor.predict(PHOTO, score=0)) == 5
    assert len(predictor.predict(PHOTO, score=0, max_detections=7)) == 7


def test_masks_are_thinned_out_among_more_than_are_kept(untrained: Path):
    """Six proposals are looked at, though two are kept; of those that stay the number kept is what was asked for."""
    predictor = made(untrained, max_detections=2)
    everything = predictor.predict(PHOTO, score=0, nms=0.0, max_detections=18)
    assert len(everything) > 2
    best = predictor.predict(PHOTO, score=0, nms=0.0)
    assert best.scores.tolist() == everything.scores[:2].tolist()


def test_pixels_of_files_are_held_only_for_a_stream(predictor: Predictor, tmp_path: Path):
    path = tmp_path / "a.png"
    Image.fromarray(PHOTO).save(path)
    assert predictor.predict(path).pixels is None
    assert (predictor.predict(PHOTO).pixels == PHOTO).all()
    (held,) = predictor.stream([path])
    assert (held.pixels == PHOTO).all()
    read, given = predictor.stream([path, PHOTO], hold=False)
    assert read.pixels is None
    assert (given.pixels == PHOTO).all()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("score", -0.01, "at least 0 and at most 1"),
        ("score", 1.01, "at least 0 and at most 1"),
        ("nms", -0.01, "at least 0 and at most 1"),
        ("nms", 1.01, "at least 0 and at most 1"),
        ("max_detections", 0, "at least 1"),
        ("stages", 0, "at least 1 and at most 2"),
        ("stages", 3, "at least 1 and at most 2"),
        ("proposals", 0, "at least 1 and at most 6"),
        ("proposals", 7, "at least 1 and at most 6"),
    ],
)
def test_an_option_beyond_its_bound_is_one_sentence(predictor: Predictor, option: Any, value: float, said: str):
    with pytest.raises(UserError) as error:
        predictor.predict(PHOTO, **{option: value})
    assert str(error.value) == f"{option} must be {said}, of this model; got {value}"


@pytest.mark.parametrize("options", [{"score": 0}, {"score": 1}, {"nms": 0}, {"nms": 1}, {"max_detections": 1}])
def test_a_bound_itself_is_taken(predictor: Predictor, options: Any):
    predictor.predict(PHOTO, **options)


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 1), (1, 0)])
def test_nobody_works_with_no_threads(predictor: Predictor, batch_size: int, workers: int):
    with pytest.raises(UserError) as error:
        predictor.stream([PHOTO], batch_size=batch_size, workers=workers)
    assert str(error.value) == f"batch_size and workers must be at least 1; got {batch_size} and {workers}"


def test_devices_of_a_machine_with_two_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    taken = {name: device_of(name) for name in ("auto", "gpu", "cuda", "cuda:0", "gpu:1", "cpu")}
    assert list(taken.values()) == ["cuda", "cuda", "cuda", "cuda:0", "cuda:1", "cpu"]
    for name in ("cuda:2", "cuda:x", "mps", "cpu:2"):
        with pytest.raises(UserError) as error:
            device_of(name)
        sentence = f"there is no device '{name}': this machine, as torch sees it, has cuda; give auto or cpu"
        assert str(error.value) == sentence
