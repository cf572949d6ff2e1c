"""Association accuracy and identity switches: known answers."""

import itertools

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from queryinst.evaluation import identity
from queryinst.ops.masks import overlaps


def mask(left: int, width: int = 10) -> dict[str, object]:
    bits = np.zeros((20, 100), np.uint8, order="F")
    bits[5:15, left : left + width] = 1
    return coco_mask.encode(bits)


A, B = mask(0), mask(50)
T = 10
HALF = T // 2
# Objects, tracks; found, association accuracy, switches, found again.
CASES = {
    "kept": ([[A] * T, [B] * T], [[A] * T, [B] * T], 20, 1.0, 0, 18),
    "two tracks of one object": ([[A] * T], [[A] * HALF + [None] * HALF, [None] * HALF + [A] * HALF], 10, 0.5, 1, 9),
    "two tracks swap": ([[A] * T, [B] * T], [[A] * HALF + [B] * HALF, [B] * HALF + [A] * HALF], 20, 1 / 3, 2, 18),
    "not found in two frames": ([[A] * T], [[A] * 4 + [None] * 2 + [A] * 4], 8, 0.8, 0, 7),
    "back as another after two frames": ([[A] * T], [[A] * 4 + [None] * 6, [None] * 6 + [A] * 4], 8, 0.4, 1, 7),
    "goes on where nothing is": ([[A] * 8 + [None] * 2], [[A] * T], 8, 0.8, 0, 7),
    "one track over two objects": (
        [[A] * HALF + [None] * HALF, [None] * HALF + [B] * HALF],
        [[A] * HALF + [B] * HALF],
        *(10, 0.5, 0, 8),
    ),
    "found too badly": ([[A] * T], [[mask(6)] * T], 0, 0.0, 0, 0),
    "nothing found": ([[A] * T], [], 0, 0.0, 0, 0),
    "nothing there": ([], [[A] * T], 0, 0.0, 0, 0),
    # A second track on the same object, even a better one in two frames, does not make it switch.
    "a duplicate": ([[A] * T], [[mask(1)] * T, [None] * 4 + [A] * 2 + [None] * 4], 10, 1.0, 0, 9),
}


@pytest.mark.parametrize("case", CASES)
def test_known_answers(case: str):
    objects, tracks, found, accuracy, switches, again = CASES[case]
    counts = identity.count(objects, tracks, list(range(T)))
    assert (counts.found, counts.switches, counts.again) == (found, switches, again)
    assert counts.accuracy == pytest.approx(accuracy * found)


def test_only_the_frames_that_are_given_count():
    objects, tracks = [[A] * T], [[A] * HALF + [None] * HALF]
    assert identity.count(objects, tracks, list(range(HALF))) == identity.Counts(HALF, HALF, 0, HALF - 1)


def test_videos_are_added_up():
    total = sum((identity.Counts(2, 1.5, 1, 1), identity.Counts(3, 3.0, 0, 2)), identity.Counts())
    assert total == identity.Counts(5, 4.5, 1, 3)


def test_every_mask_shows_one_object_and_every_object_is_shown_once():
    iou = overlaps([A, B], [mask(1), mask(2), mask(46), mask(80)])
    assert identity.objects_of(iou).tolist() == [0, -1, -1, -1]
    assert identity.objects_of(overlaps([A, B], [mask(2), mask(51), A])).tolist() == [-1, 1, 0]
    assert identity.objects_of(overlaps([], [A])).tolist() == [-1]
    assert identity.objects_of(overlaps([A], [])).tolist() == []


Sight = set[int] | None  # columns of a mask that is one pixel high


def slow(objects: list[list[Sight]], tracks: list[list[Sight]], frames: list[int]) -> tuple[int, float, int, int]:
    """HOTA's association at 0.5 and the switches of CLEAR MOT, word for word."""

    def iou(one: int, track: int, frame: int) -> float:
        a, b = objects[one][frame], tracks[track][frame]
        return len(a & b) / len(a | b) if a and b else 0.0

    def frames_of(tube: list[Sight]) -> int:
        return sum(bool(tube[frame]) for frame in frames)

    every = list(itertools.product(range(len(objects)), range(len(tracks))))
    shared = dict.fromkeys(every, 0.0)
    for one, track in every:
        for frame in frames:
            overlap = iou(one, track, frame)
            row = sum(iou(one, k, frame) for k in range(len(tracks)))
            column = sum(iou(k, track, frame) for k in range(len(objects)))
            shared[one, track] += overlap / (row + column - overlap) if overlap else 0.0
    alike = {
        (one, track): common / (frames_of(objects[one]) + frames_of(tracks[track]) - common) if common else 0.0
        for (one, track), common in shared.items()
    }
    matches: list[tuple[int, int]] = []
    switches = again = 0
    last: dict[int, int] = {}
    for frame in frames:
        best = max(
            (list(zip(range(len(objects)), order, strict=False)) for order in orders(len(objects), len(tracks))),
            key=lambda pairs: sum(alike[pair] * iou(*pair, frame) for pair in pairs if None not in pair),
        )
        for one, track in best:
            if track is not None and iou(one, track, frame) >= 0.5:
                matches.append((one, track))
                if one in last:
                    again += 1
                    switches += last[one] != track
                last[one] = track
    accuracy = 0.0
    for one, track in matches:
        both = matches.count((one, track))
        accuracy += both / (frames_of(objects[one]) + frames_of(tracks[track]) - both)
    return len(matches), accuracy, switches, again


def orders(objects: int, tracks: int) -> list[tuple[int | None, ...]]:
    """All ways to give each object a track, or none."""
    return list(itertools.permutations([*range(tracks), *[None] * objects], objects))


def code(sight: Sight) -> dict[str, object] | None:
    if not sight:
        return None
    bits = np.zeros((1, 40), np.uint8, order="F")
    bits[0, list(sight)] = 1
    return coco_mask.encode(bits)


@pytest.mark.parametrize("seed", range(30))
def test_equal_to_the_definition(seed: int):
    """Two or three objects that move, tracks that follow one and then another, both unseen now and then."""
    rng = np.random.default_rng(seed)
    length = int(rng.integers(3, 8))
    number = int(rng.integers(2, 4))
    starts = rng.integers(0, 26, number)
    paths = [[int(start + rng.integers(-2, 3)) for _ in range(length)] for start in starts]
    objects: list[list[Sight]] = [
        [set(range(max(p, 0), p + 12)) if rng.random() < 0.8 else None for p in path] for path in paths
    ]
    tracks: list[list[Sight]] = []
    for _ in range(3):
        followed = [int(rng.integers(number))] * length
        change = int(rng.integers(1, length))
        followed[change:] = [int(rng.integers(number))] * (length - change)
        moved = [paths[one][frame] + int(rng.integers(-3, 4)) for frame, one in enumerate(followed)]
        tracks.append(
            [set(range(max(p, 0), p + int(rng.integers(9, 13)))) if rng.random() < 0.8 else None for p in moved]
        )
    frames = [frame for frame in range(length) if rng.random() < 0.9]
    found, accuracy, switches, again = slow(objects, tracks, frames)
    coded = ([[code(sight) for sight in tube] for tube in of] for of in (objects, tracks))
    counts = identity.count(*coded, frames)
    assert (counts.found, counts.switches, counts.again) == (found, switches, again)
    assert counts.accuracy == pytest.approx(accuracy, rel=1e-9)


def test_an_overlap_of_one_half_is_enough():
    assert identity.objects_of(np.array([[0.5, 0.49], [0.49, 0.49]])).tolist() == [0, -1]
    half = mask(0, 5)
    assert identity.count([[A] * 2], [[half] * 2], [0, 1]) == identity.Counts(2, 2.0, 0, 1)
    assert identity.objects_of(np.array([[0.9, 0.8], [0.8, 0.5]])).tolist() == [1, 0], "the highest sum"


def test_nothing_is_counted_at_first():
    assert identity.Counts() == identity.Counts(0, 0.0, 0, 0)
    assert identity.count([], [], []) == identity.Counts()
