"""Images or video: what differs in a run, chosen by its data, here and nowhere else."""

from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl

from queryinst.data.coco import CocoFile
from queryinst.data.youtube_vis import VideoFile
from queryinst.evaluation import coco, youtube_vis
from queryinst.evaluation.coco import CocoEvaluator
from queryinst.evaluation.youtube_vis import VideoEvaluator
from queryinst.lightning.callbacks.pictures import ImagePictures
from queryinst.lightning.callbacks.strips import Strips
from queryinst.logger_config import CallbacksConfig
from queryinst.structures import COUNTED
from queryinst.video_config import TrackerConfig

Evaluator = CocoEvaluator | VideoEvaluator


def evaluator(
    source: CocoFile,
    tracker: TrackerConfig,
    backend: str = "pycocotools",
    keep_matches: bool = False,
    max_detections: int = COUNTED,
    boundary: bool = False,
) -> Evaluator:
    """Who judges what is found in a data set: COCO's average precision, or that of YouTube-VIS with a tracker."""
    if isinstance(source, VideoFile):
        return VideoEvaluator(source.content, dict(enumerate(source.places)), tracker, keep_matches)
    return CocoEvaluator(source.content, backend, keep_matches, max_detections, boundary)


def pictures(source: CocoFile, folder: Path, settings: CallbacksConfig, tracker: TrackerConfig) -> pl.Callback:
    """Who draws what is found in the first images or clips."""
    if isinstance(source, VideoFile):
        return Strips(source, folder, settings.pictures, settings.picture_score, tracker)
    return ImagePictures(source, folder, settings.pictures, settings.picture_score)


def table(metrics: dict[str, float], names: Sequence[str], prefix: str = "") -> str:
    """The metrics of an evaluator as text, for classes of these names."""
    kind = youtube_vis if f"{prefix}association_accuracy" in metrics else coco
    known = ("segm_AP/", "bbox_AP/", "boundary_AP/", "stage_")
    own = [name for name in metrics if "/" in name and not name.startswith(known)] if not prefix else []
    lines = [f"{name:<14} {metrics[name]:.4g}" for name in own]
    return "\n".join([kind.table(metrics, names, prefix), *lines])
