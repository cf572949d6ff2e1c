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
    boxes = torch.tensor(
        [[5.0, 5, 5, 5], [900, 900, 2, 2], [float("nan")] * 4, [0, 0, 1e6, -1e6], [1e6, 0, 0, 1e6], [0, 0, 1e6, 0]]
    )
    assert pyramid_level(boxes).tolist() == [0] * 6


def test_level_of_a_rectangle_is_that_of_a_square_as_large():
    boxes = torch.tensor([[10.0, 20, 10 + 56, 20 + 224], [10, 20, 10 + 448, 20 + 56], [0, 0, 900, 13], [0, 0, 13, 900]])
    assert pyramid_level(boxes).tolist() == [1, 1, 0, 0]


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


def test_gather_reads_the_last_pixel_of_all_and_none_behind_it():
    ours, image = pyramid(2, 256, 320), torch.tensor([1])
    boxes = torch.tensor([[0.0, 0, 500, 500]], dtype=torch.float64)
    torch.testing.assert_close(ours._gather(boxes, image, 7), ours._pool(boxes, image, 7))


@pytest.mark.parametrize("way", ["_gather", "_pool"])
def test_maps_and_boxes_may_differ_in_precision(way: str):
    wide, boxes, image = pyramid(2, 64, 96), any_boxes(10, torch.float32) / 3, torch.arange(10) % 2
    narrow = FeaturePyramid([m.detach().float() for m in wide.maps])
    expected = getattr(wide, way)(boxes.double(), image, 7)
    for ours in (wide, narrow):
        for given in (boxes, boxes.double()):
            found = getattr(ours, way)(given, image, 7)
            assert found.dtype == ours.maps[0].dtype
            torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("way", ["_gather", "_pool"])
def test_a_cell_reads_its_place_in_its_level_of_its_image(way: str, aligned: bool):
    """Maps say where they are read: 1000 a level and 100 an image, and the column, or the row in the other channel."""
    image = torch.tensor([2, 0, 1, 0, 2])
    maps = []
    for level, stride in enumerate(STRIDES):
        row, column = torch.meshgrid(torch.arange(640.0 // stride), torch.arange(800.0 // stride), indexing="ij")
        maps.append(torch.stack([torch.stack([column, row]) + 1000 * level + 100 * i for i in range(3)]))
    corner = torch.tensor([[40.0, 60], [200, 90], [100, 110], [80, 70], [300, 200]])
    size = torch.tensor([[30.0, 50], [140, 150], [300, 280], [470, 500], [2, 1]])
    found = getattr(FeaturePyramid(maps, aligned), way)(torch.cat([corner, corner + size], 1), image, 5)
    for box, (level, stride) in enumerate(zip([0, 1, 2, 3, 0], [4, 8, 16, 32, 4], strict=True)):
        side = size[box] / stride if aligned else (size[box] / stride).clamp(min=1)
        cell = (torch.arange(5)[:, None] + 0.5) * side / 5 + corner[box] / stride - 0.5 * aligned
        x, y = (cell + 1000 * level + 100 * image[box]).unbind(1)
        torch.testing.assert_close(found[box], torch.stack([x.expand(5, 5), y[:, None].expand(5, 5)]))


@pytest.mark.parametrize("way", ["_gather", "_pool"])
@pytest.mark.parametrize(
    ("low", "ones", "columns"),
    [
        (-2.0, 1, 0.5),  # two points, at -1 and 1: the first reads the border
        (-2.25, 0.5, 0.375),  # at -1.25 and 0.75: the first is outside
        (-4.25, 0, 0),
        (7.0, 1, 8.5),  # at 8 and 10 of 10 columns: the second reads the border, which is 9
        (7.25, 0.5, 4.125),  # at 8.25 and 10.25
        (9.25, 0, 0),
    ],
)
def test_points_up_to_a_pixel_outside_read_the_border_and_others_nothing(
    way: str, low: float, ones: float, columns: float
):
    ramp = torch.arange(10.0).expand(10, 10)
    maps = [torch.stack([torch.ones(10, 10), ramp])[None], *[torch.full((1, 2, 10, 10), 99.0)] * 3]
    for across in (True, False):
        box = torch.tensor([4 * low, 8, 4 * low + 16, 24]) if across else torch.tensor([8, 4 * low, 24, 4 * low + 16])
        ours = FeaturePyramid([m if across else m.mT for m in maps], aligned=False)
        found = getattr(ours, way)(box[None], torch.tensor([0]), 1)
        assert found.flatten().tolist() == [ones, columns]


def test_a_map_of_one_pixel_is_read_as_its_value():
    maps = [torch.full((1, 1, 1, 1), value) for value in (3.0, 5, 7, 9)]
    boxes = torch.tensor([[1.0, 1, 3, 3], [0, 0, 0, 0], [1, -1, 4, 5]])
    regions = FeaturePyramid(maps).align(boxes, torch.zeros(3, dtype=torch.int64), 2)
    assert regions.tolist() == [[[[3, 3], [3, 3]]]] * 3


def test_boxes_are_aligned_by_half_a_pixel_where_nothing_else_is_said():
    maps, box, image = pyramid(1, 64, 64).maps, torch.tensor([[3.0, 5, 40, 50]]), torch.tensor([0])
    default, shifted, plain = (
        FeaturePyramid(maps, *aligned).align(box, image, 7) for aligned in ((), (True,), (False,))
    )
    assert torch.equal(default, shifted)
    assert not torch.equal(default, plain)


def test_a_box_of_nan_reads_nothing_and_others_are_as_without_it():
    ours, box = pyramid(1, 64, 64, torch.float32), torch.tensor([[0.0, 0, 50, 50]])
    both = ours.align(torch.cat([box, torch.full((1, 4), torch.nan)]), torch.tensor([0, 0]), 7)
    assert torch.equal(both[:1], ours.align(box, torch.tensor([0]), 7))
    assert not both[1].any()


def test_another_device_than_a_cpu_reads_by_the_kernel():
    """A meta tensor has no numbers, and one on a CPU would be in its way."""
    maps = [torch.empty(2, 5, 256 // s, 320 // s, device="meta") for s in STRIDES]
    boxes, image = torch.empty(6, 4, device="meta"), torch.empty(6, dtype=torch.int64, device="meta")
    regions = FeaturePyramid(maps).align(boxes, image, 7)
    assert (regions.shape, regions.device.type) == ((6, 5, 7, 7), "meta")


def test_maps_of_half_precision_are_read_at_the_places_of_float32():
    ours = pyramid(2, 256, 320, torch.float32)
    boxes, image = any_boxes(8, torch.float32), torch.arange(8) % 2
    half = FeaturePyramid([m.detach().bfloat16() for m in ours.maps])
    regions = half.align(boxes, image, 7)
    assert regions.dtype == torch.bfloat16
    torch.testing.assert_close(regions.float(), ours.align(boxes, image, 7), rtol=0.02, atol=0.05)


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
