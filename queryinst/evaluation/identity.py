"""Do objects keep their identity? Association accuracy (AssA of HOTA) and identity switches, from masks.

Classes have no say: an object that is found with another class is found. Crowd regions take no part.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from queryinst.ops.masks import Rle, overlaps

FOUND = 0.5  # mask IoU from which an object counts as found

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Tube = list[Rle | None]


@dataclass(frozen=True)
class Counts:
    """What the figures are made of; those of several videos are added up."""

    found: int = 0  # times that an object was found in a frame
    accuracy: float = 0.0  # sum over those times of the share that its object and its track have in common
    switches: int = 0  # times that an object was found again, by another track than the last time
    again: int = 0  # times that an object was found again

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.found + other.found,
            self.accuracy + other.accuracy,
            self.switches + other.switches,
            self.again + other.again,
        )


def objects_of(iou: Floats) -> Ints:
    """Which of G objects each of P masks shows (P,), -1 for none: one to one, of highest total IoU (G, P)."""
    shown = np.full(iou.shape[1], -1, np.int64)
    good = np.where(iou >= FOUND, iou, 0)
    for row, column in zip(*linear_sum_assignment(good, maximize=True), strict=True):
        if good[row, column]:
            shown[column] = row
    return shown


def count(objects: list[Tube], tracks: list[Tube], frames: list[int]) -> Counts:
    """Count over one video, as HOTA does at the threshold of 0.5 (Luiten et al., IJCV 2021; TrackEval's `hota.py`).

    Objects and tracks are matched frame by frame, one to one, by IoU times how well the two go together over the whole
    video; a pair with an IoU below 0.5 is none. A match counts with the share of the frames of its object or its track
    in which the two are matched: so association accuracy falls where one object has two tracks, where one track runs
    over two objects, and where an object was not found. Identity switches are those of CLEAR MOT (Bernardin and
    Stiefelhagen, 2008) with these matches.

    Args:
        objects, tracks: the masks of each in every frame of the video, None where it is not there.
        frames: that count, rising.
    """
    scenes = [_scene(objects, tracks, frame) for frame in frames]
    alike = np.zeros((len(objects), len(tracks)))
    seen = [np.zeros(len(objects)), np.zeros(len(tracks))]
    for scene in scenes:
        union = scene.iou.sum(0) + scene.iou.sum(1)[:, None] - scene.iou
        alike[np.ix_(scene.truth, scene.found)] += scene.iou / np.maximum(union, 1e-9)
        seen[0][scene.truth] += 1
        seen[1][scene.found] += 1
    either = seen[0][:, None] + seen[1]
    alike /= np.maximum(either - alike, 1e-9)

    matched = np.zeros_like(alike)
    last: dict[int, int] = {}
    switches = again = 0
    for scene in scenes:
        pairs = linear_sum_assignment(alike[np.ix_(scene.truth, scene.found)] * scene.iou, maximize=True)
        for row, column in zip(*pairs, strict=True):
            if scene.iou[row, column] >= FOUND:
                one, track = int(scene.truth[row]), int(scene.found[column])
                matched[one, track] += 1
                again += one in last
                switches += last.get(one, track) != track
                last[one] = track
    common = matched / np.maximum(either - matched, 1)
    return Counts(int(matched.sum()), float((matched * common).sum()), switches, again)


class _Scene(NamedTuple):
    """One frame: who is there, who was found, and how they overlap."""

    truth: Ints  # (G,) positions of objects
    found: Ints  # (P,) positions of tracks
    iou: Floats  # (G, P)


def _scene(objects: list[Tube], tracks: list[Tube], frame: int) -> _Scene:
    there, seen = (np.array([k for k, tube in enumerate(of) if tube[frame]], np.int64) for of in (objects, tracks))
    masks = ([code for tube in of if (code := tube[frame])] for of in (objects, tracks))
    return _Scene(there, seen, overlaps(*masks))
