"""Box arithmetic against hand-made numbers and against torchvision."""

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st

from queryinst.ops import boxes as box_ops

numbers = st.floats(-50, 150, width=32)


def some_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([low, low + torch.rand(count, 2, generator=generator) * 50 + 0.1], 1)


def test_refine_clips_the_scale_both_ways():
    # Worked out by hand in the reference, section 5.5.
    refined = box_ops.refine(torch.tensor([10.0, 20, 50, 100]), torch.tensor([0.2, -0.1, 10, -10]))
    torch.testing.assert_close(refined, torch.tensor([-1216, 55.36, 1284, 56.64]), rtol=1e-5, atol=1e-3)


def test_refine_by_nothing_is_the_identity():
    boxes = some_boxes(20, 0)
    torch.testing.assert_close(box_ops.refine(boxes, torch.zeros(20, 4)), boxes)


@settings(deadline=None)
@given(numbers, numbers, st.floats(0.5, 100, width=32), st.floats(0.5, 100, width=32))
def test_cxcywh_round_trip(cx: float, cy: float, width: float, height: float):
    x0, y0, x1, y1 = box_ops.cxcywh_to_xyxy(torch.tensor([cx, cy, width, height], dtype=torch.float64)).tolist()
    assert abs((x0 + x1) / 2 - cx) < 1e-9
    assert abs((y0 + y1) / 2 - cy) < 1e-9
    assert abs(x1 - x0 - width) < 1e-9
    assert abs(y1 - y0 - height) < 1e-9


def test_boxes_of_centre_and_size_may_have_any_shape():
    boxes = torch.tensor([[[5.0, 6, 2, 4], [1, 1, 2, 2]], [[0, 0, 6, 8], [10, 20, 0, 0]]])
    assert box_ops.cxcywh_to_xyxy(boxes).tolist() == [
        [[4, 4, 6, 8], [0, 0, 2, 2]],
        [[-3, -4, 3, 4], [10, 20, 10, 20]],
    ]


def test_giou_is_torchvisions_where_that_is_defined():
    a, b = some_boxes(30, 1), some_boxes(40, 2)
    torch.testing.assert_close(box_ops.giou(a[:, None], b), torchvision.ops.generalized_box_iou(a, b))


@pytest.mark.parametrize(
    ("box", "area"),
    [
        ([1.0, 2, 4, 7], 15),
        ([4.0, 2, 1, 7], 0),  # inside out in x
        ([1.0, 7, 4, 2], 0),  # in y
        ([4.0, 7, 1, 2], 0),  # in both, where the product of the sides would be positive
        ([3.0, 2, 3, 7], 0),
    ],
)
def test_area_is_0_for_a_box_that_is_inside_out(box: list[float], area: float):
    assert box_ops.area(torch.tensor([[box]])).tolist() == [[area]]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([5.0, 5, 5, 5], 0),  # the hull is the square
        ([9.0, 9, 2, 2], 0),
        ([9.0, 2, 2, 9], 0),
        ([2.0, 9, 9, 2], 0),
        ([20.0, 0, 20, 10], 100 / 200 - 1),
        ([24.0, 0, 20, 10], 100 / 200 - 1),  # an inside-out box counts up to its second corner, if that is higher
        ([0.0, 24, 10, 20], 100 / 200 - 1),
        ([0.0, 20, 10, 40], 300 / 400 - 1),
    ],
)
def test_giou_of_broken_boxes_with_a_square(box: list[float], expected: float):
    square, other = torch.tensor([0.0, 0, 10, 10]), torch.tensor(box)
    for pair in ((square, other), (other, square)):
        assert box_ops.giou(*pair).item() == pytest.approx(expected)


def test_giou_of_two_boxes_without_area_is_0():
    empty = torch.tensor([[5.0, 5, 5, 5], [9, 9, 2, 2], [9, 2, 2, 9], [2, 9, 9, 2], [5, 0, 5, 3]])
    assert box_ops.giou(empty, empty).tolist() == [0] * 5


def test_union_and_enclosure_are_held_at_eps():
    small = torch.tensor([0.0, 0, 0.1, 0.1])
    assert box_ops.giou(small, small).item() == pytest.approx(1)
    assert box_ops.giou(small, small, eps=0.04).item() == pytest.approx(0.25)
    apart = small + 0.2  # the hull is 0.09, the union 0.02 or `eps`
    assert box_ops.giou(small, apart).item() == pytest.approx(0.02 / 0.09 - 1, abs=1e-5)
    assert box_ops.giou(small, apart, eps=0.05).item() == pytest.approx(0.05 / 0.09 - 1, abs=1e-5)
    tiny = torch.tensor([0.0, 0, 2e-4, 2e-4])  # an area of 4e-8, held at 1e-6
    assert box_ops.giou(tiny, tiny).item() == pytest.approx(0.04)


def test_extent_is_width_and_height_twice():
    sizes = torch.tensor([[[30, 40]], [[50, 60]]])
    extent = box_ops.extent(sizes)
    assert extent.tolist() == [[[40, 30, 40, 30]], [[60, 50, 60, 50]]]
    assert extent.dtype == torch.float32


def test_clip_is_into_each_images_own_size():
    boxes = torch.tensor([[[-5.0, -6, 100, 100], [41, 5, 50, 31], [-9, -8, -7, -6]]]).tile(2, 1, 1)
    clipped = box_ops.clip(boxes, torch.tensor([[30, 40], [10, 70]])[:, None])
    assert clipped.tolist() == [
        [[0, 0, 40, 30], [40, 5, 40, 30], [0, 0, 0, 0]],
        [[0, 0, 70, 10], [41, 5, 50, 10], [0, 0, 0, 0]],
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_clipped_boxes_keep_their_type(dtype: torch.dtype):
    assert box_ops.clip(torch.ones(3, 4, dtype=dtype), torch.tensor([30, 40])).dtype == dtype
