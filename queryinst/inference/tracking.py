"""Instances followed through a video: the results of its frames with tracks, and the tracks as a results file."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from queryinst.evaluation.tubes import Track
from queryinst.evaluation.youtube_vis import Linked, tracks_to_results
from queryinst.inference.overlap import going
from queryinst.inference.result import Result
from queryinst.ops.masks import Rle
from queryinst.tracking.tracker import Tracker
from queryinst.video_config import TrackerConfig


def tracked(results: Iterable[Result], config: TrackerConfig) -> Iterator[Result]:
    """The results of a video's frames, in order, each with the instances that have a track and which one (`tracks`).

    The results must have instances down to the score at which `config` lets one take part.

    Raises:
        UserError: embeddings are wanted, and the model has none.
    """
    tracker = Tracker(config)
    with going(results) as source:
        for result in source:
            yield replace(result, detections=tracker.update(result.detections))


class Seen(NamedTuple):
    """An instance of a frame."""

    track: int
    code: Rle
    score: float
    label: int


def seen_of(result: Result) -> list[Seen]:
    """The instances of a frame that is tracked."""
    assert result.tracks is not None
    columns = (result.tracks.tolist(), result.rles, result.scores.tolist(), result.labels.tolist())
    return [Seen(*row) for row in zip(*columns, strict=True)]


class Story:
    """The tracks of one video, frame by frame; `entries` are those of a results file of YouTube-VIS.

    Args:
        category_ids: of the model, by label.
        length: frames that there are, also where the last of them cannot be read; 0 where only reading tells.
    """

    def __init__(self, category_ids: Sequence[int], length: int = 0) -> None:
        self.category_ids, self.linked, self.length = list(category_ids), Linked(), length

    def add(self, number: int, seen: list[Seen]) -> None:
        """The instances of a frame; numbers rise, and those that cannot be read are left out."""
        self.linked.frames.append(number)
        for one in seen:
            track = self.linked.tracks.setdefault(one.track, Track())
            track.frames.append(number)
            track.codes.append(one.code)
            track.scores.append(one.score)
            track.labels.append(one.label)
        self.length = max(self.length, number + 1)

    def entries(self) -> list[dict[str, Any]]:
        """A track each: video_id 1, category_id, score, and a mask as RLE for each frame, None where it is not seen."""
        return tracks_to_results(1, self.linked, self.length, self.category_ids)
