"""RoIAlign over levels: level by box size, and our gather against torchvision's kernel."""

import pytest
import torch

from queryinst.ops.roi import STRIDES, FeaturePyramid, pyramid_level


def pyramid(
    batch: int, height: int, width: int, dtype: torch.dtype = torch.float64, aligned: bool = True
) -> FeaturePyramid:
    return FeaturePyramid(
        [torch.randn(batch, 5, height // s, width // s, dtype=dtype, requires_grad=True) for s in STRIDES], aligned
    )


def any_boxes(count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Boxes of all sizes, some beyond the image on every side."""
    centre, size = torch.rand(count, 2, dtype=dtype) * 300 - 20, torch.rand(count, 2, dtype=dtype).pow(3) * 700
    return torch.cat([centre - size / 2, centre + size / 2], 1)


@pytest.mark.parametrize(
    ("side", "level"), [(1, 0), (111.9, 0), (112, 1), (223.9, 1), (224, 2), (447.9, 2), (448, 3), (5000, 3)]
)
def test_level_of_a_square(side: float, level: int):
    assert pyramid_level(torch.tensor([[0.0, 0, side, side]])).item() == level


def test_level_of_a_broken_box_is_the_finest():
    boxes = torch.tensor([[5.0, 5, 5, 5], [9, 9, 2, 2], [float("nan")] * 4, [0, 0, 500, -500]])
    assert pyramid_level(boxes).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("size", [7, 14])
def test_gather_is_torchvisions_kernel(size: int, aligned: bool):
    ours, boxes, image = pyramid(2, 256, 320, aligned=aligned), any_boxes(60), torch.arange(60) % 2
    gathered, pooled = ours._gather(boxes, image, size), ours._pool(boxes, image, size)
    torch.testing.assert_close(gathered, pooled)
    gradient = torch.randn_like(pooled)
    for ours_grad, theirs in zip(
        torch.autograd.grad(gathered, ours.maps, gradient),
        torch.autograd.grad(pooled, ours.maps, gradient),
        strict=True,
    ):
        torch.testing.assert_close(ours_grad, theirs)


def test_a_nan_box_reads_numbers_elsewhere():
    boxes = torch.tensor([[0.0, 0, 50, 50], [float("nan")] * 4])
    regions = pyramid(1, 64, 64, torch.float32).align(boxes, torch.zeros(2, dtype=torch.int64), 7)
    assert regions[0].isfinite().all()


def test_no_boxes():
    ours = pyramid(1, 64, 64, torch.float32)
    regions = ours.align(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 7)
    assert regions.shape == (0, 5, 7, 7)
    regions.sum().backward()
    assert all(features.grad is not None and not features.grad.any() for features in ours.maps)


def test_boxes_get_no_gradient():
    boxes = any_boxes(3, torch.float32).requires_grad_()
    pyramid(1, 64, 64, torch.float32).align(boxes, torch.zeros(3, dtype=torch.int64), 7).sum().backward()
    assert boxes.grad is None


def test_half_precision_does_not_move_boxes():
    """bfloat16 knows whole numbers up to 256 only: a box at 1000 would be off by pixels."""
    ramp = torch.arange(256.0).expand(1, 1, 8, 256)  # a map whose values say where it was read, exact in bfloat16
    maps = [ramp[..., : 256 // s * 4] for s in STRIDES]
    boxes = torch.tensor([[1001.0, 4.0, 1013.0, 16.0]])
    wide = FeaturePyramid(maps)._pool(boxes, torch.zeros(1, dtype=torch.long), 7)
    half = FeaturePyramid([m.bfloat16() for m in maps])._pool(boxes, torch.zeros(1, dtype=torch.long), 7)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, wide.bfloat16())
