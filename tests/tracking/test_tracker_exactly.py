"""The tracker by numbers: what each term of a similarity weighs, who takes part, and what decides between equals."""

import math

import numpy as np
import pytest
import torch
from test_tracker import A, B, config, detection, frame, place

from queryinst.errors import UserError
from queryinst.structures import Detections
from queryinst.tracking.tracker import Tracker, iou, taking_part


def links(first: Detections, second: Detections, **settings: object) -> bool:
    """Whether the second frame's only detection continues the first one's track."""
    tracker = Tracker(config(score=0.0, birth_score=0.0, **settings))
    tracker.update(frame(first))
    return list(place(tracker.update(frame(second)))) == [0]


@pytest.mark.parametrize(
    "settings",
    [
        {"iou_weight": 0.0, "score_weight": 0.0},
        {"iou_weight": 2.0, "score_weight": 0.0},
        {"iou_weight": 0.0, "score_weight": 3.0},
        {"iou_weight": 3.0, "score_weight": 0.5},
    ],
)
@pytest.mark.parametrize("score", [0.5, 0.0])
def test_a_track_goes_on_where_its_similarity_is_above_0(settings: dict[str, float], score: float):
    """The price of another class is set to all the rest of the similarity, and a little less or more."""
    first = detection(20, np.array([4.0, 1, 0]), label=1)
    second = detection(30, np.array([6.0, -2, 5]), score=score, label=2)  # overlaps by a third
    rest = 22 + settings["score_weight"] * math.log(score or 1e-6) + settings["iou_weight"] / 3
    assert (rest > 0) == (score > 0 or settings["score_weight"] < 1)
    for beyond, linked in ((-1e-3, rest > 0), (1e-3, False)):
        assert links(first, second, class_weight=max(rest + beyond, 0), **settings) == linked
    same = detection(30, np.array([6.0, -2, 5]), score=score, label=1)
    assert links(first, same, class_weight=1e6, **settings) == (rest > 0)


@pytest.mark.parametrize("by", ["embedding", "iou"])
def test_a_similarity_of_0_is_new(by: str):
    nothing, far = np.zeros(3), detection(150, np.zeros(3), score=1.0)
    assert not links(detection(20, nothing), far, by=by, min_iou=0.0)
    near = detection(39.5, nothing, score=1.0)  # half a pixel of overlap
    assert links(detection(20, nothing), near, by=by, min_iou=0.0)


@pytest.mark.parametrize(("label", "linked"), [(1, True), (2, False)])
def test_by_boxes_another_class_costs_what_is_asked(label: int, linked: bool):
    first, second = detection(20, None, label=1), detection(30, None, label=label)  # overlaps by a third
    assert links(first, second, by="iou", min_iou=0.2, class_weight=0.14) == linked
    assert links(first, second, by="iou", min_iou=0.2, class_weight=0.12)
    assert not links(first, second, by="iou", min_iou=0.34, class_weight=0.0)


def test_one_assignment_of_the_frame_has_the_highest_sum():
    """Each detection alone would take the first track, and the better one does not get it."""
    tracker = Tracker(config(iou_weight=0.0, momentum=1.0))
    x, y, z = np.eye(3)
    tracker.update(frame(detection(20, x), detection(90, y, score=0.8)))
    found = frame(detection(40, 5 * x + 4.9 * y), detection(120, 4 * x + 0.5 * y, score=0.8))
    assert place(tracker.update(found)) == {1: 40, 0: 120}
    # Nobody is given a track that it is unlike, so that another may have a better one: 3 is more than 1 + 1.
    apart = frame(detection(40, 3 * x + y), detection(120, x - 5 * y + z, score=0.8))
    assert place(tracker.update(apart)) == {0: 40, 2: 120}


@pytest.mark.parametrize(
    ("labels", "label"), [([5], 5), ([5, 2], 5), ([5, 2, 2], 2), ([5, 2, 2, 5], 5), ([5, 2, 7, 7], 7)]
)
def test_the_label_of_a_track_is_the_one_seen_most_often_or_first(labels: list[int], label: int):
    for seen in (2, 5, 7):
        tracker = Tracker(config(iou_weight=0.0, momentum=1.0))
        for each in labels:
            assert list(place(tracker.update(frame(detection(20, A, label=each))))) == [0]
        weak = detection(20, 0.25 * A, label=seen)  # a similarity of about 2, and another class costs 3
        assert list(place(tracker.update(frame(weak)))) == [0 if seen == label else 1]


def test_the_lowest_scores_are_within():
    half = frame(detection(20, None, score=0.5, query=4))
    for by in ("iou", "query"):
        assert len(Tracker(config(by=by, score=0.5, birth_score=0.5)).update(half).scores) == 1
        assert len(Tracker(config(by=by, score=0.5, birth_score=0.51)).update(half).scores) == 0
        assert len(taking_part(half, config(by=by, score=0.5)).scores) == 1
        assert len(taking_part(half, config(by=by, score=0.51)).scores) == 0


def half_as_wide(score: float) -> Detections:
    """A detection whose mask is the left half of that of `detection(50, side=40)`."""
    one = detection(50, A, side=40, score=score)
    one.masks[:, :, 14:] = 0
    return one


@pytest.mark.parametrize(("highest", "count"), [(0.5, 1), (0.51, 2)])
def test_from_the_given_overlap_on_a_detection_is_a_duplicate(highest: float, count: int):
    both = frame(detection(50, A, side=40), half_as_wide(0.8))
    assert taking_part(both, config(duplicate_iou=highest)).scores.tolist() == pytest.approx([0.9, 0.8][:count])


def test_a_duplicate_of_a_duplicate_takes_part():
    three = frame(*(detection(x, A, score=score) for x, score in ((20, 0.9), (26, 0.8), (32, 0.7))))
    assert taking_part(three, config(duplicate_iou=0.5)).scores.tolist() == pytest.approx([0.9, 0.7])


def test_where_the_query_is_the_identity_masks_may_be_the_same():
    both = frame(detection(20, None, query=0), detection(20, None, query=3, score=0.8))
    assert place(Tracker(config(by="query")).update(both)) == {0: 20, 3: 20}
    assert len(taking_part(both, config(by="iou")).scores) == 1


def test_of_each_query_the_best_takes_part_and_then_so_many():
    """Query 0 counts as one; without queries all are different."""
    scores = (0.9, 0.8, 0.7, 0.6)
    asked = [detection(20 + 40 * i, A, score=s, query=i // 2) for i, s in enumerate(scores)]
    unasked = [detection(20 + 40 * i, A, score=s) for i, s in enumerate(scores)]
    for detections, most, kept in (
        (asked, 4, [0.9, 0.7]),
        (asked, 1, [0.9]),
        (unasked, 4, list(scores)),
        (unasked, 3, [0.9, 0.8, 0.7]),
    ):
        assert taking_part(frame(*detections), config(max_detections=most)).scores.tolist() == pytest.approx(kept)


def test_between_equal_scores_the_label_decides_then_the_query_then_the_box():
    rows = [
        detection(180, None, score=0.8, label=0, query=0),
        detection(150, None, label=1, query=9, y=80),
        detection(120, None, label=2, query=1),
        detection(90, None, label=2, query=3),
    ]
    ordered = [150.0, 120, 90, 180]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]):
        found = taking_part(frame(*(rows[i] for i in order)), config(by="query"))
        assert found.boxes[:, [0, 2]].mean(1).tolist() == ordered
    boxes = torch.tensor([[0.0, 0, 9, 4], [2, 1, 3, 8], [1, 0, 5, 8], [0, 1, 5, 8], [4, 1, 5, 8]])
    equal = frame(*(detection(20, None) for _ in boxes))
    for order in torch.arange(5), torch.tensor([3, 0, 4, 2, 1]):
        equal.boxes[:] = boxes[order]
        assert taking_part(equal, config(by="iou", duplicate_iou=1.0)).boxes.tolist() == [
            boxes[i].tolist() for i in (0, 1, 2, 3, 4)
        ]


@pytest.mark.parametrize("by", ["embedding", "iou", "query"])
def test_an_empty_frame_has_no_tracks_as_whole_numbers(by: str):
    empty = detection(20, query=1).take(torch.zeros(1, dtype=torch.bool))
    tracks = Tracker(config(by=by)).update(empty).tracks
    assert tracks is not None
    assert (tracks.shape, tracks.dtype) == ((0,), torch.int64)


def test_tracks_are_where_the_detections_are():
    """Not on torch's default device; one that holds no numbers stands for that."""
    tracker, found = Tracker(config()), frame(detection(20, A), detection(90, B))
    with torch.device("meta"):
        tracks = tracker.update(found).tracks
    assert tracks is not None
    assert tracks.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        (
            "embedding",
            "tracker.by=embedding needs a model with association heads, and this one has none: give tracker.by=iou or "
            "train with model.association",
        ),
        ("query", "tracker.by=query needs detections that know their query: give tracker.by=iou"),
        ("truth", "tracker.by=truth takes the ground truth of an evaluation: give embedding, iou or query here"),
    ],
)
def test_the_sentence_says_what_to_give(by: str, sentence: str):
    with pytest.raises(UserError) as raised:
        Tracker(config(by=by)).update(frame(detection(20, None)))
    assert str(raised.value) == sentence


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([1.0, 1, 3, 3], 4 / 4),
        ([2.5, 2, 4, 4], 0.5 / 6.5),
        ([2, 2, 4, 2.5], 0.5 / 4.5),
        ([3.0, 1, 5, 3], 0),
        ([1.5, 1.5, 2, 1.75], 0.125 / 4),
        ([1.0, 3, 3, 1], 0),  # inside out
        ([3.0, 1, 1, 3], 0),
        ([3.0, 3, 1, 1], 0),
        ([2.0, 2, 2, 2], 0),
    ],
)
def test_iou_of_boxes(box: list[float], expected: float):
    square = np.array([[1.0, 1, 3, 3]], np.float32)
    other = np.array([box], np.float32)
    assert iou(square, other).tolist() == [[pytest.approx(expected)]]
    assert iou(other, square).tolist() == [[pytest.approx(expected)]]


def test_iou_is_of_each_with_each_and_0_of_empty_ones():
    boxes = np.array([[0, 0, 4, 4], [2, 0, 6, 4], [5, 5, 5, 5]], np.float32)
    third = pytest.approx(1 / 3)
    assert iou(boxes, boxes[:2]).tolist() == [[1, third], [third, 1], [0, 0]]
    assert iou(boxes[2:], boxes[2:]).tolist() == [[0]]
    small = np.array([[0, 0, 1e-3, 1e-3]], np.float32)
    assert iou(small, small).tolist() == [[pytest.approx(1)]]
