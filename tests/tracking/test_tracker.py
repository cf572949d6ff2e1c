"""The tracker: who keeps an identity, who begins one, who is forgotten, and that nothing else has a say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from queryinst.structures import Detections
from queryinst.tracking.tracker import Tracker
from queryinst.video_config import TrackerConfig

SIZE = (100, 200)
# Embeddings of three objects: a logit of 8 with itself, -4 with another, 0 being "new".
A, B, C = 8**0.5 * np.eye(3) - 2.3 * (1 - np.eye(3)) * 0.5


def detection(
    x: float,
    embedding: np.ndarray | None = A,
    *,
    y: float = 50,
    score: float = 0.9,
    label: int = 0,
    query: int | None = None,
    side: float = 20,
) -> Detections:
    """One square detection centred at x, y."""
    half = side / 2
    return Detections(
        torch.tensor([[x - half, y - half, x + half, y + half]]),
        torch.tensor([score]),
        torch.tensor([label]),
        torch.ones(1, 28, 28),
        SIZE,
        None if query is None else torch.tensor([query]),
        None if embedding is None else torch.tensor(embedding, dtype=torch.float32)[None],
    )


def frame(*detections: Detections) -> Detections:
    """Detections of one frame, best first; without any, an empty frame."""
    if not detections:
        return detection(0).take(torch.zeros(1, dtype=torch.bool))
    columns = {
        name: None if getattr(detections[0], name) is None else torch.cat([getattr(d, name) for d in detections])
        for name in ("boxes", "scores", "labels", "masks", "queries", "embeddings")
    }
    return Detections(**columns, size=SIZE).take(torch.argsort(-columns["scores"], stable=True))


def place(found: Detections) -> dict[int, float]:
    """Identity to the centre's x."""
    assert found.tracks is not None
    identities = found.tracks.tolist()
    assert len(set(identities)) == len(identities), "no identity twice"
    assert all(identity >= 0 for identity in identities)
    return dict(zip(identities, found.boxes[:, [0, 2]].mean(1).tolist(), strict=True))


def config(**changes: object) -> TrackerConfig:
    return TrackerConfig(**changes)  # type: ignore[arg-type]


def test_objects_that_cross_keep_their_identity_by_embeddings_and_swap_by_boxes():
    """Two objects run through each other and, in frame 5, jump past one another."""
    steps = [(20 + 10 * t, 120 - 10 * t) for t in range(5)] + [(80 + 10 * t, 60 - 10 * t) for t in range(4)]
    by_embedding, by_box = Tracker(config()), Tracker(config(by="iou"))
    for t, (left, right) in enumerate(steps):
        both = frame(detection(left, A), detection(right, B, score=0.8))
        assert place(by_embedding.update(both)) == {0: left, 1: right}
        boxes = place(by_box.update(both))
        assert boxes == ({0: left, 1: right} if t < 5 else {0: right, 1: left})


def test_the_first_frame_begins_tracks_in_the_order_of_scores():
    found = Tracker(config()).update(frame(detection(20, A, score=0.5), detection(60, B, score=0.9)))
    assert place(found) == {0: 60, 1: 20}
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])


def test_an_object_returns_within_the_frames_that_it_is_remembered_and_is_another_after():
    for unseen, identity in ((3, 0), (4, 1)):
        tracker = Tracker(config(retain=3))
        tracker.update(frame(detection(20)))
        for _ in range(unseen):
            assert len(tracker.update(frame()).scores) == 0
        assert list(place(tracker.update(frame(detection(150))))) == [identity]


def test_only_consecutive_frames_link_where_nothing_is_remembered():
    tracker = Tracker(config(retain=0))
    assert [list(place(tracker.update(f))) for f in (frame(detection(20)), frame(detection(20)))] == [[0], [0]]
    tracker.update(frame())
    assert list(place(tracker.update(frame(detection(20))))) == [1]


def test_weak_detections_continue_a_track_but_begin_none():
    tracker = Tracker(config(score=0.05, birth_score=0.3))
    assert len(tracker.update(frame(detection(20, score=0.2))).scores) == 0
    assert place(tracker.update(frame(detection(20, score=0.3)))) == {0: 20}
    assert place(tracker.update(frame(detection(22, score=0.06)))) == {0: 22}
    assert len(tracker.update(frame(detection(22, score=0.04))).scores) == 0


def test_an_object_that_looks_like_none_begins_a_track_though_its_class_is_known():
    tracker = Tracker(config())
    tracker.update(frame(detection(20, A)))
    assert place(tracker.update(frame(detection(90, B)))) == {1: 90}


def test_a_duplicate_begins_no_track_and_takes_none_away():
    tracker = Tracker(config())
    tracker.update(frame(detection(20, A), detection(90, B)))
    found = tracker.update(frame(detection(20, A, score=0.8), detection(21, A, score=0.7, label=1)))
    assert place(found) == {0: 20}, "the bystander at 90 is not handed to the duplicate"
    apart = tracker.update(frame(detection(20, A, score=0.8), detection(40, C, score=0.7)))
    assert place(apart) == {0: 20, 2: 40}
    both = Tracker(config(duplicate_iou=1.0)).update(frame(detection(20, A), detection(21, A, score=0.7)))
    assert place(both) == {0: 20, 1: 21}


@pytest.mark.parametrize("by", ["embedding", "iou"])
def test_one_object_in_the_hole_of_another_is_no_duplicate(by: str):
    """Their boxes are the same, their masks are not."""
    ring, core = detection(50, A), detection(50, B, score=0.8)
    ring.masks[:, 2:-2, 2:-2], core.masks[:, :2] = 0, 0
    assert place(Tracker(config(by=by)).update(frame(ring, core))) == {0: 50, 1: 50}
    core.masks[:, :2] = 1
    ring.masks[:] = 1
    assert place(Tracker(config(by=by)).update(frame(ring, core))) == {0: 50}


def test_of_two_rivals_the_better_fit_continues_and_the_score_decides_between_equals():
    for scores, winner in (((0.9, 0.4), 30.0), ((0.4, 0.9), 70.0)):
        tracker = Tracker(config(birth_score=0.95))
        tracker.update(frame(detection(50, score=0.96)))
        assert place(
            tracker.update(frame(*(detection(x, score=s) for x, s in zip((30, 70), scores, strict=True))))
        ) == {0: winner}


def test_a_frame_of_another_class_keeps_the_identity_and_the_label_of_the_track():
    tracker = Tracker(config())
    for label in (2, 2, 5, 2):
        found = tracker.update(frame(detection(20, A, label=label)))
        assert list(place(found)) == [0]
    assert found.labels.tolist() == [2]
    strict = Tracker(config(class_weight=50.0))
    for label, identity in ((2, 0), (5, 1), (2, 0)):
        assert list(place(strict.update(frame(detection(20, A, label=label))))) == [identity]


def test_the_embedding_is_an_exponential_average():
    """After A and B with momentum m, a track has m A + (1 - m) B; a unit vector sees the first number."""
    seen, unit = (np.array([4.0, 0, 0]), np.array([1.0, 4, 0])), np.array([1.0, 0, 0])
    for momentum, alike in ((1.0, 4.0), (0.5, 2.5), (0.0, 1.0)):
        for beyond, linked in ((0.01, True), (-0.01, False)):
            tracker = Tracker(config(momentum=momentum, iou_weight=0.0, score=0.0, birth_score=0.9))
            tracker.update(frame(detection(20, seen[0])))
            assert list(place(tracker.update(frame(detection(20, seen[1]))))) == [0]
            score = float(np.exp(beyond - alike))  # its logarithm is outweighed by the similarity, or just not
            assert (len(tracker.update(frame(detection(20, unit, score=score))).scores) == 1) == linked


def test_boxes_link_from_the_lowest_overlap_on_and_within_a_class():
    for x, label, identity in ((30, 0, 0), (32, 0, 1), (20, 1, 1)):  # overlaps of 1/3, 1/4 and 1
        tracker = Tracker(config(by="iou", min_iou=0.3))
        tracker.update(frame(detection(20, None)))
        assert list(place(tracker.update(frame(detection(x, None, label=label))))) == [identity]


def test_the_query_is_the_identity_where_asked():
    tracker = Tracker(config(by="query"))
    assert place(tracker.update(frame(detection(20, None, query=7), detection(90, None, query=3, score=0.1)))) == {
        7: 20
    }
    both = frame(detection(90, None, query=7, score=0.1), detection(20, None, query=3, score=0.4))
    assert place(tracker.update(both)) == {3: 20, 7: 90}
    tracker.reset()
    assert place(tracker.update(frame(detection(20, None, query=7, score=0.1)))) == {}


def test_a_query_takes_part_once_with_its_best_class_and_so_many_at_most():
    one = frame(detection(20, A, query=4, score=0.6, label=1), detection(20, A, query=4, score=0.8, label=2))
    found = Tracker(config(duplicate_iou=1.0)).update(one)
    assert (found.labels.tolist(), place(found)) == ([2], {0: 20})
    many = frame(*(detection(10 + 10 * i, A, score=0.9 - 0.1 * i, side=5) for i in range(5)))
    assert place(Tracker(config(max_detections=2)).update(many)) == {0: 10, 1: 20}


def scene(rng: np.random.Generator, count: int, classes: int = 3) -> Detections:
    """Random detections; some of equal score and embedding."""
    low = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 40, (count, 2))], 1)
    return Detections(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(rng.choice([0.02, 0.2, 0.5, 0.7, 0.9], count), dtype=torch.float32),
        torch.tensor(rng.integers(classes, size=count)),
        torch.zeros(count, 28, 28),
        SIZE,
        torch.tensor(rng.integers(12, size=count)),
        torch.tensor(3 * rng.choice([-1, 0, 1], (count, 4)), dtype=torch.float32),
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), by=st.sampled_from(["embedding", "iou", "query"]))
def test_no_identity_twice_and_the_order_of_detections_has_no_say(seed: int, by: str):
    rng = np.random.default_rng(seed)
    trackers = [Tracker(config(by=by, retain=2)) for _ in range(2)]
    for _ in range(8):
        found = scene(rng, int(rng.integers(0, 15)))
        order = torch.tensor(rng.permutation(len(found.scores)), dtype=torch.int64)
        results = [tracker.update(each) for tracker, each in zip(trackers, (found, found.take(order)), strict=True)]
        place(results[0])
        assert (results[0].scores.diff() <= 0).all()
        assert (results[0].scores >= 0.05).all()
        for name in ("tracks", "boxes", "scores", "labels", "queries", "embeddings"):
            assert torch.equal(getattr(results[0], name), getattr(results[1], name)), name


def test_videos_do_not_see_each_other():
    rng = np.random.default_rng(1)
    clip = [scene(rng, 10) for _ in range(5)]
    tracker = Tracker(config())
    first = [tracker.update(found).tracks.tolist() for found in clip]
    for found in clip[::-1]:
        tracker.update(found)
    tracker.reset()
    assert [tracker.update(found).tracks.tolist() for found in clip] == first


def test_memory_is_bounded_however_long_the_video_is():
    """Every frame has only new objects: as many are remembered as can be of the last frames."""
    tracker = Tracker(config(retain=4, duplicate_iou=1.0, iou_weight=0.0))
    for step in range(60):
        one = np.zeros(60)
        one[step] = 10  # like nothing before
        tracker.update(frame(*(detection(10 + 10 * i, one, side=5) for i in range(6))))
        assert len(tracker._tracks) == 6 * min(step + 1, 4 + 1)
