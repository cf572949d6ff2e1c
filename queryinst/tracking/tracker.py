"""Links the detections of a video frame by frame, online ("data association"; MaskTrack R-CNN's tracker, solved).

A track continues with the detection of highest similarity, in the units of the embeddings' logits (reference, 6.2):

    e . r  +  score_weight * log(score)  +  iou_weight * IoU with the last box  -  class_weight where classes differ

and "new" has the similarity 0, as in the training loss. Published trackers take, detection by detection, the best of
log softmax [0, e . r ...] with such terms, so that an identity can be given twice in a frame. Here one assignment of
the whole frame maximises the sum. Two things follow:

* What is the same for all choices of a detection cancels: the softmax's denominator, and a score term that "new" had
  too. So the score counts for continuing only, where it decides between rivals: the weaker, the more alike it must be.
* The class term is a price for changing the class and no reward for keeping it. Theirs is a reward of 10 that "new"
  does not get; in an assignment it hands a new object to any forgotten track of its class, and a duplicate to a
  bystander. As a price, 10 would cut a track wherever its class flickers; 3 is what an overlap and a half can pay.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from queryinst.errors import UserError
from queryinst.ops.codes import encode_all
from queryinst.ops.masks import overlaps
from queryinst.structures import Detections
from queryinst.video_config import TrackerConfig

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class _Seen(NamedTuple):
    """Detections of a frame on the host, best first."""

    scores: Floats  # (D,)
    labels: Ints  # (D,)
    boxes: Floats  # (D, 4) xyxy pixels
    queries: Ints  # (D,), -1 where it is not known
    embeddings: Floats  # (D, E), E is 0 where there are none


@dataclass
class _Track:
    """What is remembered of an instance."""

    identity: int
    box: Floats  # (4,) xyxy pixels, where it was last
    embedding: Floats  # (E,) exponential average
    votes: Counter[int]  # label to the frames that it was seen with it
    frame: int  # when it was seen last

    @property
    def label(self) -> int:
        """The label seen most often, of several the one that came first."""
        return self.votes.most_common(1)[0][0]


class Tracker:
    """Gives the instances of one video their identities, frame after frame in order.

    The result does not depend on the order of the detections in a frame. Memory is bounded, by the tracks that can
    begin in `retain + 1` frames, so a frame costs the same however long the video is. With `by=query` the identity is
    the query, as for a network trained so that a query follows one object through a clip; nothing is compared.

    Raises:
        UserError: `by=truth`, which only an evaluation can do.
    """

    def __init__(self, config: TrackerConfig) -> None:
        if config.by == "truth":
            raise UserError(
                "tracker.by=truth takes the ground truth of an evaluation: give embedding, iou or query here"
            )
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forget everything: another video begins."""
        self._tracks: list[_Track] = []
        self._begun: set[int] = set()  # queries that are tracks, by=query
        self._next, self._frame = 0, 0

    def update(self, detections: Detections) -> Detections:
        """The detections of the next frame that continue or begin a track, best first, with `tracks`.

        Raises:
            UserError: embeddings or queries are needed, and the detections have none.
        """
        self._require(detections)
        kept = taking_part(detections, self.config)
        identities = self._identities(_on_host(kept))
        tracks = torch.from_numpy(identities).to(kept.scores.device)
        return replace(kept, tracks=tracks).take(tracks >= 0)

    def _identities(self, seen: _Seen) -> Ints:
        """Of the detections that take part (D,), -1 for those that are left out."""
        if self.config.by == "query":
            self._begun.update(seen.queries[seen.scores >= self.config.birth_score].tolist())
            return np.array([query if query in self._begun else -1 for query in seen.queries.tolist()], np.int64)
        identities = self._continue(seen)
        self._begin(seen, identities)
        self._tracks = [track for track in self._tracks if self._frame - track.frame <= self.config.retain]
        self._frame += 1
        return identities

    def _require(self, detections: Detections) -> None:
        if self.config.by == "embedding" and detections.embeddings is None:
            raise UserError(
                "tracker.by=embedding needs a model with association heads, and this one has none: give tracker.by=iou "
                "or train with model.association"
            )
        if self.config.by == "query" and detections.queries is None:
            raise UserError("tracker.by=query needs detections that know their query: give tracker.by=iou")

    def _continue(self, seen: _Seen) -> Ints:
        """The tracks that go on with these detections (D,), -1 for those that continue none."""
        identities = np.full(len(seen.scores), -1, np.int64)
        if not self._tracks:
            return identities
        similarity = self._similarity(seen)
        # A similarity of 0 or less is as good as "new", so that a column for it need not be there.
        for row, column in zip(*linear_sum_assignment(np.maximum(similarity, 0), maximize=True), strict=True):
            if similarity[row, column] > 0:
                track, share = self._tracks[column], np.float32(self.config.momentum)
                identities[row] = track.identity
                track.embedding = share * track.embedding + (1 - share) * seen.embeddings[row]
                track.box, track.frame = seen.boxes[row], self._frame
                track.votes[int(seen.labels[row])] += 1
        return identities

    def _similarity(self, seen: _Seen) -> Floats:
        """(D, M) of the detections with the tracks."""
        config = self.config
        overlap = iou(seen.boxes, np.stack([track.box for track in self._tracks]))
        other_class = seen.labels[:, None] != np.array([track.label for track in self._tracks])
        if config.by == "iou":
            return overlap - config.min_iou - config.class_weight * other_class
        alike = seen.embeddings @ np.stack([track.embedding for track in self._tracks]).T
        sure = np.log(np.maximum(seen.scores, 1e-6))[:, None]
        return alike + config.score_weight * sure + config.iou_weight * overlap - config.class_weight * other_class

    def _begin(self, seen: _Seen, identities: Ints) -> None:
        """Begin tracks with good detections that have none, and write them into `identities`."""
        for row in np.flatnonzero((identities < 0) & (seen.scores >= self.config.birth_score)):
            identities[row] = self._next
            votes = Counter([int(seen.labels[row])])
            self._tracks.append(_Track(self._next, seen.boxes[row], seen.embeddings[row], votes, self._frame))
            self._next += 1


def taking_part(detections: Detections, config: TrackerConfig) -> Detections:
    """Those that a tracker with these settings links, best first.

    They are good enough, of each query its best class, so many at most, and, unless the query is the identity, without
    duplicates.
    """
    seen = _on_host(detections)
    # The score counts first, all else only to tell equal ones apart, whatever order they come in.
    order = np.lexsort((*seen.boxes.T, seen.queries, seen.labels, -seen.scores))
    order = order[seen.scores[order] >= config.score]
    if (seen.queries >= 0).all():
        order = order[np.sort(np.unique(seen.queries[order], return_index=True)[1])]
    kept = detections.take(torch.from_numpy(order[: config.max_detections]).to(detections.scores.device))
    return kept if config.by == "query" else _distinct(kept, config.duplicate_iou)


def _distinct(detections: Detections, highest: float) -> Detections:
    """Without those whose mask overlaps that of a better one by `highest` or more, of whatever class.

    Two queries may find one object, and both have its embedding: the second would begin a track, or take that of an
    object that is hidden. Masks tell it from an object that is partly behind the first; their boxes may be the same.
    """
    codes = encode_all(detections.masks.cpu().numpy(), detections.boxes.cpu().numpy(), detections.size)
    overlap = overlaps(codes, codes)
    distinct: list[int] = []
    for row in range(len(codes)):
        if (overlap[row, distinct] < highest).all():
            distinct.append(row)
    return detections.take(torch.tensor(distinct, dtype=torch.int64, device=detections.scores.device))


def _on_host(detections: Detections) -> _Seen:
    """One copy from the device; a float32 holds every index up to 16 million."""
    count = len(detections.scores)
    queries, embeddings = detections.queries, detections.embeddings
    columns = [
        detections.scores[:, None],
        detections.labels[:, None],
        detections.boxes,
        torch.full_like(detections.scores, -1)[:, None] if queries is None else queries[:, None],
        detections.boxes.new_zeros(count, 0) if embeddings is None else embeddings,
    ]
    table = torch.cat([column.detach().float() for column in columns], 1).cpu().numpy()
    return _Seen(table[:, 0], table[:, 1].astype(np.int64), table[:, 2:6], table[:, 6].astype(np.int64), table[:, 7:])


def iou(a: Floats, b: Floats) -> Floats:
    """(A, 4) and (B, 4) boxes to (A, B), 0 where both are empty."""
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    overlap = np.maximum(sides, 0).prod(2)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1) for boxes in (a, b)]
    return overlap / np.maximum(areas[0][:, None] + areas[1] - overlap, 1e-9)
