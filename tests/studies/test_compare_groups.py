"""Runs of the same settings are one group; its label says what sets it apart, and no more."""

from pathlib import Path
from typing import Any

import pytest

from queryinst.errors import UserError
from queryinst.studies.compare.groups import baseline, group
from queryinst.studies.compare.runs import Run

COMMON = {"seed": 0, "weights": None, "model.num_stages": 6, "model.width": 256, "data.batch_size": 16}
SHAPES = {"generator": "shapes", "version": 2, "train": 10, "val": 5, "side": 96, "seed": 0}


def run(name: str = "r", overrides: tuple[str, ...] = (), config: Any = None, **identity: Any) -> Run:
    values = COMMON | {key.replace("__", "."): value for key, value in identity.items()}
    metrics = {"segm_AP": 0.5 + values["seed"] / 100}
    return Run(
        Path(name), {"name": "shapes", "identity": values, "config": config or {}, "metrics": metrics}, overrides
    )


def labels(*runs: Run) -> list[str]:
    return [one.label for one in group(runs)]


def test_seeds_are_one_group_and_rows_are_in_the_order_of_numbers():
    runs = [run(model__num_stages=stages, seed=seed) for stages in (10, 2, 6) for seed in (1, 0)]
    groups = group(runs)
    assert [one.label for one in groups] == ["num_stages=2", "num_stages=6", "num_stages=10"]
    assert [[r.seed for r in one.runs] for one in groups] == [[0, 1]] * 3
    assert groups[0].mean("segm_AP") == pytest.approx(0.505)
    assert groups[0].spread("segm_AP") == pytest.approx(0.01 / 2**0.5)
    assert groups[0].keys == ("model.num_stages",)


def test_only_seeds():
    (only,) = group([run(seed=seed) for seed in range(3)])
    assert only.label == "shapes"
    assert only.settings == {}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"model__width": 64}, {"model__width": 128}, ["width=64", "width=128"]),
        ({"x__lr": 1e-4}, {"x__lr": 0.01}, ["lr=0.0001", "lr=0.01"]),
        ({"a__lr": 1, "b__lr": 1}, {"a__lr": 2, "b__lr": 1}, ["a.lr=1", "a.lr=2"]),
        ({"x__on": False}, {"x__on": True}, ["on=false", "on=true"]),
        ({"x__ema": None}, {"x__ema": 0.9}, ["ema=none", "ema=0.9"]),
        ({"x__steps": [8, 11]}, {"x__steps": [16, 22]}, ["steps=[8,11]", "steps=[16,22]"]),
        ({"m__a": 1, "m__b": "x"}, {"m__a": 1, "m__b": "y"}, ["b=x", "b=y"]),
        ({"m__a": 1, "m__b": 1}, {"m__a": 2, "m__b": 3}, ["a=1, b=1", "a=2, b=3"]),
        ({}, {"m__new": 3}, ["new=none", "new=3"]),
    ],
)
def test_labels(first: dict[str, Any], second: dict[str, Any], expected: list[str]):
    assert labels(run(**first), run(**second)) == expected


def test_the_embedded_data_is_named_once():
    runs = [run(data={**SHAPES, "side": side}, data__shapes__side=side) for side in (96, 128)]
    assert labels(*runs) == ["shapes.side=96", "shapes.side=128"]
    assert group([run(data={**SHAPES, "version": v}) for v in (1, 2)])[0].label == "version=1"


def test_digests_are_shown_as_the_files_they_are_of():
    def of_data(root: str, train: str, val: str) -> Run:
        return run(config={"data": {"root": f"/mnt/{root}"}}, data__train=train, data__val=val)

    assert labels(of_data("cats", "aa11", "bb22"), of_data("dogs", "cc33", "dd44")) == ["data=cats", "data=dogs"]
    assert labels(of_data("cats", "aa11", "bb22"), of_data("cats", "cc33", "bb22")) == [
        "train_data=cats@aa11",
        "train_data=cats@cc33",
    ]
    assert labels(of_data("a", "1", "bb22"), of_data("b", "1", "dd44")) == ["val_data=a", "val_data=b"]
    weights = [run(weights="ff00", config={"weights": "x/r50.safetensors"}), run()]
    assert labels(*weights) == ["weights=none", "weights=r50.safetensors"]
    assert group(weights)[0].keys == (), "W&B does not have the digest"


def test_where_much_differs_the_command_says_it_better():
    many = [{f"m__{letter}": number for letter in "abcd"} for number in (1, 2)]
    said = [run(overrides=(word, "seed=0"), **values) for word, values in zip(("p=x", "p=y"), many, strict=True)]
    assert labels(*said) == ["p=x", "p=y"]
    assert labels(*(run(**values) for values in many)) == ["a=1, b=1, c=1, d=1", "a=2, b=2, c=2, d=2"]


def test_the_baseline_is_the_group_of_the_first_run_or_the_one_asked_for():
    runs = [run(model__num_stages=stages) for stages in (6, 2)]
    groups = group(runs)
    assert baseline(groups, None, runs[0]).label == "num_stages=6"
    assert baseline(groups, "num_stages=2", runs[0]).label == "num_stages=2"
    with pytest.raises(UserError, match="--baseline takes one of num_stages=2; num_stages=6; got 'stages=2'; did you"):
        baseline(groups, "stages=2", runs[0])
