"""Detections: the best of queries x classes, in pixels of the original image."""

import pytest
import torch
from conftest import random_batch, small_model

from queryinst.config import PostprocessConfig
from queryinst.models.postprocess import Wanted, certainty, detect
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Detections, Output, Rows


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
        assert ((found.masks > 0) & (found.masks < 1)).all()


def test_max_detections_keeps_the_best(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    few, all_of_them = (detect(model, output, sizes, sizes, PostprocessConfig(max_detections=n))[0] for n in (3, 1000))
    assert len(all_of_them.scores) == 6 * 3
    torch.testing.assert_close(few.scores, all_of_them.scores[:3])
    torch.testing.assert_close(few.masks, all_of_them.masks[:3])


def test_certainty_is_the_mean_inside_the_mask():
    masks = torch.tensor([[[0.9, 0.7], [0.4, 0.0]], [[0.5, 0.1], [0.1, 0.1]], [[0.4, 0.4], [0.4, 0.4]]])
    torch.testing.assert_close(certainty(masks), torch.tensor([0.8, 0.5, 0.0]))


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_masks_may_count_in_scores(looked: tuple[QueryInst, Output, torch.Tensor], power: float):
    model, output, sizes = looked
    output.stages[-1].logits[:] += torch.linspace(0, 3, 6)[:, None]
    for plain, found in zip(
        detect(model, output, sizes, sizes, PostprocessConfig()),
        detect(model, output, sizes, sizes, PostprocessConfig(mask_score=power)),
        strict=True,
    ):
        scores = plain.scores * certainty(plain.masks) ** power
        order = scores.argsort(descending=True)
        assert order.tolist() != list(range(6)), "or nothing is tested"
        torch.testing.assert_close(found.scores, scores[order])
        for column in ("boxes", "labels", "masks", "queries"):
            assert torch.equal(getattr(found, column), getattr(plain, column)[order])


def test_what_is_wanted_is_above_the_score_also_where_masks_count(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    config = PostprocessConfig(max_detections=18, mask_score=1.0)
    everything = detect(model, output, sizes, sizes, config)[0]
    least = float(everything.scores[8])
    few = detect(model, output, sizes, sizes, config, wanted=Wanted(score=least))[0]
    assert len(few.scores) == 9
    torch.testing.assert_close(few.scores, everything.scores[:9])


def test_boxes_are_scaled_to_the_original(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    plain = detect(model, output, sizes, sizes, PostprocessConfig())[0]
    scaled = detect(model, output, sizes, torch.tensor([[128, 32], [128, 32]]), PostprocessConfig())[0]
    torch.testing.assert_close(scaled.boxes, plain.boxes * torch.tensor([0.5, 2, 0.5, 2]))
    assert scaled.size == (128, 32)


def test_pairs_of_query_and_class_in_the_order_of_their_scores(looked: tuple[QueryInst, Output, torch.Tensor]):
    """Two images of sizes of their own, three queries each, two classes: every number of the first four pairs."""
    model, output, _ = looked
    stage = output.stages[-1]
    stage.logits[:] = -9.0
    for place, logit in {(0, 4, 1): 3.0, (0, 4, 0): 1.0, (0, 0, 2): 2.0, (0, 5, 1): 0.0}.items():
        stage.logits[place] = logit
    stage.logits[1, :4, 2] = torch.tensor([-1.0, 4, -3, -2])
    stage.boxes[0] = torch.arange(6)[:, None] + torch.tensor([0.0, 8, 20, 40])
    stage.boxes[1] = torch.arange(6)[:, None] + torch.tensor([-9.0, 0, 60, 50])
    sizes, originals = torch.tensor([[64, 32], [48, 64]]), torch.tensor([[32, 64], [96, 32]])
    config = PostprocessConfig(max_detections=4, clip_boxes=True)
    first, second = detect(model, output, sizes, originals, config)
    assert [first.size, second.size] == [(32, 64), (96, 32)]
    assert [first.queries.tolist(), second.queries.tolist()] == [[4, 0, 4, 5], [1, 0, 3, 2]]
    assert [first.labels.tolist(), second.labels.tolist()] == [[1, 2, 0, 1], [2, 2, 2, 2]]
    torch.testing.assert_close(first.scores, torch.tensor([3.0, 2, 1, 0]).sigmoid())
    torch.testing.assert_close(second.scores, torch.tensor([4.0, -1, -2, -3]).sigmoid())
    assert first.boxes.tolist() == [[8, 6, 48, 22], [0, 4, 40, 20], [8, 6, 48, 22], [10, 6.5, 50, 22.5]]
    assert second.boxes.tolist() == [[0, 2, 30.5, 96], [0, 0, 30, 96], [0, 6, 31.5, 96], [0, 4, 31, 96]]
    for image, found in enumerate((first, second)):
        rows = Rows(torch.full((4,), image), found.queries, found.labels)
        torch.testing.assert_close(found.masks, model.predict_masks(output, {1: rows})[1].sigmoid())


def test_a_score_that_is_not_a_number_is_kept(looked: tuple[QueryInst, Output, torch.Tensor]):
    """Whoever evaluates names it; were it left out, a broken network would pass for one that finds nothing."""
    model, output, sizes = looked
    output.stages[-1].logits[0] = -200.0  # a score of zero, which counts as well
    output.stages[-1].logits[0, 2, 1] = torch.nan
    first = detect(model, output, sizes, sizes, PostprocessConfig(max_detections=3))[0]
    assert first.scores.nan_to_num(9).tolist() == [9, 0, 0]
    assert (first.queries[0], first.labels[0]) == (2, 1)


def test_a_box_is_above_the_least_side_or_dropped(looked: tuple[QueryInst, Output, torch.Tensor]):
    """Width and height both, in pixels of the original image, after clipping; equal is not above."""
    model, output, sizes = looked
    side, more = 2.0, 2.0000005
    sides = torch.tensor([[side, 9], [9, side], [more, 9], [9, more], [side, side], [9, 9]])
    output.stages[-1].boxes[:] = torch.cat([torch.zeros(6, 2), sides], dim=1) / 2
    output.stages[-1].boxes[1, 5] = torch.tensor([-8.0, 0, 1, 9])  # large outside the image, and of the side inside
    config = PostprocessConfig(max_detections=18, clip_boxes=True, min_side=side)
    found = detect(model, output, sizes, 2 * sizes, config)
    assert [sorted(set(one.queries.tolist())) for one in found] == [[2, 3, 5], [2, 3]]
    assert [len(column) for one in found for column in (one.boxes, one.scores, one.labels, one.masks)] == 4 * [
        9
    ] + 4 * [6]
    everything = detect(model, output, sizes, 2 * sizes, PostprocessConfig(max_detections=18))
    assert [len(one.boxes) for one in everything] == [18, 18]


def test_boxes_are_clipped_where_it_is_asked_for(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    output.stages[-1].boxes[:] = torch.tensor([-30.0, 10, 70, 30])
    for clip, box in ((True, [0, 10, 64, 30]), (False, [-30, 10, 70, 30])):
        found = detect(model, output, sizes, sizes, PostprocessConfig(clip_boxes=clip))
        assert [one.boxes.unique(dim=0).tolist() for one in found] == [[box], [box]]


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (Wanted(), [[0.5, 0.25, 0], [0.75, 0.75, 0.5]]),
        (Wanted(score=0.5), [[0.5, -1, -1], [0.75, 0.75, 0.5]]),
        (Wanted(labels=[2, 0]), [[0.5, -1, 0], [0.75, -1, 0.5]]),
        (Wanted(labels=[]), [[-1, -1, -1], [-1, -1, -1]]),
        (Wanted(one_class=True), [[0.5, -1, -1], [0.75, 0.75, -1]]),
        (Wanted(score=0.6, labels=[1, 2], one_class=True), [[-1, -1, -1], [-1, 0.75, -1]]),
        (Wanted(score=0.6, one_class=True), [[-1, -1, -1], [0.75, 0.75, -1]]),
        (Wanted(labels=[1], one_class=True), [[-1, -1, -1], [-1, 0.75, -1]]),
    ],
)
def test_what_is_not_wanted_does_not_count(wanted: Wanted, left: list[list[float]]):
    """A score that is equal counts; the best class of a query is the best of all, wanted or not."""
    assert wanted.of(torch.tensor([[[0.5, 0.25, 0], [0.75, 0.75, 0.5]]])).tolist() == [left]


def test_what_is_wanted_is_known_where_the_scores_are():
    """On a device that has shapes and no numbers: one that mixes it with another would fail."""
    assert Wanted(0.5, [1], one_class=True).of(torch.zeros(1, 2, 3, device="meta")).device.type == "meta"


def test_what_is_not_wanted_leaves_its_place_to_others(looked: tuple[QueryInst, Output, torch.Tensor]):
    model, output, sizes = looked
    of_one = detect(model, output, sizes, sizes, PostprocessConfig(max_detections=4), wanted=Wanted(labels=[1]))
    for image, found in enumerate(of_one):
        best = output.stages[-1].logits[image, :, 1].sigmoid().sort(descending=True)
        assert found.labels.tolist() == [1] * 4
        assert found.queries.tolist() == best.indices[:4].tolist()
        torch.testing.assert_close(found.scores, best.values[:4])
    least = of_one[0].scores[1].item()
    for config in (PostprocessConfig(max_detections=18), PostprocessConfig(max_detections=18, min_side=1e-3)):
        few = detect(model, output, sizes, sizes, config, wanted=Wanted(least, [1]))[0]
        assert len(few.scores) == 2, "and none to what was left out"


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
