"""Better, worse, within the noise, or not to be told: from images, from seeds, from both, from neither."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from made_runs import fake_group as fake
from made_runs import groups_of_study as study
from made_runs import make_run

from queryinst.errors import UserError
from queryinst.studies.compare.noise import Noise, Verdict
from queryinst.studies.compare.runs import Run


def test_a_clear_difference_with_images_and_seeds(tmp_path: Path):
    low, high = study(tmp_path, {1: 0.5, 6: 0.8})
    found = Noise([low, high], 300).difference(high, low, "segm")
    assert found.verdict is Verdict.BETTER
    assert found.value == pytest.approx(high.mean("segm_AP") - low.mean("segm_AP"))
    assert found.images is not None
    assert found.images[0] < found.value < found.images[1]
    assert found.interval is not None
    assert found.interval[0] < found.images[0], "seeds make it wider"
    assert found.sentence.endswith("60 images, seeds ±" + f"{found.seeds:.3f}): better, beyond the noise.")
    assert Noise([low, high], 300).difference(low, high, "segm").verdict is Verdict.WORSE


def test_no_difference(tmp_path: Path):
    first, second = study(tmp_path, {1: 0.7, 2: 0.7001})
    found = Noise([first, second], 300).difference(second, first, "bbox")
    assert found.verdict is Verdict.WITHIN
    assert "within the noise" in found.sentence


def test_one_seed_is_never_called_better(tmp_path: Path):
    low, high = study(tmp_path, {1: 0.5, 6: 0.8}, seeds=[0])
    found = Noise([low, high], 300).difference(high, low, "segm")
    assert found.seeds is None
    assert found.images is not None
    assert found.images[0] > 0
    assert found.verdict is Verdict.UNKNOWN
    assert "noise of seeds not in it" in found.sentence
    assert "more than other images would change, but with one seed" in found.sentence


def test_one_seed_and_no_matches(tmp_path: Path):
    low, high = study(tmp_path, {1: 0.5, 6: 0.8}, seeds=[0], older=True)
    found = Noise([low, high]).difference(high, low, "segm")
    assert (found.images, found.seeds, found.interval) == (None, None, None)
    assert found.verdict is Verdict.UNKNOWN
    assert "one seed, cannot be told" in found.sentence


def test_seeds_alone_are_students_t_of_the_pooled_variance():
    a, b = fake("a", [0.50, 0.52]), fake("b", [0.55, 0.59])
    found = Noise([a, b]).difference(b, a, "segm")
    pooled = math.sqrt((0.0002 + 0.0008) / 2)
    assert found.seeds == pytest.approx(4.30265 * pooled * math.sqrt(1 / 2 + 1 / 2), rel=1e-5)
    assert found.verdict is Verdict.WITHIN, "two seeds say little"
    assert found.sentence.endswith("within the noise, as far as so few seeds can tell.")
    assert "noise of images not in it" in found.sentence
    third = fake("c", [0.7, 0.72, 0.71])
    sharper = Noise([a, b, third]).difference(b, a, "segm")
    assert sharper.seeds is not None
    assert sharper.seeds < found.seeds, "other groups tell how far seeds spread"
    assert Noise([a, third, fake("d", [0.9])]).difference(fake("d", [0.9]), a, "segm").verdict is Verdict.BETTER


def test_a_metric_that_is_missing():
    a, b = fake("a", [0.5, 0.5]), fake("b", [0.6, math.nan])
    found = Noise([a, b]).difference(b, a, "segm")
    assert found.verdict is Verdict.UNKNOWN
    assert "cannot be told" in found.sentence


def test_without_a_difference_the_interval_of_seeds_holds_zero_in_95_of_100():
    rng = np.random.default_rng(0)
    within = 0
    for _ in range(400):
        groups = [fake(name, list(rng.normal(0.5, 0.02, 3))) for name in "abc"]
        within += Noise(groups).difference(groups[1], groups[0], "segm").verdict is Verdict.WITHIN
    assert 0.92 <= within / 400 <= 0.98


def test_other_images_are_not_resampled_together(tmp_path: Path):
    low, high = study(tmp_path, {1: 0.5, 6: 0.8})
    path = high.runs[0].folder / "matches.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"image_ids": arrays["image_ids"] + 7}))
    found = Noise([low, high]).difference(high, low, "segm")
    assert found.images is None
    assert Noise([low, high]).by_class(high, low) is None


def test_by_class(tmp_path: Path):
    low, high = study(tmp_path, {1: 0.5, 6: 0.8})
    ends = Noise([low, high], 200).by_class(high, low)
    assert ends is not None
    for k, name in enumerate(("circle", "square", "star")):
        assert ends[0][k] < high.mean(f"segm_AP/{name}") - low.mean(f"segm_AP/{name}") < ends[1][k]


def test_matches_of_another_evaluation_are_found_out(tmp_path: Path):
    folder = make_run(tmp_path / "a")
    result = json.loads((folder / "result.json").read_text())
    Noise([]).check(Run(folder, result))
    result["metrics"]["segm_AP"] += 0.01
    with pytest.raises(UserError, match=r"matches\.npz gives segm_AP 0\.\d+, but result\.json 0\.\d+: they are not of"):
        Noise([]).check(Run(folder, result))
