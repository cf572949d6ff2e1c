"""The picture grid: the same images every time, ground truth beside prediction, sent to the loggers that take it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from pytorch_lightning.loggers import TensorBoardLogger

from queryinst.data.coco import CocoFile
from queryinst.lightning.callbacks.pictures import ImagePictures, annotated
from queryinst.structures import Detections
from queryinst.visualize.draw import overlay


def detections(image: Any, score: float) -> Detections:
    """One square in the middle."""
    boxes = torch.tensor([[image.width / 4, image.height / 4, image.width * 3 / 4, image.height * 3 / 4]])
    return Detections(
        boxes, torch.tensor([score]), torch.tensor([0]), torch.full((1, 28, 28), 0.9), (image.height, image.width)
    )


def show(folder: Path, source: CocoFile, score: float, count: int, loggers: Any = (), fn: str = "fit") -> list[Path]:
    pictures: Any = ImagePictures(source, folder, count, 0.3)
    trainer = SimpleNamespace(
        state=SimpleNamespace(fn=fn), is_global_zero=True, current_epoch=4, global_step=77, loggers=loggers
    )
    for image in source.images:
        pictures.on_validation_batch_end(
            trainer, None, [detections(image, score)], SimpleNamespace(image_ids=[image.id]), 0
        )
    pictures.on_validation_end(trainer, None)
    return list((folder / "pictures").glob("*"))


def test_a_grid_of_fixed_images(tmp_path: Path, shapes_source: Path):
    source = CocoFile(shapes_source / "annotations/instances_val.json", shapes_source / "images/val")
    (with_squares,) = show(tmp_path / "a", source, 0.9, 3)
    (without,) = show(tmp_path / "b", source, 0.1, 3)
    assert with_squares.name == "epoch_005.png"
    first, second = cv2.imread(str(with_squares)), cv2.imread(str(without))
    assert first.shape == second.shape == (28 + 2 * 320, 4 * 320, 3), "three images in two rows, each twice"
    differs = np.abs(first.astype(int) - second).max(2).any(0)
    assert not differs[:320].any(), "the ground truth stays"
    assert differs[320:640].any(), "a score below the limit is not drawn"


def test_loggers_that_take_pictures_get_them(tmp_path: Path, shapes_source: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    source = CocoFile(shapes_source / "annotations/instances_val.json", shapes_source / "images/val")
    logger = TensorBoardLogger(tmp_path, name="", version="tb")
    show(tmp_path, source, 0.9, 2, [logger])
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tb")).Reload()
    (image,) = events.Images("val/pictures")
    assert (image.step, image.width, image.height) == (76, 1280, 348)


def test_no_grid_outside_training(tmp_path: Path, shapes_source: Path):
    source = CocoFile(shapes_source / "annotations/instances_val.json", shapes_source / "images/val")
    assert show(tmp_path, source, 0.9, 2, fn="validate") == []


def test_ground_truth_draws_every_kind_of_mask(shapes_source: Path):
    """Polygons, both kinds of RLE and crowd regions change the picture where the mask is, as pycocotools has it."""
    source = CocoFile(shapes_source / "annotations/instances_train.json", shapes_source / "images/train")
    coco = COCO(shapes_source / "annotations/instances_train.json")
    seen = set()
    for image in source.images:
        plain = np.full((image.height, image.width, 3), 99, np.uint8)
        layer = annotated(image, source)
        annotations = source.annotations(image)
        assert len(layer.masks) == len(layer.captions) == len(annotations)
        for annotation, mask, caption in zip(annotations, layer.masks, layer.captions, strict=True):
            drawn = (overlay(plain, [mask], [""]) != 99).any(2)
            truth = coco.annToMask(coco.anns[annotation["id"]]).astype(bool)
            times = len(drawn) // len(truth)  # small images are drawn larger
            truth = truth.repeat(times, 0).repeat(times, 1)
            assert (drawn & truth).sum() > 0.8 * (drawn | truth).sum()
            assert caption.endswith(" (crowd)") == bool(annotation["iscrowd"])
            outline, crowd = annotation["segmentation"], annotation["iscrowd"]
            seen.add(("polygons" if isinstance(outline, list) else type(outline["counts"]).__name__, crowd))
    assert {kind for kind, _ in seen} == {"polygons", "str", "list"}
