"""Where the queries start."""

import pytest
import torch

from queryinst.models.proposals import Proposals, grid


def test_the_published_start_is_the_whole_image():
    boxes, queries = Proposals(5, 8, "image", detach=False)(torch.tensor([[800, 1333], [600, 400]]))
    assert boxes[0].tolist() == [[0, 0, 1333, 800]] * 5
    assert boxes[1].tolist() == [[0, 0, 400, 600]] * 5
    assert queries.shape == (2, 5, 8)


def test_every_image_gets_the_same_features_and_boxes_of_its_own_size():
    proposals = Proposals(3, 8, "grid", detach=False)
    proposals.boxes.data = torch.tensor([[0.5, 0.25, 0.5, 0.5], [0, 0, 1, 1], [0.5, 0.5, 4, 2]])
    boxes, queries = proposals(torch.tensor([[80, 40], [16, 64]]))
    assert boxes[0].tolist() == [[10, 0, 30, 40], [-20, -40, 20, 40], [-60, -40, 100, 120]]
    assert boxes[1].tolist() == [[16, 0, 48, 8], [-32, -8, 32, 8], [-96, -8, 160, 24]]
    assert torch.equal(queries[0], proposals.features)
    assert torch.equal(queries[1], proposals.features)


def test_a_grid_row_by_row():
    """Two rows for five: two above, three below, each a fifth larger than its cell and none larger than the image."""
    assert grid(1).tolist() == [[0.5, 0.5, 1, 1]]
    torch.testing.assert_close(grid(2), torch.tensor([[0.25, 0.5, 0.6, 1], [0.75, 0.5, 0.6, 1]]))
    above = [[0.25, 0.25, 0.6, 0.6], [0.75, 0.25, 0.6, 0.6]]
    below = [[x / 6, 0.75, 0.4, 0.6] for x in (1, 3, 5)]
    torch.testing.assert_close(grid(5), torch.tensor([*above, *below]))
    assert torch.equal(Proposals(5, 8, "grid", detach=False).boxes, grid(5))


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
    assert proposals.boxes.requires_grad != detach
    assert proposals.features.grad is not None
    assert proposals.features.grad.unique().tolist() == [1]
