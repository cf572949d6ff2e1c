"""One image, every stage: the network runs once, and what is shown is what it says when it is cut."""

import numpy as np
import pytest
import torch
from conftest import small_model

from queryinst.config import AugmentationConfig, PostprocessConfig
from queryinst.demo_page.look import LONGEST, REMEMBERED, Look
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst

PLAIN = AugmentationConfig(test_short_side=64)


@pytest.fixture
def model() -> QueryInst:
    """Three stages whose scores differ."""
    model = small_model(num_stages=3).eval()
    for stage in model.stages:
        torch.nn.init.normal_(stage.box.cls.weight, std=1.0)
        torch.nn.init.normal_(stage.box.reg.weight, std=0.1)
    return model


def noise(height: int = 64, width: int = 96) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_the_network_runs_once_an_image(model: QueryInst):
    calls = {"backbone": 0, "stages": 0, "masks": 0}

    def count(what: str):
        def hook(*_: object) -> None:
            calls[what] += 1

        return hook

    model.backbone.register_forward_hook(count("backbone"))
    model.stages[0].box.register_forward_hook(count("stages"))
    for stage in model.stages:
        stage.mask.register_forward_hook(count("masks"))
    look = Look(model, PLAIN, PostprocessConfig(), noise())
    assert calls == {"backbone": 1, "stages": 1, "masks": 0}
    for score in (0.0, 0.4, 0.6):
        for stages in (1, 2, 3):
            look.show(score, stages, 6)
    assert calls == {"backbone": 1, "stages": 1, "masks": 3}
    look.show(0.0, 3, 4)
    assert calls == {"backbone": 1, "stages": 2, "masks": 4}


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("proposals", [6, 4, 1])
def test_it_shows_what_a_cut_network_detects(model: QueryInst, stages: int, proposals: int):
    pixels = noise()
    shown = Look(model, PLAIN, PostprocessConfig(), pixels).show(0.0, stages, proposals)
    images, sizes = torch.from_numpy(pixels).permute(2, 0, 1)[None], torch.tensor([[64, 96]])
    with torch.no_grad():
        pyramid = model.pyramid(model.normalise(images, sizes))
        output = model.query(pyramid, sizes, stages=stages, proposals=proposals)
        (expected,) = detect(model, output, sizes, sizes, PostprocessConfig())
    for name in ("boxes", "scores", "labels", "masks"):
        assert torch.allclose(getattr(shown.detections, name), getattr(expected, name)), name


@pytest.mark.parametrize("proposals", [6, 4])
def test_the_trail_is_what_every_stage_started_from(model: QueryInst, proposals: int):
    """The boxes that a stage was given are those of the trail before it, row by row, whoever was left behind."""
    given: list[torch.Tensor] = []
    for stage in model.stages:
        stage.box.register_forward_pre_hook(lambda _, inputs: given.append(inputs[2][0]))
    look = Look(model, PLAIN, PostprocessConfig(), noise())
    given.clear()
    look._outputs.clear()
    shown = look.show(0.0, 3, proposals)
    rows = shown.detections.queries
    assert rows is not None
    assert shown.trail.shape == (4, len(rows), 4)
    torch.testing.assert_close(torch.from_numpy(shown.trail[3]), shown.detections.boxes)
    torch.testing.assert_close(torch.from_numpy(shown.trail[0]), given[0][rows])
    chosen = torch.arange(6) if proposals == 6 else look.outputs(6).stages[0].logits[0].amax(-1).topk(proposals).indices
    places = [chosen.tolist().index(row) for row in rows.tolist()]
    for stage in (1, 2):
        torch.testing.assert_close(torch.from_numpy(shown.trail[stage]), given[stage][places])


def test_the_threshold_filters(model: QueryInst):
    look = Look(model, PLAIN, PostprocessConfig(), noise())
    everything = look.show(0.0, 3, 6).detections.scores
    middle = float(everything.median())
    some = look.show(middle, 3, 6)
    assert 0 < len(some.detections.scores) == int((everything >= middle).sum()) < len(everything)
    assert len(look.show(1.0, 3, 6).detections.scores) == 0
    assert look.show(1.0, 3, 6).trail.shape == (4, 0, 4)


def test_a_large_image_is_shown_smaller(model: QueryInst):
    pixels = noise(100, 2 * LONGEST)
    look = Look(model, PLAIN, PostprocessConfig(), pixels)
    assert look.picture.shape == (50, LONGEST, 3)
    shown = look.show(0.0, 1, 6)
    assert shown.detections.size == (50, LONGEST)
    whole = shown.trail[0]  # a grid over the whole image, a little larger than it
    assert whole[:, 0].min() < LONGEST / 10
    assert LONGEST * 0.9 < whole[:, 2].max() < LONGEST * 1.2


def test_old_numbers_of_proposals_are_forgotten():
    model = small_model(num_proposals=REMEMBERED + 3).eval()
    look = Look(model, PLAIN, PostprocessConfig(), noise())
    for proposals in range(1, REMEMBERED + 4):
        look.show(0.0, 2, proposals)
    assert len(look._outputs) == REMEMBERED
    assert len(look._detections) <= REMEMBERED * look.stages
