"""Settings that may be left out, so that what is not said stays as it was."""

import dataclasses

import pytest

from queryinst.command_config import EvaluateConfig
from queryinst.errors import UserError
from queryinst.settings import changed
from queryinst.studies.command import compose
from queryinst.video_config import TrackerConfig


def test_what_is_given_changes_and_the_rest_stays():
    trained = TrackerConfig(by="iou", score=0.2, retain=3)
    for words, expected in (
        ([], trained),
        (["tracker.by=query"], dataclasses.replace(trained, by="query")),
        (["tracker.retain=0", "tracker.score=0.1"], dataclasses.replace(trained, retain=0, score=0.1)),
    ):
        config = compose("evaluate", EvaluateConfig, ["checkpoint=x", *words])
        assert changed(trained, config.tracker) == expected


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("tracker.by=colour", "tracker.by takes one of embedding, iou"),
        ("tracker.score=2", "tracker.score must be at most 1"),
        ("tracker.retian=3", "unknown setting 'tracker.retian'; did you mean 'tracker.retain'"),
        ("tracker.retain=often", "tracker.retain"),
    ],
)
def test_it_is_checked_as_any_other(word: str, sentence: str):
    with pytest.raises(UserError) as caught:
        compose("evaluate", EvaluateConfig, ["checkpoint=x", word])
    assert sentence in str(caught.value)
