"""Settings of video: association embeddings, where clips come from, and how instances are linked from frame to frame.

Part of the tree in `config.py`; what is not used there is None. No torch in this file.
"""

from dataclasses import dataclass

from queryinst.settings import REQUIRED, setting


@dataclass
class AssociationConfig:
    """The association head of every stage (reference, 6.2)."""

    head: str = setting(
        "query",
        "what reads a query's region: a dynamic convolution that the query generates (QueryTrack), or plain layers "
        "(MaskTrack R-CNN)",
        choices=("query", "plain"),
    )
    width: int = setting(256, "numbers of an embedding, and channels inside the head", at_least=1, at_most=4096)


@dataclass
class ShapesVideoConfig:
    """The embedded clips: everything that their frames depend on."""

    train: int = setting(REQUIRED, "training clips", at_least=1)
    val: int = setting(REQUIRED, "validation clips", at_least=1)
    frames: int = setting(16, "frames of a clip; of training clips every fourth one is kept", at_least=2, at_most=1000)
    side: int = setting(128, "longer side of a frame, pixels", at_least=64, at_most=4096)
    seed: int = setting(0, "seed of the generator", at_least=0, at_most=2**32 - 1)


@dataclass
class VideoConfig:
    """Data in YouTube-VIS format: a step's images are pairs, a key frame and a reference frame of the same video."""

    reference_range: int = setting(
        100, "frames that a reference frame lies from its key frame, at most; never the same frame", at_least=1
    )
    shapes: ShapesVideoConfig | None = setting(None, "make the embedded clips in `data.root` if they are not there")


@dataclass
class TrackerConfig:
    """Linking the detections of a frame to the tracks so far, online (reference, 6.4): `tracking/tracker.py`."""

    by: str = setting(
        "embedding",
        "what tells instances apart: embeddings with box, class and score; box and class; the query; or, to see what "
        "perfect linking of the same detections would give, the ground truth of an evaluation",
        choices=("embedding", "iou", "query", "truth"),
        identity="set",
    )
    score: float = setting(0.05, "lowest score of a detection that takes part", at_least=0, at_most=1, identity="set")
    max_detections: int = setting(100, "detections of a frame that take part, at most", at_least=1, identity="set")
    birth_score: float = setting(
        0.3, "lowest score of a detection that begins a track", at_least=0, at_most=1, identity="set"
    )
    duplicate_iou: float = setting(
        0.5,
        "mask overlap with a better detection, from which a detection is a duplicate and left out; 1: the same pixels",
        above=0,
        at_most=1,
        identity="set",
    )
    iou_weight: float = setting(2.0, "weight of the overlap with the track's last box", at_least=0, identity="set")
    class_weight: float = setting(3.0, "what it costs to continue a track of another class", at_least=0, identity="set")
    score_weight: float = setting(1.0, "weight of the logarithm of the score", at_least=0, identity="set")
    min_iou: float = setting(
        0.3, "by=iou: lowest overlap that continues a track", at_least=0, at_most=1, identity="set"
    )
    momentum: float = setting(
        0.5, "share of a track's embedding that stays when it is seen again", at_least=0, at_most=1, identity="set"
    )
    retain: int = setting(20, "frames that an unseen track is remembered", at_least=0, identity="set")
