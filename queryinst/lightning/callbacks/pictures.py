"""The same validation images at every evaluation, ground truth beside prediction."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from queryinst.data.coco import CocoFile, outline_of
from queryinst.data.images import ImageFile, read_image
from queryinst.ops.masks import LocalMask, rasterise
from queryinst.ops.ranks import of_all_ranks
from queryinst.structures import Batch, Detections
from queryinst.visualize import draw


class Pictures(pl.Callback):
    """Writes `pictures/epoch_NNN.png` and sends it to the loggers that take images.

    Args:
        source: the validation set.
        folder: of the run.
        count: how many images, the first ones of the set.
        score: lowest score of a prediction that is drawn.
    """

    def __init__(self, source: CocoFile, folder: Path, count: int, score: float) -> None:
        self.source, self.folder, self.score = source, folder / "pictures", score
        self.images = {image.id: image for image in source.images[:count]}
        self.found: dict[int, Detections] = {}

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for image_id, detections in zip(batch.image_ids, outputs, strict=True):
            if image_id in self.images:
                self.found[image_id] = detections.cpu()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        found = of_all_ranks(self.found)
        if not found or not trainer.is_global_zero:
            return
        names = self.source.categories.names
        rows = [self._row(self.images[image_id], detections, names) for image_id, detections in sorted(found.items())]
        half = -(-len(rows) // 2)  # two images side by side
        rows = [left + right for left, right in zip(rows[:half], [*rows[half:], rows[-1]], strict=False)]
        picture = draw.grid(rows, ["ground truth", "prediction"] * 2)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"epoch_{trainer.current_epoch + 1:03d}.png"
        cv2.imwrite(str(path), picture[..., ::-1])
        for logger in trainer.loggers:
            send(logger, picture, trainer.global_step)

    def _row(self, image: ImageFile, detections: Detections, names: Sequence[str]) -> list[NDArray[np.uint8]]:
        pixels = read_image(image)
        return [ground_truth(pixels, image, self.source), draw.predictions(pixels, detections.above(self.score), names)]


def ground_truth(pixels: NDArray[np.uint8], image: ImageFile, source: CocoFile) -> NDArray[np.uint8]:
    """An image with its annotations, crowd regions too."""
    masks, captions = [], []
    names = dict(zip(source.categories.ids, source.categories.names, strict=True))
    for annotation in source.annotations(image):
        outline = outline_of(annotation["segmentation"])
        masks.append(
            outline
            if isinstance(outline, LocalMask)
            else LocalMask(rasterise([outline], image.height, image.width)[0], 0, 0)
        )
        captions.append(names[annotation["category_id"]] + (" (crowd)" if annotation.get("iscrowd") else ""))
    return draw.overlay(pixels, masks, captions)


def send(logger: Any, picture: NDArray[np.uint8], step: int) -> None:
    """Give a picture to a logger, in the way that it takes pictures, if it does."""
    if isinstance(logger, pl.loggers.WandbLogger):
        logger.log_image("val/pictures", [picture])
    elif isinstance(logger, pl.loggers.TensorBoardLogger):
        logger.experiment.add_image("val/pictures", picture, step, dataformats="HWC")
