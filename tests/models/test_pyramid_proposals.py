"""Proposals that an image makes for itself: of which places, with which boxes and features, and what learns."""

import pytest
import torch
from conftest import random_batch, small_model
from test_deploy import with_statistics
from torch import Tensor

from queryinst.config import PostprocessConfig
from queryinst.models.deploy import deploy
from queryinst.models.exportable import Exportable
from queryinst.models.packed import pack
from queryinst.models.postprocess import detect
from queryinst.models.pyramid_proposals import PyramidProposals
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import STRIDES, FeaturePyramid
from queryinst.structures import Detections

SIZES = torch.tensor([[64, 64], [40, 56]])


def pyramid(side: int = 64, width: int = 8, seed: int = 0) -> FeaturePyramid:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(len(SIZES), width, side // s, side // s, generator=generator) for s in STRIDES]
    return FeaturePyramid(maps)


def lively(number: int = 20) -> PyramidProposals:
    torch.manual_seed(1)
    proposals = PyramidProposals(number, 8)
    for layer in (proposals.conv, proposals.objectness, proposals.sides):
        torch.nn.init.normal_(layer.weight, std=0.3)
    proposals.scales.data = torch.tensor([0.5, 1.0, 1.5, 2.0])
    return proposals


def spelled_out(
    proposals: PyramidProposals, maps: list[Tensor], image: int, size: list[int]
) -> list[tuple[float, ...]]:
    """Of every place inside the image its logit, box and feature; the best first."""
    found = []
    for level, (features, stride) in enumerate(zip(maps, STRIDES, strict=True)):
        shared = proposals.conv(features[image : image + 1]).relu()
        logits, sides, made = (layer(shared)[0] for layer in (proposals.objectness, proposals.sides, proposals.feature))
        for row in range(features.shape[2]):
            for column in range(features.shape[3]):
                x, y = (column + 0.5) * stride, (row + 0.5) * stride
                left, above, right, below = (sides[:, row, column] * proposals.scales[level]).relu() * stride
                box = [x - left, y - above, x + right, y + below]
                if x < size[1] and y < size[0]:
                    found.append((logits[0, row, column].item(), *map(float, box), *made[:, row, column].tolist()))
    return sorted(found, reverse=True)


@torch.no_grad()
def test_the_places_that_look_most_like_objects_are_chosen():
    proposals, maps = lively(), pyramid()
    boxes, queries, candidates = proposals(SIZES, maps)
    assert boxes.shape == (2, 20, 4)
    assert queries.shape == (2, 20, 8)
    for image, size in enumerate(SIZES.tolist()):
        every = torch.tensor(spelled_out(proposals, maps.maps, image, size))
        torch.testing.assert_close(
            torch.cat([boxes[image], queries[image]], dim=1), every[:20, 1:], rtol=1e-4, atol=1e-4
        )
        assert candidates.inside[image].sum() == len(every)


@torch.no_grad()
def test_where_there_are_too_few_places_the_rest_are_the_whole_image():
    boxes, queries, candidates = lively(number=400)(SIZES, pyramid())
    for image, inside in enumerate(candidates.inside.sum(1).tolist()):
        height, width = SIZES[image].tolist()
        assert boxes[image, inside:].tolist() == [[0, 0, width, height]] * (400 - inside)
        assert not queries[image, inside:].any()
        assert queries[image, :inside].any(dim=1).all()


def test_queries_carry_gradient_and_boxes_do_not():
    proposals, maps = lively(), pyramid()
    boxes, queries, candidates = proposals(SIZES, maps)
    assert not boxes.requires_grad
    queries.sum().backward(retain_graph=True)
    assert proposals.feature.weight.grad is not None
    assert proposals.conv.weight.grad is not None
    assert proposals.objectness.weight.grad is proposals.sides.weight.grad is None
    (candidates.logits.sum() + candidates.boxes.sum()).backward()
    assert all(parameter.grad is not None for parameter in proposals.parameters())


def of_the_pyramid() -> QueryInst:
    torch.manual_seed(0)
    model = with_statistics(small_model(proposals="pyramid"))
    assert isinstance(model.queries, PyramidProposals)
    for layer in (model.queries.conv, model.queries.objectness, model.queries.sides):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return model.eval()


def found(model: QueryInst) -> list[Detections]:
    batch = random_batch([1, 1])
    with torch.inference_mode():
        output = model(batch.images, batch.sizes)
        return detect(model, output, batch.sizes, batch.original_sizes, PostprocessConfig())


def test_at_test_nothing_is_kept_of_what_was_not_chosen():
    batch, model = random_batch([1, 1]), of_the_pyramid()
    assert model(batch.images, batch.sizes).candidates is None
    assert model.train()(batch.images, batch.sizes).candidates is not None


@pytest.mark.parametrize("packed", [False, True])
def test_deployed_it_is_the_same(packed: bool):
    model = of_the_pyramid()
    ready = deploy(model)
    for ours, theirs in zip(found(model), found(pack(ready) if packed else ready), strict=True):
        torch.testing.assert_close(ours.boxes, theirs.boxes, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_boxes_are_float32_and_detections_nearly_the_same():
    model = of_the_pyramid()
    ready = deploy(model, "bf16")
    assert {parameter.dtype for parameter in ready.parameters()} == {torch.bfloat16}
    pyramid = ready.pyramid(ready.normalise(random_batch([1]).images, SIZES[:1]))
    assert ready.propose(pyramid, SIZES[:1])[0].dtype == torch.float32
    for ours, theirs in zip(found(model), found(ready), strict=True):
        assert (ours.scores[0] - theirs.scores[0]).abs() < 0.05


def test_what_is_exported_is_the_same():
    model, batch = of_the_pyramid(), random_batch([1, 1])
    with torch.inference_mode():
        boxes, scores, labels, _ = Exportable(model, PostprocessConfig())(batch.images, batch.sizes)
    for image, ours in enumerate(found(model)):
        torch.testing.assert_close(boxes[image], ours.boxes, rtol=1e-3, atol=1e-2)
        torch.testing.assert_close(scores[image], ours.scores, rtol=1e-4, atol=1e-5)
        assert labels[image].tolist() == ours.labels.tolist()
