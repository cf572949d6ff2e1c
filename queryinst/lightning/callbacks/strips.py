"""The same validation clips at every evaluation: a strip of frames with the true tracks over one with those found."""

from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from queryinst.data.images import read_image
from queryinst.data.youtube_vis import VideoFile
from queryinst.lightning.callbacks.pictures import Pictures, annotated
from queryinst.structures import Detections
from queryinst.tracking.tracker import Tracker
from queryinst.video_config import TrackerConfig
from queryinst.visualize import draw
from queryinst.visualize.draw import Picture

FRAMES = 6  # of a clip that are shown, evenly spread
CLIPS = 4  # at most: a strip is wide


class Strips(Pictures):
    """The first clips of the set; a colour is a track.

    Args:
        count: how many clips; at most `CLIPS`.
        tracker: how instances are linked.
    """

    def __init__(self, source: VideoFile, folder: Path, count: int, score: float, tracker: TrackerConfig) -> None:
        self.video, self.tracker = source, tracker
        spans = [range(*source.ends[clip : clip + 2]) for clip in range(min(count, CLIPS, len(source.videos)))]
        even = np.linspace(0, 1, FRAMES)
        self.strips = [[span[round(part * (len(span) - 1))] for part in even] for span in spans]
        super().__init__(source, folder, score, {frame for span in spans for frame in span})

    def picture(self, found: dict[int, Detections], trainer: pl.Trainer) -> Picture | None:
        tracked, names = linked(found, self.video, self.tracker), self.source.categories.names
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
        headings = ["true tracks over those found", *[""] * (FRAMES - 1)]
        return draw.grid(rows, headings, side=200) if rows else None


def linked(found: dict[int, Detections], source: VideoFile, config: TrackerConfig) -> dict[int, Detections]:
    """Detections of frames (by their ids), with the tracks that a tracker gives them, video by video."""
    tracker, video, tracked = Tracker(config), None, {}
    for frame in sorted(found):
        if source.places[frame][0] != video:
            video = source.places[frame][0]
            tracker.reset()
        tracked[frame] = tracker.update(found[frame])
    return tracked
