"""What makes a configuration valid: every value in its range, and values that must fit each other."""

import itertools
import re
from typing import Any

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.library_names import library_of
from queryinst.settings import check_ranges


def check(config: Any) -> None:
    """Check every value by itself, then those that must fit each other.

    Raises:
        UserError: names the key, what it got and what it takes.
    """
    check_ranges(config)
    if isinstance(config, TrainConfig):
        for holds, sentence in (*_rules(config), *_augmentation_rules(config), *_training_rules(config)):
            if not holds:
                raise UserError(sentence)


def _rules(config: TrainConfig) -> list[tuple[bool, str]]:
    model, data = config.model, config.data
    return [
        (
            re.fullmatch(r"\w[\w.+-]*", config.name) is not None,
            f"name is the first part of a folder's name: letters, digits and . _ + - only; got '{config.name}'",
        ),
        (
            model.width % model.num_heads == 0,
            f"model.num_heads must divide model.width; got {model.num_heads} heads for width {model.width}",
        ),
        (
            model.association is None or data.video is not None,
            "model.association learns from pairs of frames and needs data.video: choose video data, such as "
            "data=shapes_video, or leave it out",
        ),
        (
            data.video is None or model.association is not None or config.tracker.by != "embedding",
            "tracker.by=embedding needs model.association: choose a model with it, such as model=tiny_video, or give "
            "tracker.by=iou",
        ),
        (
            model.initialisation != "paddle" or (model.box_head.name, model.mask_head.name) == ("dynamic", "dynamic"),
            "model.initialisation=paddle knows the layers of our own heads; with a head of your own leave it out (and "
            "profile=paddle)",
        ),
        (
            not model.mask_quality or model.mask_head.name == "dynamic",
            "model.mask_quality reads the features of our own mask head; "
            f"got model.mask_head.name={model.mask_head.name}: leave it out",
        ),
        (
            config.signals.recollection is None or model.num_stages > 1,
            "signals.recollection lets queries skip a stage and needs two of them; got model.num_stages="
            f"{model.num_stages}",
        ),
        (
            len(config.criterion.matches_per_object) in (0, model.num_stages),
            "criterion.matches_per_object has a number for each stage; "
            f"got {len(config.criterion.matches_per_object)} for model.num_stages={model.num_stages}",
        ),
        (
            model.association is None or not config.criterion.matches_per_object,
            "model.association learns from one query an object; leave criterion.matches_per_object out",
        ),
        (
            data.video is None or data.reader.name == "coco",
            "data.reader is for images, and data.video reads YouTube-VIS itself; "
            f"got data.reader.name={data.reader.name}",
        ),
        (
            data.video is None or data.shapes is None,
            "data.shapes makes images and data.video reads video: choose one, such as data=shapes_video",
        ),
        (
            config.tracker.by != "truth",
            "tracker.by=truth knows the answer, which is for queryinst.evaluate: train with embedding or iou",
        ),
    ]


def _augmentation_rules(config: TrainConfig) -> list[tuple[bool, str]]:
    data, augmentation = config.data, config.augmentation
    return [
        (len(augmentation.short_sides) > 0, "augmentation.short_sides needs at least one value; got none"),
        (len(augmentation.crop_short_sides) > 0, "augmentation.crop_short_sides needs at least one value; got none"),
        (
            not augmentation.scale_jitter
            or (len(augmentation.scale_jitter) == 2 and augmentation.scale_jitter[0] <= augmentation.scale_jitter[1]),
            "augmentation.scale_jitter takes the smallest and the largest factor, or nothing; "
            f"got {augmentation.scale_jitter}",
        ),
        (
            len(augmentation.crop_sides) == 2 and augmentation.crop_sides[0] <= augmentation.crop_sides[1],
            f"augmentation.crop_sides takes the smallest and the largest side; got {augmentation.crop_sides}",
        ),
        (
            data.video is None or not augmentation.copy_paste,
            "augmentation.copy_paste is for images: in video a pasted object would be in one frame alone; "
            f"got {augmentation.copy_paste} with data.video: leave it at 0",
        ),
    ]


def _training_rules(config: TrainConfig) -> list[tuple[bool, str]]:
    data, schedule, thaw = config.data, config.schedule, config.backbone.thaw
    milestones = schedule.milestones if schedule.decay == "step" else []
    return [
        (all(a < b for a, b in itertools.pairwise(milestones)), f"schedule.milestones must rise; got {milestones}"),
        (
            all(epoch < schedule.epochs for epoch in milestones),
            "schedule.milestones must lie before schedule.epochs, or they never happen; "
            f"got {milestones} and {schedule.epochs} epochs: give both, or choose a schedule",
        ),
        (
            data.batch_size % config.trainer.accumulate == 0,
            "trainer.accumulate must divide data.batch_size; "
            f"got {config.trainer.accumulate} for {data.batch_size} images",
        ),
        (
            not config.trainer.sync_batchnorm or not library_of(config.backbone.name),
            f"trainer.sync_batchnorm cannot be had with {config.backbone.name}: PyTorch exchanges every BatchNorm, and "
            "those of timm compute more than that; backbone.norm=fixed needs none",
        ),
        (
            thaw is None or config.backbone.frozen_stages >= 0,
            "backbone.thaw lets frozen stages train, and backbone.frozen_stages=-1 freezes none; got backbone.thaw="
            f"{thaw}: leave it out, or set backbone.frozen_stages",
        ),
        (
            thaw is None or thaw < schedule.epochs,
            "backbone.thaw must lie before schedule.epochs, or it never happens; "
            f"got {thaw} and {schedule.epochs} epochs",
        ),
        (len(config.optimizer.betas) == 2, f"optimizer.betas takes two numbers; got {config.optimizer.betas}"),
    ]
