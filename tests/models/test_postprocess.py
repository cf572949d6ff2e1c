"""Detections: the best of queries x classes, in pixels of the original image."""

import pytest
import torch
from conftest import random_batch, small_model

from queryinst.config import PostprocessConfig
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Detections, Output


@pytest.fixture
def looked() -> tuple[QueryInst, Output, torch.Tensor]:
    model, batch = small_model().eval(), random_batch([1, 1])
    with torch.no_grad():
        return model, model(batch.images, batch.sizes), batch.sizes


def test_scores_fall_and_number_is_that_of_the_proposals(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    for found in detect(model, output, sizes, sizes, PostprocessConfig()):
        assert len(found.scores) == 6
        assert (found.scores.diff() <= 0).all()
        assert found.masks.shape == (6, 28, 28)
        assert ((found.masks >= 0) & (found.masks <= 1)).all()


def test_max_detections_keeps_the_best(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    few, all_of_them = (detect(model, output, sizes, sizes, PostprocessConfig(max_detections=n))[0] for n in (3, 1000))
    assert len(all_of_them.scores) == 6 * 3
    torch.testing.assert_close(few.scores, all_of_them.scores[:3])
    torch.testing.assert_close(few.masks, all_of_them.masks[:3])


def test_boxes_are_scaled_to_the_original(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    plain = detect(model, output, sizes, sizes, PostprocessConfig())[0]
    scaled = detect(model, output, sizes, torch.tensor([[128, 32], [128, 32]]), PostprocessConfig())[0]
    torch.testing.assert_close(scaled.boxes, plain.boxes * torch.tensor([0.5, 2, 0.5, 2]))
    assert scaled.size == (128, 32)


def test_clip_and_least_side(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    output.stages[-1].boxes[0, :] = torch.tensor([-30.0, 10, 70, 30])
    output.stages[-1].boxes[0, 0] = torch.tensor([10.0, 10, 10.5, 30])
    found = detect(model, output, sizes, sizes, PostprocessConfig(max_detections=1000, clip_boxes=True, min_side=1.0))[
        0
    ]
    assert len(found.scores) == 15  # the three classes of query 0 are gone
    assert found.boxes.unique(dim=0).tolist() == [[0, 10, 64, 30]]


def test_an_earlier_stage(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    first, last = (detect(model, output, sizes, sizes, PostprocessConfig(), stage)[0] for stage in (0, -1))
    assert not torch.allclose(first.boxes, last.boxes)
    torch.testing.assert_close(last.boxes, detect(model, output, sizes, sizes, PostprocessConfig(), 1)[0].boxes)


def test_above_and_take():
    found = Detections(
        torch.rand(4, 4), torch.tensor([0.9, 0.6, 0.5, 0.1]), torch.arange(4), torch.rand(4, 28, 28), (10, 10)
    )
    assert found.above(0.5).labels.tolist() == [0, 1, 2]
    assert found.take(torch.tensor([3, 0])).labels.tolist() == [3, 0]
