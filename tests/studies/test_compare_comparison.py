"""What makes the numbers of a comparison doubtful, and what is missing: each by itself, in its own words."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run

from queryinst.studies.compare.comparison import _notes, _warnings, of_name
from queryinst.studies.compare.groups import Group, group
from queryinst.studies.compare.noise import Difference
from queryinst.studies.compare.runs import Found, Run

RESULT = {
    "identity": {"seed": 0, "data.val": "11bb"},
    "git": {"revision": "c0ffee", "dirty": False},
    "versions": {"torch": "2.15.0"},
    "hardware": {"threads": 1},
}
IMAGES = "The runs were evaluated on different validation images: their APs do not compare."
CODE = "The runs were made by different revisions of the code (see the runs below)."
PACKAGES = "The runs were made with different versions of packages (see the runs below)."
HARDWARE = "The runs were made on different hardware: minutes and milliseconds do not compare."


@pytest.mark.parametrize(
    ("changed", "warnings"),
    [
        ({}, []),
        ({"identity": {"seed": 1, "data.val": "11bb", "data.train": "other"}}, []),
        ({"identity": {"data.val": "other"}}, [IMAGES]),
        ({"identity": {"data.val": "11bb", "trainer.max_val_batches": 3}}, [IMAGES]),
        *(({"identity": {"data.val": "11bb", f"data.shapes.{key}": 3}}, [IMAGES]) for key in ("val", "side", "seed")),
        *(
            ({"identity": {"data.val": "11bb", f"data.video.shapes.{key}": 3}}, [IMAGES])
            for key in ("val", "side", "seed", "frames")
        ),
        ({"git": {"revision": "beef", "dirty": False}}, [CODE]),
        ({"git": None}, [CODE]),
        (
            {"git": {"revision": "c0ffee", "dirty": True}},
            ["The code had changes that were not committed in 1 of 2 runs (second)."],
        ),
        ({"versions": {"torch": "3.0"}}, [PACKAGES]),
        ({"hardware": {"threads": 2}}, [HARDWARE]),
    ],
)
def test_each_cause_of_doubt_is_told_from_the_others(changed: dict[str, Any], warnings: list[str]):
    assert _warnings([Run(Path("first"), RESULT), Run(Path("second"), RESULT | changed)]) == warnings


def test_changes_in_every_run_and_in_many():
    clean, dirty = RESULT, RESULT | {"git": {"revision": "c0ffee", "dirty": True}}
    start = "The code had changes that were not committed in "
    assert _warnings([Run(Path(name), dirty) for name in "ab"]) == [f"{start}every run."]
    runs = [Run(Path("a"), clean), *(Run(Path(name), dirty) for name in "bcde")]
    assert _warnings(runs) == [f"{start}4 of 5 runs (b, c, d, ...)."]
    assert _warnings(runs[:4]) == [f"{start}3 of 4 runs (b, c, d)."]


def a_run(folder: Path, width: int) -> Run:
    make_run(folder, {"model.width": width})
    return Run(folder, json.loads((folder / "result.json").read_text()))


def notes(runs: list[Run], *differences: Difference) -> list[str]:
    return _notes(runs, group(runs), differences, 500)


def test_what_is_missing_is_named_with_what_it_is_for(tmp_path: Path):
    whole, lacking = a_run(tmp_path / "a", 4), a_run(tmp_path / "b", 8)
    assert notes([whole, lacking]) == []
    for take, sentence in (
        (
            lambda: (lacking.folder / "matches.npz").unlink(),
            "No matches.npz {}: noise of images is not known for them.",
        ),
        (lambda: (lacking.folder / "metrics.csv").unlink(), "No metrics.csv {}: no learning curves."),
        (lambda: lacking.result.pop("stages"), "No `stages` in result.json {}: no AP after each stage."),
        (lambda: lacking.result.pop("seconds_per_image"), "No `seconds_per_image` in result.json {}: no milliseconds."),
    ):
        take()
        assert notes([whole, lacking])[-1] == sentence.format("in 1 of 2 runs (b)")
    alone = "All runs have the same settings but for the seed: there is nothing to hold them against."
    assert len(notes([whole, lacking])) == 4
    assert notes([lacking])[0] == "No matches.npz in any run: noise of images is not known for them."
    assert notes([lacking])[4:] == [alone]


def test_how_to_read_intervals_is_said_where_there_are_some(tmp_path: Path):
    runs = [a_run(tmp_path / "a", 4), a_run(tmp_path / "b", 8)]
    one = Group("", {}, (), ())
    plain = Difference(one, one, "segm", 0.1, None, None, 0, 0)
    with_both = Difference(one, one, "bbox", 0.1, (0.0, 0.2), 0.1, 60, 2)
    assert notes(runs, plain) == ["A 95 % interval leaves one true zero in twenty out."]
    assert notes(runs, plain, with_both) == [
        "A 95 % interval leaves one true zero in twenty out; here are 2 comparisons.",
        "Noise of images: 500 resamples of the validation images, the same for both of a pair, APs averaged over "
        "seeds; the networks are held fixed.",
        "Noise of seeds: standard deviation within groups, pooled over all groups with several seeds, with Student's "
        "t.",
    ]


@pytest.mark.parametrize(
    ("studies", "words", "name"),
    [
        (["depth"], ["depth", "outputs"], "depth"),
        (["depth", "width"], [], "depth+width"),
        ([], ["a/first", "b/second", "c/first"], "first+second"),
        ([], ["experiments/depth/runs"], "depth"),
        ([], ["a/result.json"], "result"),
        (["x" * 60], [], "x" * 60),
        (["x" * 61], [], "x" * 50 + "+0"),
        (["x" * 40, "y" * 40, "z"], [], "x" * 40 + "+2"),
    ],
)
def test_a_comparison_is_named_after_its_studies_or_folders(studies: list[str], words: list[str], name: str):
    assert of_name(Found(studies=studies), words) == name
