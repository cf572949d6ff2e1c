"""Guesses how good a mask is: what they are made of, what they learn, and what they do to scores."""

from dataclasses import replace

import pytest
import torch
from conftest import random_batch, small_model
from test_deploy import with_statistics
from torch import Tensor

from queryinst.config import PostprocessConfig
from queryinst.criterion import losses
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.models.deploy import deploy
from queryinst.models.exportable import Exportable
from queryinst.models.mask_quality import MaskQuality
from queryinst.models.packed import pack
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.structures import UNKNOWN, Detections


def found(model: QueryInst, mask_score: float = 0.0) -> list[Detections]:
    batch = random_batch([1, 1])
    config = PostprocessConfig(mask_score=mask_score)
    with torch.inference_mode():
        output = model(batch.images, batch.sizes)
        return detect(model, output, batch.sizes, batch.original_sizes, config)


def judging() -> QueryInst:
    """A network whose guesses differ."""
    torch.manual_seed(0)
    model = with_statistics(small_model(mask_quality=True))
    for stage in model.stages:
        assert stage.mask.quality
        torch.nn.init.normal_(stage.mask.quality.fc2.weight, std=3.0)
    return model


def test_a_guess_spelled_out():
    """Features inside the mask, features everywhere, and the mean probability, each pixel by how much it is inside."""
    head, features, logits = MaskQuality(3), torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4)
    for guess, feature, logit in zip(head(features, logits), features, logits, strict=True):
        p = logit.sigmoid()
        read = torch.cat([(feature * p).sum((1, 2)) / p.sum(), feature.mean((1, 2)), (p * p).sum()[None] / p.sum()])
        torch.testing.assert_close(guess, head.fc2(head.fc1(read).relu())[0])


def test_masks_of_the_same_features_are_judged_each_for_itself():
    head, features, logits = MaskQuality(3), torch.randn(2, 3, 4, 4), torch.randn(3, 4, 4)
    which = torch.tensor([1, 0, 1])
    torch.testing.assert_close(head(features, logits, which), head(features[which], logits))
    assert head(features[:0], logits[:0]).shape == (0,)


def test_masks_do_not_learn_from_guesses_and_features_do():
    head = MaskQuality(3)
    features, logits = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 4, 4, requires_grad=True)
    head(features, logits).sum().backward()
    assert logits.grad is None
    assert features.grad is not None
    assert features.grad.any()


@pytest.mark.parametrize("target", ["one", "box", "mask"])
def test_the_error_of_guesses_is_part_of_the_mask_loss(target: str):
    """(guess - IoU)^2, of objects whose masks are known; all other losses are as without."""
    model, batch = judging(), random_batch([2, 1])
    masks = batch.targets.masks.clone()
    masks[1] = UNKNOWN
    batch = replace(batch, targets=replace(batch.targets, masks=masks))
    output = model(batch.images, batch.sizes)
    criterion = Criterion(CriterionConfig(mask_quality_weight=3.0, class_target=target))
    matches = criterion.match(output.stages, batch.targets, batch.sizes)
    drawn = model.draw(output, dict(enumerate(matches.rows(batch.targets.labels))))
    logits, guesses = [one.logits for one in drawn.values()], [one.quality for one in drawn.values()]
    arguments = (output.stages, logits, matches, batch.targets, batch.sizes)
    without, found = criterion(*arguments), criterion(*arguments, (), guesses)
    stage = torch.arange(2)[:, None]
    boxes = torch.stack([one.boxes for one in output.stages])[stage, matches.image, matches.query]
    canvases = ((batch.sizes + 31) // 32 * 32)[matches.image].repeat(2, 1)
    place = (boxes.flatten(0, 1), matches.target.flatten(), batch.targets, canvases)
    wanted = losses.mask_targets(*place, 28, 2).view(2, -1, 28, 28)
    fit = losses.mask_iou(torch.stack(logits), wanted, boxes, matches.target, batch.targets)
    error: Tensor = (torch.stack([guess.sigmoid() for guess in guesses]) - fit).square() * (matches.target != 1)
    expected = without.clone()
    expected[:, 3] += 3 * error.sum(1) / 3
    torch.testing.assert_close(found, expected)


def test_scores_are_multiplied_by_the_guess():
    model = judging()
    model.judges_masks = False
    plain = found(model)
    model.judges_masks = True
    for ours, theirs in zip(found(model), plain, strict=True):
        assert (ours.scores[:-1] >= ours.scores[1:]).all()
        key = {(query, label): score for query, label, score in zip(*_columns(theirs), strict=True)}
        factors = [score / key[query, label] for query, label, score in zip(*_columns(ours), strict=True)]
        assert all(0 < factor < 1 for factor in factors)
        assert max(factors) > 1.2 * min(factors)


def _columns(one: Detections) -> tuple[list[int], list[int], list[float]]:
    assert one.queries is not None
    return one.queries.tolist(), one.labels.tolist(), one.scores.tolist()


@pytest.mark.parametrize("mask_score", [0.0, 1.0])
def test_deployed_and_exported_networks_judge_alike(mask_score: float):
    model, batch = judging(), random_batch([1, 1])
    plain = found(model, mask_score)
    for other in (deploy(model), pack(deploy(model))):
        for ours, theirs in zip(found(other, mask_score), plain, strict=True):
            torch.testing.assert_close(ours.scores, theirs.scores, rtol=1e-3, atol=1e-5)
    exportable = Exportable(model, PostprocessConfig(mask_score=mask_score)).eval()
    with torch.inference_mode():
        _, scores, labels, _ = exportable(batch.images, batch.sizes)
    for ours, kinds, theirs in zip(scores, labels, plain, strict=True):
        torch.testing.assert_close(ours, theirs.scores, rtol=1e-3, atol=1e-5)
        assert kinds.tolist() == theirs.labels.tolist()


def test_without_the_setting_there_is_no_such_head():
    assert not [name for name in small_model().state_dict() if "quality" in name]
