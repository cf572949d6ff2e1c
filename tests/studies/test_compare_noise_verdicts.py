"""What is said of a difference, word by word, and its numbers against the same ones spelled out."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import fake_group as fake
from made_runs import groups_of_study as study
from made_runs import make_run
from numpy.typing import NDArray

from queryinst.errors import UserError
from queryinst.evaluation import bootstrap
from queryinst.studies.compare.groups import Group
from queryinst.studies.compare.noise import Difference, Noise, Verdict
from queryinst.studies.compare.runs import Run

ONE, OTHER = Group("one", {}, (), ()), Group("other", {}, (), ())


def difference(value: float, images: tuple[float, float] | None, seeds: float | None, spare: int = 3) -> Difference:
    return Difference(ONE, OTHER, "segm", value, images, seeds, 60 if images else 0, spare)


@pytest.mark.parametrize(
    ("images", "seeds", "expected"),
    [
        (None, None, None),
        ((0.01, 0.06), None, (0.01, 0.06)),
        (None, 0.03, (-0.01, 0.05)),
        ((-0.02, 0.05), 0.03, (-0.03, 0.02 + 0.03 * 2**0.5)),
        ((0.03, 0.04), 0.0, (0.02, 0.04)),
        ((0.0, 0.01), 0.0, (0.0, 0.02)),
    ],
)
def test_half_widths_add_as_squares(
    images: tuple[float, float] | None, seeds: float | None, expected: tuple[float, float] | None
):
    assert difference(0.02, images, seeds).interval == (expected and pytest.approx(expected))


FOUND = "mask AP +0.200 (95 % interval "


@pytest.mark.parametrize(
    ("found", "verdict", "sentence"),
    [
        (
            difference(0.2, (0.1, 0.3), 0.0),
            Verdict.BETTER,
            f"{FOUND}+0.100 to +0.300; 60 images, seeds ±0.000): better, beyond the noise.",
        ),
        (
            difference(-0.2, None, 0.1),
            Verdict.WORSE,
            "mask AP -0.200 (95 % interval -0.300 to -0.100; noise of images not in it, seeds ±0.100): worse, beyond "
            "the noise.",
        ),
        (
            difference(0.2, (0.0, 0.5), 0.0),
            Verdict.WITHIN,
            f"{FOUND}+0.000 to +0.500; 60 images, seeds ±0.000): within the noise.",
        ),
        (
            difference(-0.2, (-0.5, 0.0), None),
            Verdict.WITHIN,
            "mask AP -0.200 (95 % interval -0.500 to +0.000; 60 images, noise of seeds not in it): within the noise.",
        ),
        (
            difference(0.2, None, 0.25, spare=2),
            Verdict.WITHIN,
            f"{FOUND}-0.050 to +0.450; noise of images not in it, seeds ±0.250): within the noise, as far as so few "
            "seeds can tell.",
        ),
        (
            difference(0.2, None, 0.25, spare=1),
            Verdict.WITHIN,
            f"{FOUND}-0.050 to +0.450; noise of images not in it, seeds ±0.250): within the noise, as far as so few "
            "seeds can tell.",
        ),
        (
            difference(0.2, (0.1, 0.3), None, spare=0),
            Verdict.UNKNOWN,
            f"{FOUND}+0.100 to +0.300; 60 images, noise of seeds not in it): more than other images would change, but "
            "with one seed it cannot be told what another gives.",
        ),
        (
            difference(0.2, None, None, spare=0),
            Verdict.UNKNOWN,
            "mask AP +0.200: one seed, cannot be told. Train more seeds, or keep matches.npz of both.",
        ),
        (
            difference(math.nan, None, 0.1),
            Verdict.UNKNOWN,
            "mask AP: cannot be told, for one of the two has none.",
        ),
    ],
)
def test_verdict_and_sentence(found: Difference, verdict: Verdict, sentence: str):
    assert found.verdict is verdict
    assert found.sentence == sentence


def test_boxes_are_called_boxes():
    found = Difference(ONE, OTHER, "bbox", 0.1, None, None, 0, 0)
    assert found.sentence.startswith("box AP +0.100: one seed")


def change(run: Run, **arrays: Any) -> None:
    """Write some arrays of a run's matches anew."""
    path = run.folder / "matches.npz"
    with np.load(path) as file:
        kept = dict(file)
    np.savez(path, **kept | arrays)


def resampled(of: Group, kind: str, count: int, seed: int) -> NDArray[np.float64]:
    """(runs, B, K, T)."""
    files = [bootstrap.read(run.folder / "matches.npz") for run in of.runs]
    rows = bootstrap.resamples(60, count, seed)
    return np.stack([bootstrap.precisions(file.kinds[kind], rows) for file in files])


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_interval_over_images_is_a_paired_bootstrap_of_means_over_seeds(tmp_path: Path, kind: str):
    low, high = study(tmp_path, {1: 0.6, 6: 0.65}, seeds=[0, 1])
    found = Noise([low, high], 50, 7).difference(high, low, kind)
    one, other = (
        np.mean([bootstrap.average(of_run) for of_run in resampled(of, kind, 50, 7)], 0) for of in (high, low)
    )
    assert found.images == pytest.approx(tuple(np.quantile(one - other, [0.025, 0.975])))
    assert (found.count, found.spare, found.kind) == (60, 2, kind)
    assert found.value == high.mean(f"{kind}_AP") - low.mean(f"{kind}_AP")
    assert (found.group, found.baseline) == (high, low)


def test_a_thousand_resamples_of_seed_0_where_nothing_is_said(tmp_path: Path):
    low, high = study(tmp_path, {1: 0.6, 6: 0.65}, seeds=[0])
    assert Noise([low, high]).difference(high, low, "segm") == Noise([low, high], 1000, 0).difference(high, low, "segm")


def test_by_class_a_rare_one_has_an_interval_of_the_resamples_that_hold_it_and_an_absent_one_none(tmp_path: Path):
    low, high = study(tmp_path, {1: 0.6, 6: 0.65}, seeds=[0, 1])
    for run in (*low.runs, *high.runs):
        truths = bootstrap.read(run.folder / "matches.npz").kinds["segm"].truth_category
        rare = np.zeros_like(truths)
        rare[np.flatnonzero(truths == 1)[0]] = 1
        change(run, segm_truth_category=rare)
    ends = Noise([low, high], 50, 7).by_class(high, low)
    assert ends is not None
    values = resampled(high, "segm", 50, 7).mean(3).mean(0) - resampled(low, "segm", 50, 7).mean(3).mean(0)
    assert 0 < np.isnan(values[:, 1]).sum() < 50
    for k in (0, 1):
        there = values[:, k][~np.isnan(values[:, k])]
        assert (ends[0][k], ends[1][k]) == pytest.approx(tuple(np.quantile(there, [0.025, 0.975])))
    assert np.isnan([ends[0][2], ends[1][2]]).all()


@pytest.mark.parametrize(
    "arrays",
    [{"image_ids": np.arange(60) * 3 + 2}, {"category_ids": np.array([5, 6, 8])}],
    ids=["images", "categories"],
)
def test_other_images_or_categories_are_not_resampled_together(tmp_path: Path, arrays: dict[str, Any]):
    low, high = study(tmp_path, {1: 0.5, 6: 0.8}, seeds=[0, 1])
    assert Noise([low, high], 50).same_images(low, high)
    change(high.runs[1], **arrays)
    noise = Noise([low, high], 50)
    assert not noise.same_images(low, high)
    assert noise.same_images(low)
    for one, base in ((high, low), (low, high)):
        found = noise.difference(one, base, "segm")
        assert (found.images, found.count) == (None, 0)
        assert noise.by_class(one, base) is None


def test_classes_of_other_names_are_not_resampled_together(tmp_path: Path):
    """Ids from 1 on are common: the same ids are not the same classes."""
    folders = [make_run(tmp_path / names, names=names) for names in ("abc", "bac", "abd")]
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    one, swapped, other = (Group("", {}, (Run(*of),), ()) for of in zip(folders, results, strict=True))
    noise = Noise([one, swapped, other], 50)
    assert noise.same_images(one)
    for second in (swapped, other):
        assert not noise.same_images(one, second)
        assert noise.difference(one, second, "segm").images is None


def test_without_the_matches_of_one_run_images_are_not_known(tmp_path: Path):
    low, high = study(tmp_path, {1: 0.5, 6: 0.8}, seeds=[0, 1])
    (high.runs[1].folder / "matches.npz").unlink()
    found = Noise([low, high], 50).difference(high, low, "segm")
    assert (found.images, found.count) == (None, 0)
    assert found.seeds is not None


def test_a_group_without_an_ap_has_no_interval_over_images(tmp_path: Path):
    low, high = study(tmp_path, {1: 0.5, 6: 0.8}, seeds=[0, 1])
    high.runs[0].result["metrics"]["segm_AP"] = None
    found = Noise([low, high], 50).difference(high, low, "segm")
    assert (found.images, found.count) == (None, 0)
    assert math.isnan(found.value)


def test_a_group_counts_for_the_spread_as_often_as_it_has_seeds_beyond_the_first():
    a, b, c = fake("a", [0.50, 0.52]), fake("b", [0.7, 0.72, 0.76]), fake("c", [0.9])
    squares = 0.0002 + 0.0056 / 3
    found = Noise([a, b, c, fake("d", [math.nan, 0.5])]).difference(c, b, "segm")
    error = math.sqrt(squares / 3 * (1 / 1 + 1 / 3))
    assert found.seeds == pytest.approx(3.182446 * error, rel=1e-6)
    assert found.spare == 3


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_matches_are_those_of_the_result_to_four_digits(tmp_path: Path, kind: str):
    folder = make_run(tmp_path / "a")
    result = json.loads((folder / "result.json").read_text())
    run = Run(folder, result)
    found = result["metrics"][f"{kind}_AP"]
    Noise([]).check(run, tolerance=0.0)
    for wrong in (0.99e-4, -0.99e-4):
        result["metrics"][f"{kind}_AP"] = found + wrong
        Noise([]).check(run)
    for wrong in (1.01e-4, -1.01e-4):
        result["metrics"][f"{kind}_AP"] = found + wrong
        with pytest.raises(UserError) as caught:
            Noise([]).check(run)
        assert str(caught.value) == (
            f"{folder}/matches.npz gives {kind}_AP {found:.4f}, but result.json {found + wrong:.4f}: they are not of "
            "one evaluation; delete the older one"
        )
    result["metrics"][f"{kind}_AP"] = found + 0.01
    Noise([]).check(run, tolerance=0.02)
