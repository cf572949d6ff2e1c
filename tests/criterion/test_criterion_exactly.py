"""Matching costs and losses against formulas that are spelled out, number by number; also under bfloat16's autocast."""

import math
from dataclasses import replace

import pytest
import torch
from conftest import random_batch, random_targets, small_model
from test_association import slowly
from torch import Tensor
from torchvision.ops import roi_align

from queryinst.criterion.criterion import Criterion
from queryinst.criterion.matcher import Matcher
from queryinst.criterion_config import CriterionConfig
from queryinst.ops import boxes as box_ops
from queryinst.ops import ranks
from queryinst.structures import Matches, StageOutput, Targets
from queryinst.video_config import AssociationConfig

# Every value is unlike the others and unlike its default.
ODD = CriterionConfig(
    class_weight=1.5,
    l1_weight=7.0,
    giou_weight=3.0,
    mask_weight=11.0,
    association_weight=1.7,
    association_loss="cross_entropy",
    class_cost=1.3,
    l1_cost=6.0,
    giou_cost=2.4,
    focal_alpha=0.3,
    focal_gamma=1.6,
    mask_samples=1,
)
SIZES = torch.tensor([[64, 33], [33, 96]])  # height, width: one side fills its canvas, another is a pixel too long
COUNTS = [3, 1]
EXTREME = (-200.0, 100.0)  # logits whose probability is 0 and 1 in float32: the logarithm must stay finite


def made() -> tuple[list[StageOutput], Targets]:
    """Two stages of five queries, with boxes that reach beyond the image and beyond its canvas."""
    stages = []
    for _ in range(2):
        logits = 2 * torch.randn(2, 5, 3)
        logits[0, :2, 0] = torch.tensor(EXTREME)
        low = torch.rand(2, 5, 2) * 50 - 15
        boxes = torch.cat([low, low + 3 + torch.rand(2, 5, 2) * 90], -1)
        unused = torch.zeros(2, 5, 1)
        stages.append(StageOutput(logits, boxes, unused, unused))
    return stages, replace(random_targets(COUNTS, 96, 96), labels=torch.tensor([0, 2, 1, 0]))


def plain_giou(a: list[float], b: list[float]) -> float:
    """Intersection over union, minus the part of the enclosing box that is in neither."""

    def area(left: float, top: float, right: float, bottom: float) -> float:
        return max(right - left, 0) * max(bottom - top, 0)

    both = area(*map(max, a[:2], b[:2]), *map(min, a[2:], b[2:]))
    union = area(*a) + area(*b) - both
    hull = area(*map(min, a[:2], b[:2]), *map(max, a[2:], b[2:]))
    return both / union - (hull - union) / hull


def plain_l1(a: list[float], b: list[float], size: list[int]) -> float:
    """Differences of the four coordinates, those along x over the width, those along y over the height."""
    return sum(abs(x - y) / size[1 - i % 2] for i, (x, y) in enumerate(zip(a, b, strict=True)))


def probability(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def plain_cost(logit: float, box: list[float], truth: list[float], size: list[int], config: CriterionConfig) -> float:
    p = probability(logit)
    found = -math.log(p + 1e-12) * (1 - p) ** config.focal_gamma * config.focal_alpha
    missed = -math.log(1 - p + 1e-12) * p**config.focal_gamma * (1 - config.focal_alpha)
    classes = config.class_cost * (found - missed)
    return classes + config.l1_cost * plain_l1(box, truth, size) - config.giou_cost * plain_giou(box, truth)


def require_costs(stages: list[StageOutput], targets: Targets, sizes: Tensor, config: CriterionConfig) -> None:
    """Every cost of a query and a ground truth of its own image is the spelled-out one."""
    costs = Matcher(config).costs(stages, targets, sizes)
    for number, stage in enumerate(stages):
        first = 0
        for image, count in enumerate(targets.counts):
            for column in range(count):
                label, truth = targets.labels[first + column], targets.boxes[first + column].tolist()
                expected = [
                    plain_cost(logits[label].item(), box.tolist(), truth, sizes[image].tolist(), config)
                    for logits, box in zip(stage.logits[image], stage.boxes[image], strict=True)
                ]
                found = costs[number, image, :, column]
                torch.testing.assert_close(found, torch.tensor(expected), rtol=2e-5, atol=2e-5)
            first += count


def plain_losses(
    stage: StageOutput,
    masks: Tensor,
    matches: Matches,
    number: int,
    targets: Targets,
    sizes: Tensor,
    c: CriterionConfig,
) -> list[float]:
    """The weighted sums of one stage: class, L1, generalized IoU, mask."""
    columns = (matches.image, matches.query[number], matches.target[number])
    pairs = list(zip(*(column.tolist() for column in columns), strict=True))
    wanted = {(image, query, int(targets.labels[target])) for image, query, target in pairs}
    focal = l1 = giou = dice = 0.0
    for place in torch.cartesian_prod(*map(torch.arange, stage.logits.shape)).tolist():
        logit, alpha = stage.logits[*place].item(), c.focal_alpha
        if tuple(place) not in wanted:
            logit, alpha = -logit, 1 - alpha
        miss = probability(-logit)
        focal += alpha * miss**c.focal_gamma * (-logit if miss == 1 else -math.log1p(-miss))
    for row, (image, query, target) in enumerate(pairs):
        box, truth = stage.boxes[image, query].tolist(), targets.boxes[target].tolist()
        l1 += plain_l1(box, truth, sizes[image].tolist())
        giou += 1 - plain_giou(box, truth)
        height, width = (math.ceil(side / 32) * 32 for side in sizes[image].tolist())
        clipped = [min(max(value, 0.0), limit) for value, limit in zip(box, [width, height] * 2, strict=True)]
        bitmap, region = targets.masks[target][None, None].float(), torch.tensor([[0.0, *clipped]])
        truth_mask = roi_align(bitmap, region, masks.shape[-1], 1.0, c.mask_samples, aligned=True)[0, 0] >= 0.5
        p, t = masks[row].double().sigmoid(), truth_mask.double()
        dice += (1 - 2 * (p * t).sum() / ((p * p).sum() + t.sum() + 2e-5)).item()
    return [c.class_weight * focal, c.l1_weight * l1, c.giou_weight * giou, c.mask_weight * dice]


def require_losses(
    found: Tensor,
    stages: list[StageOutput],
    masks: list[Tensor],
    matches: Matches,
    targets: Targets,
    sizes: Tensor,
    config: CriterionConfig,
) -> None:
    """Every loss but that of association is the spelled-out one."""
    expected = [
        plain_losses(stage, of_stage, matches, number, targets, sizes, config)
        for number, (stage, of_stage) in enumerate(zip(stages, masks, strict=True))
    ]
    expected = torch.tensor(expected) / len(matches.image)
    torch.testing.assert_close(found[:, :4], expected, rtol=2e-5, atol=1e-6)


def test_costs_are_their_formula():
    require_costs(*made(), SIZES, ODD)


def test_the_default_costs_of_three_queries_and_one_object():
    """The very box and sure of it; the box beside it; and the very box, sure of another class."""
    truth = [10.0, 20.0, 20.0, 60.0]
    boxes = torch.tensor([[truth, [20.0, 20.0, 30.0, 60.0], truth]])
    logits = torch.tensor([[[100.0, 0.0], [0.0, 0.0], [-200.0, 100.0]]])
    unused = torch.zeros(1, 3, 1)
    targets = replace(random_targets([1]), boxes=torch.tensor([truth]), labels=torch.tensor([0]))
    costs = Matcher(CriterionConfig()).costs(
        [StageOutput(logits, boxes, unused, unused)], targets, torch.tensor([[100, 50]])
    )
    certain = -math.log(1e-12)
    half = (0.25 - 0.75) * 0.25 * math.log(2)
    expected = [2 * 0.75 * -certain - 2, 2 * half + 5 * (10 / 50 + 10 / 50) + 0, 2 * 0.25 * certain - 2]
    assert costs.flatten().tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("samples", [0, 1, 3])
def test_losses_are_their_formulas(samples: int):
    config, (stages, targets) = replace(ODD, mask_samples=samples), made()
    query, target = [[3, 0, 4, 2], [1, 3, 2, 4]], [[1, 0, 2, 3], [2, 1, 0, 3]]
    matches = Matches(torch.tensor([0, 0, 0, 1]), torch.tensor(query), torch.tensor(target))
    masks = list(torch.randn(2, 4, 6, 6))
    found = Criterion(config)(stages, masks, matches, targets, SIZES)
    assert found.shape == (2, 4)
    require_losses(found, stages, masks, matches, targets, SIZES, config)


def test_the_association_loss_is_the_configured_one_with_its_weight_over_the_pairs():
    stages, targets = made()
    targets = replace(targets, tracks=torch.tensor([7, 8, 9, 8]))
    matches = Matches(torch.tensor([0, 0, 0, 1]), torch.tensor([[3, 0, 4, 2]] * 2), torch.tensor([[1, 0, 2, 3]] * 2))
    masks, embeddings = list(torch.randn(2, 4, 6, 6)), torch.randn(2, 4, 5)
    tracks = targets.tracks[matches.target]
    for kind in ("cross_entropy", "contrastive_focal"):
        criterion = Criterion(replace(ODD, association_loss=kind))
        losses = criterion(stages, masks, matches, targets, SIZES, list(embeddings))
        expected = torch.tensor(slowly(embeddings, matches.image, tracks, kind)) * 1.7 / 4
        torch.testing.assert_close(losses[:, 4], expected)
    images = replace(targets, tracks=None)
    with pytest.raises(AssertionError, match="^association learns from pairs of frames$"):
        Criterion(ODD)(stages, masks, matches, images, SIZES, list(embeddings))


@pytest.mark.parametrize("pairs", [0, 1, 2])
def test_sums_are_divided_by_the_pairs_but_not_by_less_than_one(pairs: int, monkeypatch: pytest.MonkeyPatch):
    """Over four processes, of which the others have no pair, by a quarter of that: the gradients' mean is over four."""
    stages, targets = made()
    both = torch.arange(pairs).expand(2, -1)
    matches = Matches(torch.zeros(pairs, dtype=torch.int64), both, both)
    masks = list(torch.randn(2, pairs, 6, 6))
    losses = Criterion(ODD)(stages, masks, matches, targets, SIZES)
    expected = [
        plain_losses(s, m, matches, i, targets, SIZES, ODD) for i, (s, m) in enumerate(zip(stages, masks, strict=True))
    ]
    torch.testing.assert_close(losses, torch.tensor(expected) / max(pairs, 1), rtol=2e-5, atol=1e-6)
    monkeypatch.setattr(ranks, "count", lambda: 4)
    monkeypatch.setattr(ranks, "mean", lambda values: values / 4)
    torch.testing.assert_close(Criterion(ODD)(stages, masks, matches, targets, SIZES), 4 * losses)


def test_bfloat16_keeps_boxes_costs_and_losses_in_float32():
    """As Lightning's bf16-mixed does it: all of the step inside autocast. Nothing but the network is rounded."""
    model, batch, criterion = small_model(association=AssociationConfig(width=8)), random_batch([3, 2]), Criterion(ODD)
    batch = replace(batch, targets=replace(batch.targets, tracks=torch.tensor([0, 1, 2, 2, 0])))
    deltas: list[Tensor] = []
    for stage in model.stages:
        stage.box.reg.register_forward_hook(lambda _, __, out: deltas.append(out))
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch.images, batch.sizes)
        matches = criterion.match(output.stages, batch.targets, batch.sizes)
        rows = dict(enumerate(matches.rows(batch.targets.labels)))
        masks = list(model.predict_masks(output, rows).values())
        embeddings = list(model.embed(output, rows).values())
        losses = criterion(output.stages, masks, matches, batch.targets, batch.sizes, embeddings)
        require_costs(output.stages, batch.targets, batch.sizes, ODD)
    for narrow in (output.stages[0].logits, deltas[0], embeddings[0]):
        assert narrow.dtype == torch.bfloat16, "the network itself is narrow"
    start = box_ops.cxcywh_to_xyxy(model.queries.boxes.double()) * 64
    for stage, delta in zip(output.stages, deltas, strict=True):
        torch.testing.assert_close(stage.boxes, box_ops.refine(start, delta.double()).float())
        start = stage.boxes.double()
    require_losses(losses, output.stages, masks, matches, batch.targets, batch.sizes, ODD)
    tracks = batch.targets.tracks[matches.target]
    told = slowly(torch.stack(embeddings), matches.image, tracks, ODD.association_loss)
    torch.testing.assert_close(losses[:, 4], torch.tensor(told) * 1.7 / 5, rtol=1e-5, atol=1e-6)
    losses.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
