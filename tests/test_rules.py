"""Every rule at its boundary: the last values that pass, the first that do not, and the sentence that says so."""

import functools
from typing import Any

import pytest

from queryinst.command_config import EvaluateConfig
from queryinst.config import ShapesConfig, TrainConfig
from queryinst.errors import UserError
from queryinst.rules import check
from queryinst.video_config import AssociationConfig, VideoConfig

PAIRS, VIDEO, SHAPES = AssociationConfig(), VideoConfig(), ShapesConfig(train=1, val=1)
NAME = "name is the first part of a folder's name: letters, digits and . _ + - only; got "
LATE = "schedule.milestones must lie before schedule.epochs, or they never happen; got "
LATE_ENDS = " epochs: give both, or choose a schedule"
JITTER = "augmentation.scale_jitter takes the smallest and the largest factor, or nothing; got "


def changed(settings: dict[str, Any]) -> TrainConfig:
    """The defaults, with settings given by their dotted names."""
    config = TrainConfig()
    for key, value in settings.items():
        *parents, name = key.split(".")
        setattr(functools.reduce(getattr, parents, config), name, value)
    return config


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"name": "a"},
        {"name": "_2.1+x-é"},
        {"model.width": 30, "model.num_heads": 5},
        {"model.width": 8, "model.num_heads": 8},
        {"schedule.epochs": 12, "schedule.milestones": [0, 1, 11]},
        {"schedule.epochs": 1, "schedule.milestones": []},
        {"schedule.epochs": 4, "schedule.milestones": [11, 8], "schedule.decay": "cosine"},
        {"model.association": PAIRS, "data.video": VIDEO},
        {"model.association": PAIRS, "data.video": VIDEO, "tracker.by": "iou"},
        {"data.video": VIDEO, "tracker.by": "iou"},
        {"data.video": VIDEO, "tracker.by": "query"},
        {"data.shapes": SHAPES},
        {"augmentation.copy_paste": 1.0},
        {"augmentation.copy_paste": 0.0, "data.video": VIDEO, "tracker.by": "iou"},
        {"data.batch_size": 6, "trainer.accumulate": 3},
        {"data.batch_size": 6, "trainer.accumulate": 6},
        {"augmentation.short_sides": [480], "augmentation.crop_short_sides": [400]},
        {"augmentation.scale_jitter": [0.1, 2.0]},
        {"augmentation.scale_jitter": [1.0, 1.0]},
        {"augmentation.crop_sides": [384, 384]},
        {"optimizer.betas": [0.5, 0.5]},
        {"backbone.thaw": 11, "backbone.frozen_stages": 0},
        {"model.num_stages": 2, "criterion.matches_per_object": [2, 1]},
    ],
)
def test_what_fits_passes(settings: dict[str, Any]):
    check(changed(settings))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"name": ".a"}, f"{NAME}'.a'"),
        ({"name": "-a"}, f"{NAME}'-a'"),
        ({"name": "a/b"}, f"{NAME}'a/b'"),
        ({"name": "a\n"}, f"{NAME}'a '"),
        (
            {"model.width": 30, "model.num_heads": 4},
            "model.num_heads must divide model.width; got 4 heads for width 30",
        ),
        (
            {"model.width": 4, "model.num_heads": 8},
            "model.num_heads must divide model.width; got 8 heads for width 4",
        ),
        ({"schedule.milestones": [8, 8]}, "schedule.milestones must rise; got [8, 8]"),
        ({"schedule.milestones": [1, 8, 3]}, "schedule.milestones must rise; got [1, 8, 3]"),
        ({"schedule.epochs": 12, "schedule.milestones": [8, 12]}, f"{LATE}[8, 12] and 12{LATE_ENDS}"),
        ({"schedule.epochs": 1, "schedule.milestones": [1]}, f"{LATE}[1] and 1{LATE_ENDS}"),
        (
            {"model.association": PAIRS},
            "model.association learns from pairs of frames and needs data.video: choose video data, such as "
            "data=shapes_video, or leave it out",
        ),
        (
            {"data.video": VIDEO, "tracker.by": "embedding"},
            "tracker.by=embedding needs model.association: choose a model with it, such as model=tiny_video, or give "
            "tracker.by=iou",
        ),
        (
            {"data.shapes": SHAPES, "data.video": VIDEO, "tracker.by": "iou"},
            "data.shapes makes images and data.video reads video: choose one, such as data=shapes_video",
        ),
        (
            {"model.mask_quality": True, "model.mask_head.name": "own.py:Head"},
            "model.mask_quality reads the features of our own mask head; got model.mask_head.name=own.py:Head: leave "
            "it out",
        ),
        (
            {"criterion.matches_per_object": [2, 1]},
            "criterion.matches_per_object has a number for each stage; got 2 for model.num_stages=6",
        ),
        (
            {
                "criterion.matches_per_object": [2, 1],
                "model.num_stages": 2,
                "model.association": PAIRS,
                "data.video": VIDEO,
            },
            "model.association learns from one query an object; leave criterion.matches_per_object out",
        ),
        (
            {"tracker.by": "truth"},
            "tracker.by=truth knows the answer, which is for queryinst.evaluate: train with embedding or iou",
        ),
        (
            {"data.batch_size": 6, "trainer.accumulate": 4},
            "trainer.accumulate must divide data.batch_size; got 4 for 6 images",
        ),
        (
            {"data.batch_size": 3, "trainer.accumulate": 6},
            "trainer.accumulate must divide data.batch_size; got 6 for 3 images",
        ),
        (
            {"backbone.thaw": 1, "backbone.frozen_stages": -1},
            "backbone.thaw lets frozen stages train, and backbone.frozen_stages=-1 freezes none; got backbone.thaw=1: "
            "leave it out, or set backbone.frozen_stages",
        ),
        (
            {"backbone.thaw": 12},
            "backbone.thaw must lie before schedule.epochs, or it never happens; got 12 and 12 epochs",
        ),
        ({"augmentation.short_sides": []}, "augmentation.short_sides needs at least one value; got none"),
        ({"augmentation.crop_short_sides": []}, "augmentation.crop_short_sides needs at least one value; got none"),
        ({"augmentation.scale_jitter": [1.0]}, f"{JITTER}[1.0]"),
        ({"augmentation.scale_jitter": [0.1, 1.0, 2.0]}, f"{JITTER}[0.1, 1.0, 2.0]"),
        ({"augmentation.scale_jitter": [2.0, 0.1]}, f"{JITTER}[2.0, 0.1]"),
        (
            {"augmentation.copy_paste": 0.1, "data.video": VIDEO, "tracker.by": "iou"},
            "augmentation.copy_paste is for images: in video a pasted object would be in one frame alone; got 0.1 with "
            "data.video: leave it at 0",
        ),
        ({"optimizer.betas": [0.9]}, "optimizer.betas takes two numbers; got [0.9]"),
        ({"optimizer.betas": [0.9, 0.99, 0.999]}, "optimizer.betas takes two numbers; got [0.9, 0.99, 0.999]"),
        (
            {"augmentation.crop_sides": [385, 384]},
            "augmentation.crop_sides takes the smallest and the largest side; got [385, 384]",
        ),
        (
            {"augmentation.crop_sides": [384]},
            "augmentation.crop_sides takes the smallest and the largest side; got [384]",
        ),
        (
            {"augmentation.crop_sides": [1, 2, 3]},
            "augmentation.crop_sides takes the smallest and the largest side; got [1, 2, 3]",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(settings: dict[str, Any], sentence: str):
    with pytest.raises(UserError) as caught:
        check(changed(settings))
    assert str(caught.value) == sentence


def test_ranges_come_before_rules():
    """Or a rule would divide by the 0 that is out of range."""
    with pytest.raises(UserError, match=r"^model\.num_heads must be at least 1; got 0 "):
        check(changed({"model.num_heads": 0}))


def test_a_command_that_does_not_train_has_ranges_only():
    check(EvaluateConfig(checkpoint="x"))
    with pytest.raises(UserError, match=r"^batch_size must be at least 1; got 0 "):
        check(EvaluateConfig(checkpoint="x", batch_size=0))
