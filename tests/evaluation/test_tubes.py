"""Tubes: one code for all frames, and average precision equal to a direct implementation of its definition."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from queryinst.evaluation import tubes
from queryinst.evaluation.coco import STATS

Bits = NDArray[np.bool_]  # (T, H, W)
THRESHOLDS, RECALLS = np.linspace(0.5, 0.95, 10), np.linspace(0, 1, 101)


def encode(bitmap: Bits) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))


@settings(max_examples=100, deadline=None)
@given(
    st_np.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))), st.sets(st.integers(0, 3))
)
def test_frames_side_by_side_are_one_image(bits: Bits, unseen: set[int]):
    bits[[frame for frame in unseen if frame < len(bits)]] = False
    codes = [None if frame in unseen else encode(bitmap) for frame, bitmap in enumerate(bits)]
    code = tubes.side_by_side(codes, *bits.shape[1:])
    assert (coco_mask.decode(code) == np.concatenate(list(bits), axis=1)).all()
    assert code == encode(np.concatenate(list(bits), axis=1)), "the shortest code"


def slow_iou(a: Bits, b: Bits) -> float:
    """Sum over the frames of intersections, over the sum of unions."""
    together = sum(float((x & y).sum()) for x, y in zip(a, b, strict=True))
    either = sum(float((x | y).sum()) for x, y in zip(a, b, strict=True))
    return together / either if either else 0.0


def slow_area(bits: Bits) -> float:
    areas = [float(frame.sum()) for frame in bits if frame.any()]
    return sum(areas) / len(areas) if areas else 0.0


def slow_marks(
    truth: list[dict[str, Any]], found: list[dict[str, Any]], threshold: float, low: float, high: float
) -> tuple[list[tuple[float, bool]], int]:
    """One video, one class: (score, right?) of every track that counts, and the number of objects that count."""

    def outside(tube: dict[str, Any]) -> bool:
        return not low <= slow_area(tube["bits"]) <= high

    wanted = [one for one in truth if not one["iscrowd"] and not outside(one)]
    others = [one for one in truth if one["iscrowd"] or outside(one)]
    taken: list[int] = []
    marks = []
    for track in found:
        best: dict[str, Any] | None = None
        for candidates in (wanted, others):  # what does not count is looked at only where nothing else fits
            for one in candidates:
                if id(one) in taken and not one["iscrowd"]:
                    continue
                overlap = slow_iou(track["bits"], one["bits"])
                if overlap >= threshold and (best is None or overlap >= slow_iou(track["bits"], best["bits"])):
                    best = one
            if best is not None:
                break
        if best is not None:
            taken.append(id(best))
        ignored = any(best is one for one in others) if best is not None else outside(track)
        if not ignored:
            marks.append((track["score"], best is not None))
    return marks, len(wanted)


def slow(
    videos: list[int],
    categories: list[int],
    truth: list[dict[str, Any]],
    found: list[dict[str, Any]],
    area: int,
    tracks: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AP (10, K) and recall (10, K) at one range of areas and so many tracks a video and class, NaN without objects."""
    precision, recall = np.full((2, len(THRESHOLDS), len(categories)), np.nan)
    for t, threshold in enumerate(THRESHOLDS):
        for k, category in enumerate(categories):
            marks: list[tuple[float, bool]] = []
            wanted = 0
            for video in videos:
                there, seen = (
                    [one for one in of if (one["image_id"], one["category_id"]) == (video, category)]
                    for of in (truth, found)
                )
                seen = sorted(seen, key=lambda track: -track["score"])[:tracks]
                more, count = slow_marks(there, seen, threshold, *tubes.AREAS[area])
                marks, wanted = marks + more, wanted + count
            if not wanted:
                continue
            right = np.cumsum([mark for _, mark in sorted(marks, key=lambda mark: -mark[0])])
            reached = right / wanted
            exact = right / np.arange(1, len(right) + 1)
            precision[t, k] = np.mean([max(exact[reached >= level], default=0.0) for level in RECALLS])
            recall[t, k] = reached[-1] if len(reached) else 0
    return precision, recall


def slow_stats(*scene: Any) -> dict[str, float]:
    """The twelve numbers."""
    precision = [slow(*scene, area=area, tracks=100) for area in range(4)]
    stats = {"AP": precision[0][0], "AP50": precision[0][0][0], "AP75": precision[0][0][5]}
    stats |= {f"AP{size}": precision[area][0] for area, size in enumerate("sml", 1)}
    stats |= {f"AR{tracks}": slow(*scene, area=0, tracks=tracks)[1] for tracks in (1, 10, 100)}
    stats |= {f"AR{size}": precision[area][1] for area, size in enumerate("sml", 1)}
    return {name: np.nan if np.isnan(of).all() else float(np.nanmean(of)) for name, of in stats.items()}


def rectangles(rng: np.random.Generator, shape: tuple[int, int, int]) -> Bits:
    """A rectangle that moves, and is not there in some frames."""
    frames, height, width = shape
    bits = np.zeros(shape, bool)
    size = rng.uniform(0.1, 0.95, 2) * (height, width)
    corner = rng.uniform(0, 1, 2) * ((height, width) - size)
    for frame in range(frames):
        top, left = (corner + rng.normal(0, 3, 2)).round().astype(int).clip(0)
        bits[frame, top : top + int(size[0]), left : left + int(size[1])] = rng.random() < 0.8
    return bits


def moved(rng: np.random.Generator, bits: Bits) -> Bits:
    """Nearly the same tube: shifted, and another in some frames."""
    shift = rng.normal(0, 0.06, 2) * bits.shape[1:]
    return np.stack(
        [
            np.roll(frame, shift.astype(int), (0, 1)) if rng.random() < 0.9 else rectangles(rng, (1, *frame.shape))[0]
            for frame in bits
        ]
    )


def tube(video: int, category: int, bits: Bits, crowd: bool = False, score: float | None = None) -> dict[str, Any]:
    codes = [encode(frame) if frame.any() else None for frame in bits]
    scored = {} if score is None else {"score": score}
    return {
        "image_id": video,
        "category_id": category,
        "iscrowd": int(crowd),
        "bits": bits,
        "segmentation": tubes.side_by_side(codes, *bits.shape[1:]),
        "area": tubes.mean_area([float(coco_mask.area(code)) if code else None for code in codes]),
        **scored,
    }


SHAPE = (3, 280, 300)


@pytest.mark.parametrize("seed", range(8))
def test_random_tubes_give_the_numbers_of_the_definition(seed: int):
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for video in (3, 5, 9):
        for _ in range(rng.integers(1, 5)):
            one = tube(video, int(rng.choice([4, 8])), rectangles(rng, SHAPE), rng.random() < 0.2)
            truth.append(one)
            for _ in range(rng.integers(0, 3)):
                category = one["category_id"] if rng.random() < 0.8 else 4
                found.append(tube(video, category, moved(rng, one["bits"]), score=round(rng.random(), 1)))
        found += [tube(video, 8, rectangles(rng, SHAPE), score=round(rng.random() / 2, 1)) for _ in range(2)]
    expected = slow_stats([3, 5, 9], [4, 8], truth, found)
    videos = [{"id": video, "height": SHAPE[1], "width": SHAPE[0] * SHAPE[2]} for video in (3, 5, 9)]
    categories = [{"id": 4, "name": "a"}, {"id": 8, "name": "b"}]
    stats = dict(zip(STATS, tubes.evaluate(videos, categories, truth, found).stats, strict=True))
    assert 0 < expected["AP"] < 1
    for name, value in expected.items():
        assert stats[name] == pytest.approx(-1 if np.isnan(value) else value, abs=1e-9), name


def square(left: int = 0, width: int = 10) -> Bits:
    bits = np.zeros((20, 60), bool)
    bits[5:15, left : left + width] = True
    return bits


NOTHING = square(width=0)
# Frames of the object, frames of the track; the overlap, and so the share of the ten thresholds that it reaches.
CASES = {
    "the same": ([square(), square()], [square(), square()], 1.0, 1.0),
    "unseen in one of two frames": ([square(), square()], [square(), NOTHING], 0.5, 0.1),
    "seen where nothing is": ([square(), NOTHING], [square(), square()], 0.5, 0.1),
    "half of it in one of two frames": ([square(), square()], [square(), square(width=5)], 0.75, 0.6),
    "frames do not help each other out": ([square(), square(30)], [square(30), square()], 0.0, 0.0),
    "a large frame counts more": ([square(width=40), square()], [square(width=40), NOTHING], 0.8, 0.7),
}


@pytest.mark.parametrize("case", CASES)
def test_known_answers(case: str):
    one, track, overlap, share = CASES[case]
    truth, found = tube(1, 1, np.stack(one)), tube(1, 1, np.stack(track), score=0.5)
    assert slow_iou(truth["bits"], found["bits"]) == overlap
    evaluator = tubes.evaluate([{"id": 1, "height": 20, "width": 120}], [{"id": 1, "name": "a"}], [truth], [found])
    assert evaluator.stats[0] == pytest.approx(share)
    assert evaluator.stats[STATS.index("AR1")] == pytest.approx(share)


@pytest.mark.parametrize(("width", "ap"), [(40, 1.0), (10, 0.5)])
def test_a_crowd_region_must_be_overlapped_like_any_object(width: int, ap: float):
    """A surer track on a crowd region is left out where it covers it; COCO would leave it out anywhere inside."""
    truth = [tube(1, 1, square(50)[None]), tube(1, 1, square(0, 40)[None], crowd=True)]
    found = [tube(1, 1, square(50)[None], score=0.5), tube(1, 1, square(0, width)[None], score=0.9)]
    evaluator = tubes.evaluate([{"id": 1, "height": 20, "width": 60}], [{"id": 1, "name": "a"}], truth, found)
    assert evaluator.stats[0] == pytest.approx(ap)
    assert slow_stats([1], [1], truth, found)["AP"] == pytest.approx(ap)


def test_what_a_track_is_of_many_frames():
    track = tubes.Track([0, 2, 3], [encode(square())] * 3, [0.2, 0.4, 0.9], [3, 1, 3])
    assert (track.score, track.label) == (pytest.approx(1.5 / (3 + tubes.DOUBT)), 3)
    assert [code is not None for code in track.over(5)] == [True, False, True, True, False]
    assert tubes.Track([0, 1, 2], [], [0.3, 0.2, 0.6], [3, 3, 1]).label == 1, "one sure sight outweighs two unsure ones"
    assert tubes.Track([0, 1], [], [0.5, 0.5], [3, 1]).label == 1, "the lowest of equals"


def test_a_glimpse_does_not_outrank_an_object_that_was_followed():
    glimpse, followed = tubes.Track([3], [], [0.95], [0]), tubes.Track(list(range(16)), [], [0.6] * 16, [0] * 16)
    assert glimpse.score < followed.score
    assert tubes.Track([3], [], [0.5], [0]).score < glimpse.score


def test_mean_area_is_of_the_frames_where_there_is_something():
    assert tubes.mean_area([None, 4.0, 0.0, 8.0]) == 6
    assert tubes.mean_area([None, 0.0]) == 0


def test_sizes_that_a_file_leaves_out_are_counted():
    whole = {"size": [300, 300], "counts": [0, 90000]}
    track = {"category_id": 1, "segmentations": [whole, None, whole]}
    for areas in ({}, {"areas": None}, {"areas": [None, None, None]}, {"areas": [90000.0, None, None]}):
        made = tubes.annotated({**track, **areas}, 300, 300)
        assert made.areas == [90000.0, None, 90000.0]
        assert tubes.mean_area(made.areas) == 90000


def test_what_belongs_together_is_of_one_length():
    with pytest.raises(ValueError, match="shorter"):
        tubes.Track([0, 1], [encode(square())], [0.5, 0.5], [1, 1]).over(3)
    with pytest.raises(ValueError, match="shorter"):
        tubes.annotated({"category_id": 1, "segmentations": [None, None], "areas": [4.0]}, 20, 60)
