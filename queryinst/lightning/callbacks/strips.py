"""The same validation clips at every evaluation: a strip of frames with the true tracks over one with those found."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl

from queryinst.data.images import read_image
from queryinst.data.youtube_vis import VideoFile
from queryinst.lightning.callbacks.pictures import annotated
from queryinst.lightning.loggers import send_picture
from queryinst.ops.ranks import of_all_ranks
from queryinst.structures import Batch, Detections
from queryinst.tracking.tracker import Tracker
from queryinst.video_config import TrackerConfig
from queryinst.visualize import draw

FRAMES = 6  # of a clip that are shown, evenly spread
CLIPS = 4  # at most: a strip is wide


class Strips(pl.Callback):
    """Writes `pictures/epoch_NNN.png`, in which a colour is a track, and sends it to the loggers that take images.

    Args:
        source: the validation set.
        folder: of the run.
        count: how many clips, the first ones of the set; at most `CLIPS`.
        score: lowest score of a prediction that is drawn.
        tracker: how instances are linked.
    """

    def __init__(self, source: VideoFile, folder: Path, count: int, score: float, tracker: TrackerConfig) -> None:
        self.source, self.folder, self.score, self.tracker = source, folder / "pictures", score, tracker
        spans = [range(*source.ends[clip : clip + 2]) for clip in range(min(count, CLIPS, len(source.videos)))]
        even = np.linspace(0, 1, FRAMES)
        self.strips = [[span[round(part * (len(span) - 1))] for part in even] for span in spans]
        self.shown = {frame for span in spans for frame in span}
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
        for frame, detections in zip(batch.image_ids, outputs, strict=True):
            if frame in self.shown:
                self.found[frame] = detections.cpu()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        found = of_all_ranks(self.found)
        if not found or not trainer.is_global_zero:
            return
        tracked, names = linked(found, self.source, self.tracker), self.source.categories.names
        rows = []
        for strip in self.strips:
            if not all(frame in tracked for frame in strip):
                continue  # a trial on a few batches
            images = [self.source.images[frame] for frame in strip]
            layers = [
                [annotated(image, self.source) for image in images],
                [draw.detected(tracked[image.id].above(self.score), names) for image in images],
            ]
            pixels = [read_image(image) for image in images]
            rows += [[draw.overlay_layer(*pair) for pair in zip(pixels, row, strict=True)] for row in layers]
        if not rows:
            return
        headings = ["true tracks over those found", *[""] * (FRAMES - 1)]
        picture = draw.grid(rows, headings, side=200)
        self.folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(self.folder / f"epoch_{trainer.current_epoch + 1:03d}.png"), picture[..., ::-1])
        send_picture(trainer.loggers, "val/pictures", picture, trainer.global_step - 1)


def linked(found: dict[int, Detections], source: VideoFile, config: TrackerConfig) -> dict[int, Detections]:
    """Detections of frames (by their ids), with the tracks that a tracker gives them, video by video."""
    tracker, video, tracked = Tracker(config), None, {}
    for frame in sorted(found):
        if source.places[frame][0] != video:
            video = source.places[frame][0]
            tracker.reset()
        tracked[frame] = tracker.update(found[frame])
    return tracked
