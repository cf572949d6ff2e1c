"""What a setting takes, what it says of anything else, and settings that may be left out."""

import dataclasses
from dataclasses import field
from typing import Any

import pytest

from queryinst.command_config import EvaluateConfig
from queryinst.errors import UserError
from queryinst.settings import changed, changes_of, check_ranges, restore, setting, walk
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


@dataclasses.dataclass
class Inner:
    share: float = setting(0.5, "a share", at_least=0.25, at_most=0.75)
    rate: float = setting(1.0, "a rate", above=0)


@dataclasses.dataclass
class Outer:
    way: str | None = setting("here", "a way", choices=("here", "there"))
    counts: list[int] = setting([1, 2], "some counts", at_least=1)
    flag: bool = setting(True, "a truth", at_least=1)
    inner: Inner = field(default_factory=Inner)
    other: Inner | None = setting(None, "perhaps another")


@pytest.mark.parametrize(
    "changes",
    [{}, {"way": None}, {"way": "there"}, {"counts": []}, {"inner": Inner(0.25, 1e-9)}, {"inner": Inner(0.75, 9e9)}],
    ids=str,
)
def test_a_bound_itself_is_taken(changes: dict[str, Any]):
    check_ranges(Outer(**changes))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inner": Inner(share=0.24)}, "inner.share must be at least 0.25; got 0.24 (a share)"),
        ({"inner": Inner(share=0.76)}, "inner.share must be at most 0.75; got 0.76 (a share)"),
        ({"inner": Inner(rate=0)}, "inner.rate must be above 0; got 0 (a rate)"),
        ({"other": Inner(rate=-1.0)}, "other.rate must be above 0; got -1.0 (a rate)"),
        ({"inner": Inner(rate=float("inf"))}, "inner.rate takes a finite number; got inf"),
        ({"inner": Inner(share=float("nan"))}, "inner.share takes a finite number; got nan"),
        ({"counts": [1, 0]}, "counts must be at least 1; got 0 (some counts)"),
        ({"counts": [-(10**40)]}, f"counts must be at least 1; got -1{'0' * 28} (some counts)"),
        ({"flag": False}, "flag must be at least 1; got False (a truth)"),
        ({"way": "elsewhere"}, "way takes one of here, there; got 'elsewhere'"),
        ({"other": ""}, "other is empty; leave it out, or write other=null where nothing is meant"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_one_sentence(changes: dict[str, Any], sentence: str):
    with pytest.raises(UserError) as caught:
        check_ranges(Outer(**changes))
    assert str(caught.value) == sentence


def test_a_list_is_nobody_elses_and_settings_define_the_result_by_default():
    one, other = Outer(), Outer()
    one.counts.append(3)
    assert other.counts == Outer().counts == [1, 2]
    identity = {entry.name: entry.metadata["identity"] for entry in dataclasses.fields(Inner)}
    assert identity == {"share": True, "rate": True}


def test_walk_goes_to_every_leaf():
    walked = [(key, entry.metadata["meaning"], value) for key, entry, value in walk(Outer(other=Inner(0.3, 2.0)))]
    assert walked == [
        ("way", "a way", "here"),
        ("counts", "some counts", [1, 2]),
        ("flag", "a truth", True),
        ("inner.share", "a share", 0.5),
        ("inner.rate", "a rate", 1.0),
        ("other.share", "a share", 0.3),
        ("other.rate", "a rate", 2.0),
    ]


def test_a_checkpoints_settings_come_back_and_an_unknown_one_is_named():
    for config in (Outer(), Outer(way=None, counts=[], inner=Inner(0.3), other=Inner(rate=7))):
        assert restore(Outer, dataclasses.asdict(config)) == config
    with pytest.raises(UserError) as caught:
        restore(Outer, {"inner": {"shrae": 1}})
    assert str(caught.value) == (
        "the checkpoint's configuration has a setting 'shrae' that Inner does not know: "
        "another version of queryinst made it"
    )


def test_changes_have_the_same_bounds():
    changes = changes_of(Inner)
    assert changes() == changes(share=None, rate=None)
    check_ranges(changes())
    assert changed(Inner(), changes(rate=0.0)) == Inner(rate=0.0), "0 is said, None is not"
    with pytest.raises(UserError, match="^share must be at most 0.75"):
        check_ranges(changes(share=0.8))
