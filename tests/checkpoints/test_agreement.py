"""How an exported file's detections are compared with the network's: exact differences of made-up detections."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import small_model
from torch import Tensor

from queryinst.checkpoints import agreement
from queryinst.checkpoints.agreement import Difference, compare
from queryinst.config import PostprocessConfig
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Detections

CONFIG = PostprocessConfig(max_detections=3, clip_boxes=True, min_side=7.0)


def found(scores: Sequence[float], labels: Sequence[int] = (0, 1, 0, 2)) -> Detections:
    """Detections that lie far apart."""
    number = len(scores)
    corner = 10.0 * torch.arange(number)[:, None]
    masks = torch.arange(number)[:, None, None] / 8 + torch.zeros(number, 2, 2)
    labels = torch.tensor(labels[:number])
    return Detections(
        torch.cat([corner, corner + 5, corner + 7, corner + 9], 1), torch.tensor(scores), labels, masks, (1, 1)
    )


def answer(*images: Detections) -> list[Tensor]:
    """The same as a file gives them: boxes, scores, labels and masks, each of all images."""
    return [torch.stack([getattr(one, name) for one in images]) for name in ("boxes", "scores", "labels", "masks")]


def differences(
    patch: pytest.MonkeyPatch, ours: list[Detections], theirs: list[Tensor], height: int = 50, width: int = 100
) -> list[float]:
    patch.setattr(agreement, "detect", lambda *_: ours)
    images, sizes = torch.zeros(len(ours), 3, height, width), torch.zeros(len(ours), 2, dtype=torch.int64)
    return agreement._compare(lambda *_: None, CONFIG, lambda *_: theirs, images, sizes).tolist()


def changed(number: int, place: tuple[int, ...], value: float) -> list[Tensor]:
    """An answer of which one value is another: `number` 0 are boxes, 1 scores, 2 labels, 3 masks."""
    values = answer(found([0.9, 0.5, 0.3]))
    values[number][place] = value
    return values


@pytest.mark.parametrize(
    ("number", "place", "value", "expected"),
    [
        (0, (0, 0, 0), 0.0, [0, 0, 0]),
        (1, (0, 1), 0.53, [0.03, 0, 0]),
        (1, (0, 1), 0.47, [0.03, 0, 0]),
        (0, (0, 1, 3), 22.0, [0, 3 / 100, 0]),
        (0, (0, 2, 0), 18.0, [0, 2 / 100, 0]),
        (3, (0, 2, 1, 0), 0.0, [0, 0, 0.25]),
        (2, (0, 1), 2, [torch.inf] * 3),
    ],
    ids=["same", "score above", "below", "box right", "left", "mask", "label"],
)
def test_the_largest_difference_of_each_kind(
    monkeypatch: pytest.MonkeyPatch, number: int, place: tuple[int, ...], value: float, expected: list[float]
):
    ours, theirs = [found([0.9, 0.5, 0.3])], changed(number, place, value)
    assert differences(monkeypatch, ours, theirs) == pytest.approx(expected, abs=1e-6)
    if not number:
        longer = [3 * part if part < 1 else part for part in expected]
        assert differences(monkeypatch, ours, theirs, 300, 30) == pytest.approx([part / 9 for part in longer], abs=1e-6)


@pytest.mark.parametrize(("kind", "number", "place"), [(0, 1, (0, 0)), (1, 0, (0, 0, 2)), (2, 3, (0, 0, 0, 0))])
def test_nan_is_infinitely_far(monkeypatch: pytest.MonkeyPatch, kind: int, number: int, place: tuple[int, ...]):
    worst = differences(monkeypatch, [found([0.9, 0.5, 0.3])], changed(number, place, torch.nan))
    assert worst[kind] == torch.inf


def test_the_order_does_not_matter(monkeypatch: pytest.MonkeyPatch):
    turned = [values.flip(1) for values in answer(found([0.9, 0.5, 0.3]))]
    assert differences(monkeypatch, [found([0.9, 0.5, 0.3])], turned) == [0, 0, 0]


def test_the_worst_of_all_images_counts(monkeypatch: pytest.MonkeyPatch):
    good, bad = found([0.9, 0.5, 0.3]), found([0.9, 0.6, 0.3])
    assert differences(monkeypatch, [good, good], answer(good, bad)) == pytest.approx([0.1, 0, 0])
    assert differences(monkeypatch, [good, good], answer(bad, good)) == pytest.approx([0.1, 0, 0])


def test_what_the_file_makes_up_or_leaves_out_counts(monkeypatch: pytest.MonkeyPatch):
    """A detection has its like in its own class: here one 0.6 of score, 20 pixels and 0.25 of mask away."""
    three = found([0.9, 0.5, 0.3])
    without, again = three.take(torch.tensor([1, 1, 2])), three.take(torch.tensor([1, 2, 2]))
    assert differences(monkeypatch, [three], answer(without)) == pytest.approx([0.6, 0.2, 0.25])
    assert differences(monkeypatch, [again], answer(three)) == pytest.approx([0.6, 0.2, 0.25])


def test_a_detection_that_scores_like_the_last_one_may_be_beyond_it(monkeypatch: pytest.MonkeyPatch):
    """Which of equal scores is the last is rounding; more than that is not."""
    theirs = answer(found([0.9, 0.5, 0.3]))
    assert differences(monkeypatch, [found([0.9, 0.5, 0.3, 0.30005])], theirs) == [0, 0, 0]
    assert differences(monkeypatch, [found([0.9, 0.5, 0.3, 0.3002])], theirs) == [torch.inf] * 3
    assert differences(monkeypatch, [found([0.9, 0.5, 0.3, 0.2])], theirs) == [0, 0, 0]


def test_who_is_kept_is_decided_before_masks_count():
    """0.9 x 0.5 comes after what was left out, 0.4 x 0.9; and an empty mask has no score of its class to tell."""
    masks = torch.stack([torch.full((2, 2), value) for value in (1.0, 0.5, 0.9, 0.2)])
    scores = torch.tensor([0.7, 0.45, 0.36, 0.0])
    of_class = agreement._class_scores(scores, masks, 1.0, torch.inf)
    torch.testing.assert_close(of_class, torch.tensor([0.7, 0.9, 0.4, torch.inf]))
    torch.testing.assert_close(agreement._class_scores(scores, masks, 0.0, torch.inf), scores)


def lively() -> QueryInst:
    model = small_model().eval()
    for stage in model.stages:
        torch.nn.init.normal_(stage.box.cls.weight, std=0.5)
        torch.nn.init.normal_(stage.mask.logits.weight, std=5.0)
    return model


def test_the_network_agrees_with_itself_and_sees_what_the_file_sees():
    """Zeros are the whole canvas, padded on the right and below to a multiple of 32; boxes are not rescaled."""
    model, images = lively(), torch.randint(256, (2, 3, 70, 40)).to(torch.uint8)
    canvas = torch.zeros(2, 3, 96, 64, dtype=torch.uint8)
    canvas[..., :70, :40] = images
    sizes = torch.tensor([[70, 40], [50, 33]])

    def run(seen: Tensor, told: Tensor) -> list[Tensor]:
        assert torch.equal(seen, images)
        assert told.tolist() == [[0, 0], [50, 33]]
        config = replace(CONFIG, max_detections=4, min_side=0)
        with torch.no_grad():
            return answer(*detect(model, model(canvas, sizes), sizes, sizes, config))

    config = replace(CONFIG, min_side=0)
    with torch.no_grad():
        worst = agreement._compare(model, config, run, images, torch.tensor([[0, 0], [50, 33]]))
    assert worst.tolist() == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("wrong", [(1, 256, 320), (2, 256, 320), (1, 300, 236), (2, 300, 236)])
def test_every_canvas_and_batch_counts(monkeypatch: pytest.MonkeyPatch, wrong: tuple[int, int, int]):
    """The network finds as many as the file and 50 more, and small boxes too, which a graph cannot leave out."""
    good, bad = found([0.9, 0.5, 0.3]), found([0.9, 0.5, 0.4])
    configs, asked = [], []

    def detected(*arguments: Any) -> list[Detections]:
        _, _, sizes, _, config = arguments
        configs.append(config)
        return [good] * len(sizes)

    def run(images: Tensor, sizes: Tensor) -> list[Tensor]:
        asked.append((len(images), *images.shape[2:]))
        return answer(*[bad if asked[-1] == wrong else good] * len(images))

    monkeypatch.setattr(agreement, "detect", detected)
    difference = compare(lambda *_: None, CONFIG, run)  # type: ignore[arg-type]
    assert difference == pytest.approx((0.1, 0, 0))
    assert sorted(asked) == [(1, 256, 320), (1, 300, 236), (2, 256, 320), (2, 300, 236)]
    assert configs == [PostprocessConfig(max_detections=53, clip_boxes=True, min_side=0)] * 4


def test_images_are_the_same_every_time(monkeypatch: pytest.MonkeyPatch):
    good, seen = found([0.9, 0.5, 0.3]), []
    monkeypatch.setattr(agreement, "detect", lambda *arguments: [good] * len(arguments[2]))

    def run(images: Tensor, sizes: Tensor) -> list[Tensor]:
        seen.append(images)
        return answer(*[good] * len(images))

    for seed in (1, 2):
        torch.manual_seed(seed)
        compare(lambda *_: None, CONFIG, run)  # type: ignore[arg-type]
    assert all(torch.equal(one, other) for one, other in zip(seen[:4], seen[4:], strict=True))


def test_images_are_smooth_and_unlike_and_sizes_become_smaller():
    images, sizes = agreement._images(3, 96, 160, torch.Generator().manual_seed(0))
    assert (images.shape, images.dtype) == ((3, 3, 96, 160), torch.uint8)
    assert sizes.tolist() == [[0, 0], [56, 136], [16, 112]]
    wide = images.int()
    for axis in (2, 3):
        assert 12 <= wide.diff(dim=axis).abs().max() <= 17, "from one extreme to the other in 16 pixels"
    assert wide.amin() <= 3
    assert wide.amax() >= 252
    cells = torch.randint(256, (3, 3, 6, 10), generator=torch.Generator().manual_seed(0)).float()
    assert torch.equal(images, torch.nn.functional.interpolate(cells, (96, 160), mode="bilinear").to(torch.uint8))


def test_a_difference_is_small_up_to_a_ten_thousandth():
    assert Difference(1e-4, 1e-4, 1e-4).small
    for place in range(3):
        for value in (1.01e-4, torch.nan, torch.inf):
            assert not Difference(*(value if place == i else 0.0 for i in range(3))).small
    said = str(Difference(0.00123, 0.0, 0.25))
    assert said == "scores 1.2e-03, boxes 0.0e+00 of the longer side, masks 2.5e-01"
