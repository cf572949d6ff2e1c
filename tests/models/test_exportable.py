"""The network as one function of tensors finds what `detect` finds."""

import sys
from typing import Any

import pytest
import torch
from conftest import ROOT, small_model

from queryinst.checkpoints import agreement
from queryinst.checkpoints.agreement import LIMIT, compare
from queryinst.config import PostprocessConfig
from queryinst.models.exportable import Exportable, StaticPyramid, _padded
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import FeaturePyramid, pyramid_level
from queryinst.video_config import AssociationConfig

sys.path.append(str(ROOT / "tests" / "golden"))
from weights import fill, mmdet_name


def filled(**settings: Any) -> QueryInst:
    """A small model whose scores are far apart, ready for evaluation."""
    model = small_model(**settings)
    model.load_state_dict(
        {
            name: torch.from_numpy(fill(mmdet_name(name), tuple(value.shape)))
            for name, value in model.state_dict().items()
        }
    )
    return model.eval().requires_grad_(False)


def images(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8)


@pytest.mark.parametrize("aligned", [True, False])
def test_every_level_read_and_one_kept_is_the_level_of_the_box(aligned: bool):
    maps = [torch.randn(2, 4, 512 // stride, 640 // stride) for stride in (4, 8, 16, 32)]
    low = torch.rand(40, 2) * 300
    boxes = torch.cat([low, low + torch.logspace(0, 2.8, 40)[:, None]], dim=1)
    boxes = torch.cat([boxes, torch.tensor([[5.0, 5, 5, 5], [9, 9, 2, 2], [-50, -50, 900, 900]])])
    assert set(pyramid_level(boxes).tolist()) == {0, 1, 2, 3}
    image = torch.arange(len(boxes)) % 2
    found = StaticPyramid(maps, aligned).align(boxes, image, 7)
    torch.testing.assert_close(found, FeaturePyramid(maps, aligned).align(boxes, image, 7), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({}, PostprocessConfig()),
        ({"aligned": False}, PostprocessConfig(clip_boxes=True, max_detections=4, min_side=1.0)),
        ({"num_proposals": 3}, PostprocessConfig(max_detections=100)),
        ({}, PostprocessConfig(max_detections=4, mask_score=2.0)),
        ({"association": AssociationConfig(width=8)}, PostprocessConfig()),
        ({"num_stages": 3}, PostprocessConfig()),
    ],
    ids=["plain", "paddle", "more detections than queries", "masks count", "video", "three stages"],
)
def test_it_finds_what_the_network_finds(settings: dict[str, Any], config: PostprocessConfig):
    model = filled(**settings)
    assert max(compare(model, config, Exportable(model, config))) < LIMIT / 2


def test_only_what_finds_is_in_it():
    """No BatchNorm, no mask head of a stage but the last, no association head; the model itself keeps them.

    Weights lie in PyTorch's usual order, for which `torch.export.save` has no warning.
    """
    model = filled(association=AssociationConfig(width=8), num_stages=3)
    kept = {
        name.removeprefix("model."): value
        for name, value in Exportable(model, PostprocessConfig()).state_dict().items()
    }
    assert {name.partition(".mask.")[0] for name in kept if ".mask." in name} == {"stages.2"}
    assert not any(part in name for name in kept for part in ("association", "running_mean"))
    assert all(value.is_contiguous() for value in kept.values())
    assert {f"stages.{index}.{part}" for index in range(3) for part in ("association.fc.bias", "mask.up.bias")} <= {
        *model.state_dict()
    }


def test_a_wrong_file_is_found_out(monkeypatch: pytest.MonkeyPatch):
    """Each output counts, NaN too."""
    monkeypatch.setattr(agreement, "CANVASES", ((64, 96),))
    model, config = filled(), PostprocessConfig()
    right = Exportable(model, config)
    for output, change in ((0, 0.1), (1, 2e-4), (2, 1), (3, 2e-4), (0, torch.nan), (3, torch.nan)):

        def wrong(x: torch.Tensor, sizes: torch.Tensor, output: int = output, change: float = change) -> Any:
            found = list(right(x, sizes))
            found[output][:, -1] += change
            return found

        assert not compare(model, config, wrong).small, (output, change)
    twice = lambda x, sizes: [v[:, [0, 0, 2, 3, 4, 5]] for v in right(x, sizes)]  # noqa: E731
    assert not compare(model, config, twice).small


def test_the_canvas_is_padded_inside_and_its_padding_ignored():
    exportable = Exportable(filled(), PostprocessConfig())
    x = images(1, 3, 70, 101)
    canvas = images(1, 3, 96, 128)
    canvas[:, :, :70, :101] = x
    size = torch.tensor([[70, 101]])
    for one, other in zip(exportable(x, torch.zeros_like(size)), exportable(canvas, size), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    too_large = exportable(x, torch.tensor([[1000, 1000]]))
    assert all(one.equal(other) for one, other in zip(too_large, exportable(x, size), strict=True))


def test_a_batch_gives_what_its_images_give_and_one_pixel_is_an_image():
    exportable = Exportable(filled(), PostprocessConfig())
    x = images(3, 3, 64, 96)
    whole = exportable(x, torch.zeros(3, 2, dtype=torch.int64))
    assert [tuple(v.shape) for v in whole] == [(3, 6, 4), (3, 6), (3, 6), (3, 6, 28, 28)]
    assert (whole[1].diff(dim=1) <= 0).all()
    for i in range(3):
        for one, many in zip(exportable(x[i : i + 1], torch.tensor([[64, 96]])), whole, strict=True):
            torch.testing.assert_close(one[0], many[i], rtol=0, atol=1e-4)
    assert exportable(images(1, 3, 1, 1), torch.zeros(1, 2, dtype=torch.int64))[0].isfinite().all()


@pytest.mark.parametrize(("height", "width"), [(1, 40), (40, 1)])
def test_an_image_of_one_pixel_inside_its_canvas_has_no_more(height: int, width: int):
    exportable, size = Exportable(filled(), PostprocessConfig()), torch.tensor([[height, width]])
    canvas = images(1, 3, 64, 64)
    alone = exportable(canvas[:, :, :height, :width], size)
    for one, other in zip(alone, exportable(canvas, size), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_boxes_end_at_the_image_where_it_is_asked_for():
    """The image, not its canvas; nothing but the boxes changes."""
    model, canvas, sizes = filled(), images(2, 3, 64, 96), torch.tensor([[0, 0], [40, 50]])
    model.queries.boxes.data[:, 2:] = 3.0
    free, clipped = (Exportable(model, PostprocessConfig(clip_boxes=clip))(canvas, sizes) for clip in (False, True))
    assert all(one.equal(other) for one, other in zip(free[1:], clipped[1:], strict=True))
    for boxes, ends, (height, width) in zip(free[0], clipped[0], ((64, 96), (40, 50)), strict=True):
        assert (boxes < 0).any()
        assert (boxes > max(height, width)).any()
        expected = [
            [min(max(x, 0), end) for x, end in zip(box, (width, height) * 2, strict=True)] for box in boxes.tolist()
        ]
        assert ends.tolist() == expected


def test_canvases_are_multiples_of_the_coarsest_stride_and_at_least_two():
    assert [_padded(side) for side in (1, 31, 32, 33, 64, 65, 96, 97, 1333)] == [64, 64, 64, 64, 64, 96, 96, 128, 1344]


def test_it_stays_where_it_is_put():
    """On a device that has shapes and no numbers."""
    exportable = Exportable(small_model(), PostprocessConfig()).to("meta")
    found = exportable(images(2, 3, 70, 96).to("meta"), torch.zeros(2, 2, dtype=torch.int64, device="meta"))
    assert [tuple(v.shape) for v in found] == [(2, 6, 4), (2, 6), (2, 6), (2, 6, 28, 28)]
    assert {v.device.type for v in found} == {"meta"}
