"""Where the queries start."""

import pytest
import torch

from queryinst.models.proposals import Proposals, grid


def test_the_published_start_is_the_whole_image():
    boxes, queries = Proposals(5, 8, "image", detach=False)(torch.tensor([[800, 1333], [600, 400]]))
    assert boxes[0].tolist() == [[0, 0, 1333, 800]] * 5
    assert boxes[1].tolist() == [[0, 0, 400, 600]] * 5
    assert queries.shape == (2, 5, 8)


@pytest.mark.parametrize("number", [1, 2, 7, 20, 36, 100, 300])
def test_a_grid_covers_the_image(number: int):
    boxes = grid(number)
    assert boxes.shape == (number, 4)
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    points = torch.rand(500, 2)
    assert ((points[:, None] >= low) & (points[:, None] <= high)).all(-1).any(1).all()
    assert boxes[:, :2].unique(dim=0).shape == (number, 2)


@pytest.mark.parametrize("detach", [False, True])
def test_detached_boxes_do_not_learn(detach: bool):
    proposals = Proposals(4, 8, "grid", detach)
    boxes, queries = proposals(torch.tensor([[64, 64]]))
    (boxes.sum() + queries.sum()).backward()
    assert (proposals.boxes.grad is None) == detach
    assert proposals.features.grad is not None
