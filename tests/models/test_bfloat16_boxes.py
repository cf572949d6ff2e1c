"""Where layers compute in bfloat16, boxes do not: at 1333 pixels it knows only every eighth number."""

from collections.abc import Callable

import pytest
import torch
from conftest import small_model
from torch import Tensor, nn

from queryinst.config import PostprocessConfig
from queryinst.models.deploy import deploy
from queryinst.models.packed import pack
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import FeaturePyramid

SIZES = torch.tensor([[799, 1333], [1021, 613]])  # height, width: large, odd, and not those of a square
EXACT = {"rtol": 0, "atol": 2e-3}  # pixels; bfloat16 would be off by up to 4
HOW: dict[str, Callable[[QueryInst], QueryInst]] = {
    "autocast": lambda model: model,
    "deployed": lambda model: deploy(model, "bf16"),
    "packed": lambda model: pack(deploy(model, "bf16")),
}


def lively() -> QueryInst:
    """A network whose boxes no bfloat16 can hold, and which moves them far."""
    model = small_model(num_stages=3).eval()
    centre, size = torch.rand(6, 2) * 0.5 + 0.25, torch.rand(6, 2) * 0.5 + 0.2
    model.queries.boxes.data = torch.cat([centre, size], dim=1)
    for stage in model.stages:
        nn.init.normal_(stage.box.reg.weight, std=0.1)
        nn.init.normal_(stage.box.reg.bias, std=0.3)
    return model


def refined(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Box by box, with Python's numbers: centres move by halves of the size, sides grow by the exponential."""
    rows = []
    for (x0, y0, x1, y1), (dx, dy, dw, dh) in zip(boxes.tolist(), deltas.double().tolist(), strict=True):
        x, y = (x0 + x1) / 2 + 0.5 * dx * (x1 - x0), (y0 + y1) / 2 + 0.5 * dy * (y1 - y0)
        w, h = ((b - a) * torch.tensor(d, dtype=torch.float64).exp().item() for a, b, d in ((x0, x1, dw), (y0, y1, dh)))
        rows.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("how", HOW)
def test_boxes_are_float32_in_value_wherever_they_go(how: str):
    """From the learned proposals through every stage, into both heads' regions, and to the detections."""
    plain = lively()
    model, seen = HOW[how](plain), {"deltas": [], "read": [], "drawn": []}  # type: ignore[var-annotated]
    for stage in model.stages:
        stage.box.reg.register_forward_hook(lambda _module, _given, deltas: seen["deltas"].append(deltas))
        stage.box.register_forward_pre_hook(lambda _module, given: seen["read"].append(given[1]))
        stage.mask.register_forward_pre_hook(lambda _module, given: seen["drawn"].append(given[1]))
    pyramid = FeaturePyramid([torch.randn(2, 16, 1024 // s, 1344 // s).bfloat16() for s in (4, 8, 16, 32)])
    originals, config = torch.tensor([[1501, 2503], [333, 201]]), PostprocessConfig(max_detections=4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        output = model.query(pyramid, SIZES)
        found = detect(model, output, SIZES, originals, config)

    cxcywh, scale = plain.queries.boxes.double(), SIZES.flip(1).repeat(1, 2).double()[:, None]
    boxes = torch.cat([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2], dim=1) * scale
    for stage, deltas, regions in zip(output.stages, seen["deltas"], seen["read"], strict=True):
        assert deltas.dtype == torch.bfloat16, "what the layer gives; all that is made of it is float32"
        assert differ(pyramid, boxes, regions) < 1e-3
        boxes = refined(boxes.flatten(0, 1), deltas.flatten(0, 1)).view_as(boxes)
        torch.testing.assert_close(stage.boxes.double(), boxes, **EXACT)
        assert stage.boxes.dtype == torch.float32
        boxes = stage.boxes.double()
    for image, detections in enumerate(found):
        expected = boxes[image, detections.queries] / scale[image] * originals[image].flip(0).tile(2)
        torch.testing.assert_close(detections.boxes.double(), expected, **EXACT)
        assert detections.boxes.dtype == torch.float32
    rows = [(image, query) for image in (0, 1) for query in sorted(set(found[image].queries.tolist()))]
    drawn = torch.stack([boxes[row] for row in rows])[None]
    assert differ(pyramid, drawn, seen["drawn"][0], torch.tensor([image for image, _ in rows])) < 1e-3


def differ(pyramid: FeaturePyramid, boxes: Tensor, regions: Tensor, image: Tensor | None = None) -> float:
    """How far what a head was given is from what the pyramid, noise here, shows at these boxes (elsewhere: 1)."""
    image = torch.arange(len(boxes)).repeat_interleave(boxes.shape[1]) if image is None else image
    shown = pyramid.align(boxes.flatten(0, 1).float(), image, regions.shape[-1])
    return float((shown.float() - regions.float()).abs().mean() / shown.float().abs().mean())
