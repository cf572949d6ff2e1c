"""Is AP what was expected: to the digit that is given, in both directions, for each kind that has a figure."""

import math

import pytest

from queryinst.errors import UserError
from queryinst.evaluation.expected import Expected, expected, require_val2017


def test_what_expect_means():
    assert expected("37.5", 0.2, "a.ckpt") == Expected({"segm": 37.5}, 0.2)
    assert expected("42/37.5", 0.1, "a.ckpt") == Expected({"bbox": 42.0, "segm": 37.5}, 0.1)
    assert expected("published", 0.2, "mmdet:1x_pro100") == Expected({"bbox": 42.0, "segm": 37.5}, 0.2)
    assert expected("published", 0.2, "paddle:1x_pro100") == Expected({"bbox": 42.1, "segm": 37.8}, 0.2)


@pytest.mark.parametrize("text", ["375", "42/37/1", "-1", "a", "42.0/", "37.", "publish", " 37.5"])
def test_what_it_does_not_mean(text: str):
    with pytest.raises(UserError, match=r"^expect takes 'published', MASK or BOX/MASK, .* got '"):
        expected(text, 0.2, "mmdet:1x_pro100")


def test_published_figures_are_those_of_names():
    with pytest.raises(UserError, match=r"^expect=published is for .*, not r50\.safetensors; give figures, such as "):
        expected("published", 0.2, "r50.safetensors")


@pytest.mark.parametrize(
    ("box", "mask", "met"),
    [
        (0.42, 0.375, True),
        (0.4220, 0.3730, True),
        (0.4180, 0.3770, True),
        (0.4221, 0.375, False),
        (0.42, 0.3729, False),
        (0.42, 0.3771, False),
        (0.42, math.nan, False),
        (math.nan, 0.375, False),
    ],
)
def test_both_must_be_met(box: float, mask: float, met: bool):
    found, said = Expected({"bbox": 42.0, "segm": 37.5}, 0.2).judge({"bbox_AP": box, "segm_AP": mask})
    assert found is met
    assert said.startswith("expected AP is met within 0.2: " if met else "expected AP is NOT met within 0.2: ")
    assert said.endswith(f": box AP {100 * box:.2f} for 42, mask AP {100 * mask:.2f} for 37.5")


def test_of_one_kind_and_of_a_stage():
    metrics = {"stage_6/segm_AP": 0.3761, "segm_AP": 0.1, "bbox_AP": 0.1}
    assert Expected({"segm": 37.5}, 0.2).judge(metrics, "stage_6/")[0]
    assert not Expected({"segm": 37.5}, 0.1).judge(metrics, "stage_6/")[0]


def test_published_ap_is_that_of_val2017():
    require_val2017(5000, "a.json")
    with pytest.raises(UserError, match=r"5000 images, and a\.json has 4952: give images=COCO/val2017"):
        require_val2017(4952, "a.json")
