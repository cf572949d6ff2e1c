"""Box arithmetic against hand-made numbers and against torchvision."""

import torch
import torchvision
from hypothesis import given
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


@given(numbers, numbers, st.floats(0.5, 100, width=32), st.floats(0.5, 100, width=32))
def test_cxcywh_round_trip(cx: float, cy: float, width: float, height: float):
    x0, y0, x1, y1 = box_ops.cxcywh_to_xyxy(torch.tensor([cx, cy, width, height], dtype=torch.float64)).tolist()
    assert abs((x0 + x1) / 2 - cx) < 1e-9
    assert abs((y0 + y1) / 2 - cy) < 1e-9
    assert abs(x1 - x0 - width) < 1e-9
    assert abs(y1 - y0 - height) < 1e-9


def test_giou_is_torchvisions_where_that_is_defined():
    a, b = some_boxes(30, 1), some_boxes(40, 2)
    torch.testing.assert_close(box_ops.giou(a[:, None], b), torchvision.ops.generalized_box_iou(a, b))


def test_giou_of_degenerate_boxes_is_a_number():
    point, inverted = torch.tensor([5.0, 5, 5, 5]), torch.tensor([9.0, 9, 2, 2])
    for a in (point, inverted):
        for b in (point, inverted, torch.tensor([0.0, 0, 10, 10])):
            value = box_ops.giou(a, b)
            assert value.isfinite()
            assert -1 <= value <= 1


def test_clip_and_extent():
    sizes = torch.tensor([[30, 40]])
    assert box_ops.extent(sizes).tolist() == [[40, 30, 40, 30]]
    assert box_ops.clip(torch.tensor([[-5.0, -5, 100, 100]]), sizes).tolist() == [[0, 0, 40, 30]]
