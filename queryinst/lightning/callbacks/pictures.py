"""The same validation images at every evaluation."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from queryinst.data.coco import CocoFile, outline_of
from queryinst.data.images import ImageFile, read_image
from queryinst.lightning.callbacks.overlays import overlays
from queryinst.lightning.loggers import send_picture
from queryinst.ops.masks import LocalMask, rasterise
from queryinst.ops.ranks import of_all_ranks
from queryinst.structures import Batch, Detections
from queryinst.visualize import draw
from queryinst.visualize.draw import Picture


class Pictures(pl.Callback):
    """After every evaluation within a training, writes `pictures/epoch_NNN.png` and sends it to the loggers that take
    images. Subclasses say what is on it.

    Args:
        source: the validation set.
        folder: of the run.
        score: lowest score of a prediction that is drawn.
        shown: ids of the images whose detections it needs.
    """

    def __init__(self, source: CocoFile, folder: Path, score: float, shown: set[int]) -> None:
        self.source, self.folder, self.score, self.shown = source, folder / "pictures", score, shown
        self.found: dict[int, Detections] = {}

    def picture(self, found: dict[int, Detections], trainer: pl.Trainer) -> Picture | None:
        """The picture (H, W, 3) uint8 RGB of the detections of images, by id; None where there is nothing to show."""
        raise NotImplementedError

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
            if image_id in self.shown:
                self.found[image_id] = detections.cpu()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        found = of_all_ranks(self.found)
        if not found or not trainer.is_global_zero:
            return
        picture = self.picture(found, trainer)
        if picture is not None:
            draw.write(picture, self.folder / f"epoch_{trainer.current_epoch + 1:03d}.png")
            send_picture(trainer.loggers, "val/pictures", picture, trainer.global_step - 1)


class ImagePictures(Pictures):
    """The first images of the set, ground truth beside prediction; W&B gets overlays besides.

    Args:
        count: how many images.
    """

    def __init__(self, source: CocoFile, folder: Path, count: int, score: float) -> None:
        self.images = {image.id: image for image in source.images[:count]}
        super().__init__(source, folder, score, set(self.images))

    def picture(self, found: dict[int, Detections], trainer: pl.Trainer) -> Picture | None:
        names = self.source.categories.names
        images = [self.images[image_id] for image_id in sorted(found)]
        pixels = [read_image(image) for image in images]
        truth = [annotated(image, self.source) for image in images]
        predicted = [draw.detected(found[image.id].above(self.score), names) for image in images]
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.WandbLogger):
                layers = [{"ground truth": t, "prediction": p} for t, p in zip(truth, predicted, strict=True)]
                shown: Any = overlays(pixels, layers, names, [f"image {image.id}" for image in images])
                logger.log_metrics({"val/overlays": shown}, trainer.global_step - 1)
        rows = [
            [draw.overlay_layer(of_image, layer) for layer in pair]
            for of_image, *pair in zip(pixels, truth, predicted, strict=True)
        ]
        half = -(-len(rows) // 2)  # two images side by side
        rows = [left + right for left, right in zip(rows[:half], [*rows[half:], rows[-1]], strict=False)]
        return draw.grid(rows, ["ground truth", "prediction"] * 2)


def _rectangle(box: list[float]) -> list[list[float]]:
    """A box as a polygon: of an object without a mask, that is what is known."""
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def annotated(image: ImageFile, source: CocoFile) -> draw.Layer:
    """The annotations of an image, crowd regions too; of a frame of a video, with their tracks."""
    masks, captions = [], []
    categories = source.categories
    annotations = source.annotations(image)
    labels = [categories.ids.index(annotation["category_id"]) for annotation in annotations]
    for annotation, label in zip(annotations, labels, strict=True):
        outline = outline_of(annotation["segmentation"] or _rectangle(annotation["bbox"]))
        masks.append(
            outline
            if isinstance(outline, LocalMask)
            else LocalMask(rasterise([outline], image.height, image.width)[0], 0, 0)
        )
        captions.append(categories.names[label] + (" (crowd)" if annotation.get("iscrowd") else ""))
    tracks = [annotation["track"] for annotation in annotations if "track" in annotation]
    return draw.Layer(masks, labels, captions, tracks or None)
