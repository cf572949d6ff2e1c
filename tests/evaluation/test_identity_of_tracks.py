"""Association accuracy and identity switches: known answers."""

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
