"""Matching stability: the share of objects whose query changes, by stage and by evaluation, also over a resume."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_batch, small_model

from queryinst.criterion.matcher import Matcher
from queryinst.criterion_config import CriterionConfig
from queryinst.lightning.callbacks.matching_stability import MatchingStability, by_image, changes
from queryinst.structures import Matches, StageOutput


def test_queries_of_the_objects_of_each_image():
    """Two images with 3 and 1 objects, two stages, and one object of the first image that no query is left for."""
    matches = Matches(
        image=torch.tensor([0, 0, 1]),
        query=torch.tensor([[4, 5, 4], [1, 2, 0]]),
        target=torch.tensor([[2, 0, 3], [0, 1, 3]]),
    )
    first, second = by_image(matches, [3, 1])
    assert first.tolist() == [[5, -1, 4], [1, 2, -1]]
    assert second.tolist() == [[4], [0]]
    assert [part.shape for part in by_image(matches, [4, 0])] == [(2, 4), (2, 0)]


def test_shares():
    now = {1: torch.tensor([[0, 1], [0, 2], [0, 2]]), 2: torch.tensor([[3, -1], [4, -1], [4, 5]])}
    assert changes(now, {}) == {"val/query_change/stage_2": 0.5, "val/query_change/stage_3": 0.25}
    before = {2: torch.tensor([[9, 9], [9, 9], [4, 6]])}
    assert changes(now, before)["val/query_change/evaluation"] == 0.5, "of the images that both have"
    assert changes(now, now)["val/query_change/evaluation"] == 0
    assert changes({}, {}) == {}
    assert changes({1: torch.zeros(3, 0)}, {1: torch.zeros(3, 0)}) == {}, "no objects"


def evaluate(callback: Any, seeds: dict[int, int], fn: str = "fit") -> dict[str, float]:
    """An evaluation of two images by a network whose weights are drawn from a seed; what is logged."""
    logged: dict[str, float] = {}
    trainer = SimpleNamespace(state=SimpleNamespace(fn=fn), global_step=10)
    conductor = SimpleNamespace(stages=[], log_dict=logged.update)
    callback.on_validation_epoch_start(trainer, conductor)
    for image_id, seed in seeds.items():
        torch.manual_seed(seed)
        batch = random_batch([3], seed=image_id)
        batch.image_ids[:] = [image_id]
        with torch.no_grad():
            conductor.stages = small_model().eval()(batch.images, batch.sizes).stages
        callback.on_validation_batch_end(trainer, conductor, None, batch, 0)
    callback.on_validation_epoch_end(trainer, conductor)
    return logged


def test_from_evaluation_to_evaluation_and_over_a_resume():
    matcher = Matcher(CriterionConfig())
    callback = MatchingStability(matcher, [1, 2])
    assert evaluate(callback, {1: 0, 2: 0}).keys() == {"val/query_change/stage_2"}
    resumed = MatchingStability(matcher, [1, 2])
    resumed.load_state_dict(callback.state_dict())
    second = evaluate(callback, {1: 7, 2: 7})
    assert second == evaluate(resumed, {1: 7, 2: 7})
    assert second["val/query_change/evaluation"] > 0
    assert evaluate(callback, {1: 7, 2: 7})["val/query_change/evaluation"] == 0
    assert evaluate(callback, {1: 5, 2: 5}, fn="validate") == {}
    assert evaluate(callback, {1: 7, 2: 7})["val/query_change/evaluation"] == 0, "that one did not count"


def test_other_images_are_not_matched():
    callback = MatchingStability(lambda *_: pytest.fail("matched"), [3])  # type: ignore[arg-type]
    assert evaluate(callback, {1: 0}) == {}


def test_a_broken_network_is_left_to_the_module():
    callback: Any = MatchingStability(Matcher(CriterionConfig()), [0])
    nan = torch.full((1, 6, 3), float("nan"))
    stage = StageOutput(nan, torch.full((1, 6, 4), float("nan")), nan, nan)
    conductor = SimpleNamespace(stages=[stage])
    trainer = SimpleNamespace(state=SimpleNamespace(fn="fit"))
    callback.on_validation_batch_end(trainer, conductor, None, random_batch([2]), 0)
    assert callback.queries == {}
