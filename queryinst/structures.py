"""The data contract: what travels between data, network, criterion and evaluation.

One legend for shapes, used in every docstring:

    B images    N queries per image    S stages    d query width    K classes
    G ground truths of the whole batch (images one after another)    M matched pairs of the whole batch
    R side of a stored ground-truth mask    H, W canvas of the batch (padded to a multiple of 32)

Boxes are `xyxy` in pixels of the resized, unpadded image unless a name says `cxcywh` or `normalized`. Labels run from
0 to K-1 in the order of ascending category id; there is no background label.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, Self

from torch import Tensor

from queryinst.ops.roi import FeaturePyramid

COUNTED = 100  # detections of a class in an image that COCO's average precision counts
UNKNOWN = 2  # in place of the 0 and 1 of a mask that nobody has drawn: the object is there, its outline is not known


class _Movable:
    """Moves every tensor field of a dataclass at once; Lightning and `DataLoader(pin_memory=True)` look for these."""

    def _map(self, move: Callable[[Any], Any]) -> Self:
        moved = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        for name, value in moved.items():
            if isinstance(value, Tensor | _Movable):
                moved[name] = move(value)
        return replace(self, **moved)  # type: ignore[type-var]

    def to(self, *args: Any, **kwargs: Any) -> Self:
        return self._map(lambda value: value.to(*args, **kwargs))

    def pin_memory(self) -> Self:
        return self._map(lambda value: value.pin_memory())


@dataclass(frozen=True)
class Targets(_Movable):
    """Ground truth of a batch, images one after another (crowd regions take no part and are not here).

    A mask is stored as an R x R bitmap of its own small region instead of a bitmap of the image, so that sixty
    instances cost 0.75 MB whatever the image size. `mask_boxes` says which region of the image the bitmap covers, edge
    to edge. A bitmap of the whole image with `mask_boxes = (0, 0, W, H)` gives the references' exact targets.
    """

    boxes: Tensor  # (G, 4) float32 xyxy
    labels: Tensor  # (G,) int64
    masks: Tensor  # (G, R, R) uint8, 0 or 1, or UNKNOWN throughout; any other height and width serve as well
    mask_boxes: Tensor  # (G, 4) float32 xyxy
    counts: list[int]  # ground truths of each image; sums to G
    tracks: Tensor | None = None  # (G,) int64, in video: equal for the same object of the same video


@dataclass(frozen=True)
class Batch(_Movable):
    """Images as the loader ships them: bytes, padded bottom and right. The model normalises and zeroes the padding."""

    images: Tensor  # (B, 3, H, W) uint8 RGB
    sizes: Tensor  # (B, 2) int64 height, width of each image inside the canvas
    original_sizes: Tensor  # (B, 2) int64 height, width of the image file
    image_ids: list[int]  # as in the annotation file
    targets: Targets
    problems: list[str]  # images that could not be read and were replaced by others


@dataclass(frozen=True)
class StageOutput:
    """What one stage says about every query."""

    logits: Tensor  # (B, N, K) before the sigmoid
    boxes: Tensor  # (B, N, 4) xyxy after this stage's refinement, with gradient, not clipped to the image
    queries: Tensor  # (B, N, d) handed to the next stage
    mask_queries: Tensor  # (B, N, d) the query after self-attention: what this stage's mask head reads
    chosen: Tensor | None = None  # (B, n) int64 in 0..N-1: which, where only n queries came so far, and n is N above
    deltas: Tensor | None = None  # (B, N, 4) float32 by which `boxes` were refined, as of `ops.boxes.refine`


class Candidates(NamedTuple):
    """What each of the L places of an image's pyramid says of an object there, where proposals are chosen of them."""

    logits: Tensor  # (B, L) float32: it is the place of one
    boxes: Tensor  # (B, L, 4) float32 xyxy pixels of it
    places: Tensor  # (L, 2) float32 x, y pixels
    inside: Tensor  # (B, L) bool: not in the padding of the image


@dataclass(frozen=True)
class Output:
    """What `QueryInst.forward` returns: enough to match, to compute every loss, and to ask for any mask."""

    pyramid: FeaturePyramid  # P2..P5
    stages: list[StageOutput]  # S of them
    numbers: list[int] | None = None  # which stage gave each of `stages`; None: in order
    groups: list[Output] = field(default_factory=list)  # of further queries, in training
    candidates: Candidates | None = None  # in training, where proposals come from the pyramid


class Sight(NamedTuple):
    """Some of the N queries, side by side, that see one another in self-attention and no others."""

    number: int  # n of them
    hidden: Tensor | None = None  # (B, n, n) bool, True where one (row) does not see another all the same


@dataclass(frozen=True)
class Rows:
    """Some queries of some images, and the class whose mask is wanted: three index tensors of one length M."""

    image: Tensor  # (M,) int64 in 0..B-1
    query: Tensor  # (M,) int64 in 0..N-1: the place in the stage's output
    label: Tensor  # (M,) int64 in 0..K-1


class Drawn(NamedTuple):
    """Masks of some queries of a stage."""

    logits: Tensor  # (M, 2k, 2k) in the frame of the stage's own box, k = `model.mask_resolution`
    quality: Tensor | None = None  # (M,) logits of their IoU with the object, of a model that guesses it


@dataclass(frozen=True)
class Matches:
    """The assignment of every stage. Each stage matches the same number of pairs: sum over images of min(N, G_i)."""

    image: Tensor  # (M,) int64, the same for all stages
    query: Tensor  # (S, M) int64 in 0..N-1
    target: Tensor  # (S, M) int64 in 0..G-1

    def rows(self, labels: Tensor) -> list[Rows]:
        """The matched queries of each stage with the class of their ground truth (`labels`: (G,))."""
        return [Rows(self.image, query, labels[target]) for query, target in zip(self.query, self.target, strict=True)]


@dataclass(frozen=True)
class Detections:
    """What was found in one image, in pixels of the ORIGINAL image, highest score first."""

    boxes: Tensor  # (D, 4) float32 xyxy
    scores: Tensor  # (D,) float32 in 0..1
    labels: Tensor  # (D,) int64
    masks: Tensor  # (D, 28, 28) float32 probabilities inside the box; `ops.masks` pastes or encodes them
    size: tuple[int, int]  # height, width of the original image
    queries: Tensor | None = None  # (D,) int64 in 0..N-1, where a network found them: which query
    embeddings: Tensor | None = None  # (D, E) float32, of a network with association heads
    tracks: Tensor | None = None  # (D,) int64, of a tracker: equal for the same object of the video

    def above(self, score: float) -> Detections:
        """Only the detections whose score is at least `score`."""
        return self.take(self.scores >= score)

    def take(self, which: Tensor) -> Detections:
        """The detections that `which` selects: a bool mask (D,) or int64 positions."""
        return self._each(lambda column: column[which])

    def cpu(self) -> Detections:
        return self._each(lambda column: column.cpu())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Detections:
        columns = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        changed: dict[str, Any] = {n: change(column) for n, column in columns.items() if isinstance(column, Tensor)}
        return replace(self, **changed)
