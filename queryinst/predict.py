"""`python -m queryinst.predict`: instances drawn on images and videos, and a COCO results file.

python -m queryinst.predict checkpoint=outputs/RUN/best.ckpt source=photo.jpg
python -m queryinst.predict checkpoint=mmdet:1x_pro100 source=photo.jpg           published weights, fetched once
python -m queryinst.predict checkpoint=... source=FOLDER output=OVERLAYS score=0.5 classes=[cat,dog]
python -m queryinst.predict checkpoint=... source='photos/**/*.jpg' cutouts=true nms=0.6
python -m queryinst.predict checkpoint=... source=clip.mp4        an overlay video, and a frame number for each entry
                                         with a model for video, tracks in their colours, and tracks.json
python -m queryinst.predict checkpoint=... source=clip.mp4 tracker.by=iou      tracks of any model, by overlap
python -m queryinst.predict checkpoint=... source=FRAMES tracker.by=embedding  a folder whose images are one video
python -m queryinst.predict checkpoint=... source=0               a camera, until Ctrl+C
"""

import contextlib
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from queryinst.command_config import PredictConfig
from queryinst.errors import UserError, room
from queryinst.settings import changed
from queryinst.studies.command import command

if TYPE_CHECKING:
    from queryinst.inference.sources import Files, Video


@command("predict", PredictConfig)
def main(config: PredictConfig) -> None:
    from queryinst.inference.sources import Video, open_source

    warnings.filterwarnings("ignore", module="PIL")  # of odd files: what cannot be read is said in a line
    source = open_source(config.source)
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    import queryinst
    from queryinst.inference.overlap import overlapped
    from queryinst.inference.record import RESULTS, TRACKS, Record
    from queryinst.inference.tracking import Story, tracked

    predictor = queryinst.load(config.checkpoint, config.accelerator, config.precision, config.allow)
    tracker, told = changed(predictor.tracker, config.tracker), config.tracker.by is not None
    # A model for video tracks, and any other that is told how. Files are the frames of one only where that is said.
    files = 0 if isinstance(source, Video) else source.total
    follows = told and files > 1 if files else told or predictor.model.associates
    problems: list[str] = []
    results = predictor.stream(
        source,
        batch_size=config.batch_size,
        workers=config.num_workers,
        hold=config.overlays or config.cutouts,
        fault=lambda error: problems.append(str(error)),
        score=min(config.score, tracker.score) if follows else config.score,
        classes=config.classes,
        one_class=config.one_class,
        nms=config.nms,
        max_detections=config.max_detections,
        stages=config.stages,
        proposals=config.proposals,
    )
    if follows:
        results = tracked(results, tracker)
    story = Story(predictor.category_ids, files) if follows and not source.live else None  # a camera has no end
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    began = time.monotonic()
    with (
        room(config.output),
        Record(Path(config.output), source, config.overlays, config.cutouts, config.score, story) as record,
        progress,
    ):
        task = progress.add_task("", total=source.total, rate="")
        with (
            contextlib.closing(overlapped(record.draw, results, config.num_workers, config.num_workers)) as drawn,
            contextlib.suppress(*[KeyboardInterrupt] if source.live else []),  # which is how a camera ends
        ):
            for one in drawn:
                record.add(one)
                speed = f"{record.pictures / (time.monotonic() - began):.1f} {source.unit}s/s"
                progress.update(task, completed=record.pictures + len(problems), rate=speed)
    if not record.pictures and problems:
        raise UserError(f"none of the {len(problems)} {source.unit}s can be read, first: {problems[0]}")
    if not record.pictures:
        raise UserError(f"source={config.source} has no frame that can be read")
    if source.total and record.pictures + len(problems) < 0.95 * source.total:  # a header may be a little wrong
        problems.append(f"the end of {config.source}: of its {source.total} frames {record.pictures} can be read")
    _say_skipped(source, problems)
    rate = record.pictures / (time.monotonic() - began)
    print(
        f"{record.instances} instances in {record.pictures} {source.unit}s, {rate:.1f} {source.unit}s a second; "
        f"{'overlays and ' if config.overlays else ''}{RESULTS} are in {config.output}"
        + (f"; {len(story.linked.tracks)} tracks in {TRACKS}" if story else "")
    )
    if not record.instances:
        print(f"nothing has a score of {config.score:g} or more; a lower score=NUMBER shows what is less sure")


def _say_skipped(source: "Files | Video", problems: list[str]) -> None:
    """Name what was not looked at, or could not be."""
    left_out = getattr(source, "left_out", [])
    if left_out:
        some = ", ".join(left_out[:10]) + (", ..." if len(left_out) > 10 else "")
        print(f"left out, as no images that can be read ({len(left_out)}): {some}", file=sys.stderr)
    for problem in problems:
        print(f"skipped: {problem}", file=sys.stderr)


if __name__ == "__main__":
    main()
