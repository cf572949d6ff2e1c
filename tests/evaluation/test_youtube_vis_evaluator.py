"""The video evaluator: linking, known answers, parts of videos, several processes, the oracle, submission, speed."""

import json
import math
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from queryinst.errors import UserError
from queryinst.evaluation.tubes import DOUBT
from queryinst.evaluation.youtube_vis import Linked, VideoEvaluator, table, tracks_to_results
from queryinst.ops import masks as mask_ops
from queryinst.structures import Detections
from queryinst.video_config import TrackerConfig

HEIGHT, WIDTH = 50, 100
A, B = [10.0, 10, 30, 30], [60.0, 10, 80, 30]  # boxes of the two objects of every video, in every frame
LOOKS = 5 * np.eye(3) - 1  # embeddings of a, b and something else


def rle(box: list[float]) -> dict[str, Any]:
    bits = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    x1, y1, x2, y2 = (int(v) for v in box)
    bits[y1:y2, x1:x2] = 1
    code = coco_mask.encode(bits)
    return {**code, "counts": code["counts"].decode()}


def content(videos: int = 2, frames: int = 4) -> dict[str, Any]:
    """In every video an object of class a (RLE) and one of class b (polygons); the second video is one of occlusion."""
    made: list[dict[str, Any]] = []
    for video in range(videos):
        polygon = [[B[0], B[1], B[2], B[1], B[2], B[3], B[0], B[3]]]
        for category, masks in ((4, [rle(A)] * frames), (8, [polygon] * frames)):
            made.append({"id": len(made), "video_id": video + 5, "category_id": category, "segmentations": masks})
    names = [f"{frame}.jpg" for frame in range(frames)]
    return {
        "videos": [
            {"id": v + 5, "height": HEIGHT, "width": WIDTH, "file_names": names, "occlusion": v == 1}
            for v in range(videos)
        ],
        "categories": [{"id": 8, "name": "b"}, {"id": 4, "name": "a"}],
        "annotations": made,
    }


PLACES = {100 * (video + 5) + frame: (video + 5, frame) for video in range(2) for frame in range(4)}
FIRST, SECOND = list(PLACES)[:4], list(PLACES)[4:]


def detections(*found: tuple[list[float], int, int] | tuple[list[float], int, int, float]) -> Detections:
    """A frame from (box, label, looks, score)."""
    boxes, labels, looks, *scores = zip(*found, strict=True) if found else ((), (), ())
    return Detections(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(scores[0] if scores else [0.9] * len(found), dtype=torch.float32),
        torch.tensor(labels, dtype=torch.int64),
        torch.ones(len(found), 28, 28),
        (HEIGHT, WIDTH),
        embeddings=torch.tensor(LOOKS[list(looks)], dtype=torch.float32).reshape(-1, 3),
    )


PERFECT = detections((A, 0, 0), (B, 1, 1))
SWAPPED = detections((A, 0, 1), (B, 0, 0))  # of one class, and each looks as the other did


def evaluator(by: str = "embedding", truth: dict[str, Any] | None = None, **changes: Any) -> VideoEvaluator:
    return VideoEvaluator(truth or content(), PLACES, TrackerConfig(by=by, **changes))


def test_perfect_tracks():
    one = evaluator()
    one.update(FIRST[:3], [PERFECT] * 3)
    one.update(FIRST[3:] + SECOND, [PERFECT] * 5)  # a batch that holds frames of two videos
    metrics = one.compute()
    for name in ("AP", "AP50", "AP75", "APs", "AR1", "AR10", "AP/a", "AP/b", "AP_occlusion"):
        assert metrics[f"segm_{name}"] == pytest.approx(1), name
    assert math.isnan(metrics["segm_APl"])
    assert (metrics["association_accuracy"], metrics["association_accuracy_occlusion"]) == (1, 1)
    assert (metrics["id_switches"], metrics["id_kept"]) == (0, 1)
    assert one.precision["segm"].shape == (10, 101, 2)
    text = table(metrics, ["a", "b"])
    assert "0 switches" in text
    assert text.endswith("mask AP by class: a 1.000, b 1.000")


def test_identities_that_swap_in_the_clip_with_occlusion():
    """In the second video a and b, there of one class, swap their looks after two frames of four."""
    data = content()
    for annotation in data["annotations"]:
        annotation["category_id"] = 4
    one, same = evaluator(truth=data), detections((A, 0, 0), (B, 0, 1))
    one.update(FIRST + SECOND, [same] * 4 + [same] * 2 + [SWAPPED] * 2)
    metrics = one.compute()
    assert metrics["id_switches"] == 2
    assert metrics["id_kept"] == pytest.approx(1 - 2 / 12)
    assert metrics["association_accuracy_occlusion"] == pytest.approx(2 / (4 + 4 - 2))
    assert metrics["association_accuracy"] == pytest.approx((8 * 1 + 8 / 3) / 16)
    # Each of its tracks overlaps an object in two frames of four: 2 over 2 + 2 + 2.
    assert metrics["segm_AP_occlusion"] == 0
    assert 0 < metrics["segm_AP"] < 1
    assert "clips with occlusion: mask AP 0.000" in table(metrics, ["a", "b"])


def test_the_oracle_links_as_the_ground_truth_says():
    data = content()
    for annotation in data["annotations"]:
        annotation["category_id"] = 4
    one, wrong = evaluator("truth", data), ([0.0, 30, 20, 50], 0, 2, 0.95)
    same = detections((A, 0, 0), (B, 0, 1))
    one.update(FIRST + SECOND, [same] * 4 + [same] * 2 + [SWAPPED] * 2)
    metrics = one.compute()
    assert (metrics["segm_AP"], metrics["association_accuracy"]) == (pytest.approx(1), 1)
    one.reset()
    noisy = detections((A, 0, 0, 0.9), (B, 0, 1, 0.9), wrong)
    one.update(FIRST, [noisy] * 4)
    assert len(one.results[5].tracks) == 2, "what shows no object is left out"
    assert one.compute()["segm_AP"] == pytest.approx(1)
    one.reset()
    weak = detections((A, 0, 0, 0.1), (B, 0, 1, 0.04))  # too weak to begin a track, and to take part
    one.update(FIRST, [weak] * 4)
    assert [track.scores for track in one.results[5].tracks.values()] == [pytest.approx([0.1] * 4)]


def test_the_oracle_takes_what_the_tracker_takes():
    """Not more than `max_detections`, and a query once: here with another class, so that the object is not found."""
    twice = replace(detections((A, 1, 0, 0.9), (A, 0, 0, 0.8)), queries=torch.tensor([3, 3]))
    for changes, found, labels in (
        ({}, twice, [1]),
        ({"max_detections": 1}, detections((B, 1, 1, 0.9), (A, 0, 0, 0.8)), [1]),
        ({"score": 0.85}, detections((B, 1, 1, 0.9), (A, 0, 0, 0.8)), [1]),
        ({}, replace(PERFECT, embeddings=None), [0, 1]),
    ):
        one = evaluator("truth", **changes)
        one.update(FIRST, [found] * 4)
        assert [track.label for track in one.results[5].tracks.values()] == labels


def test_the_oracle_is_no_worse_than_any_tracker():
    """Noisy boxes, classes and looks, and detections that show nothing."""
    rng = np.random.default_rng(0)
    ones = {by: evaluator(by) for by in ("truth", "embedding", "iou")}
    for image_id in PLACES:
        shown = [
            (list(np.array(box) + rng.normal(0, 2, 4)), int(rng.random() < 0.3) ^ k) for k, box in enumerate((A, B))
        ]
        rows = [(*row, int(rng.integers(3)), rng.uniform(0.3, 1)) for row in [*shown, ([30.0, 30, 60, 50], 0)]]
        for one in ones.values():
            one.update([image_id], [detections(*rows)])
    truth, *others = (one.compute() for one in ones.values())
    for other in others:
        for name in ("segm_AP", "segm_AP50", "segm_AR10", "association_accuracy", "id_kept"):
            assert truth[name] > other[name], name
    assert truth["id_switches"] == 0


def test_only_the_frames_that_were_given_count():
    data = content()
    data["annotations"][0]["segmentations"] = [None, None, rle(A), rle(A)]  # a comes later
    one = evaluator(truth=data)
    one.update(FIRST[:2], [detections((B, 1, 1))] * 2)
    metrics = one.compute()
    assert metrics["segm_AP"] == pytest.approx(1)
    assert math.isnan(metrics["segm_AP/a"])
    assert math.isnan(metrics["segm_AP_occlusion"]), "not looked at"
    one.update(FIRST[2:], [detections((B, 1, 1))] * 2)
    assert one.compute()["segm_AP"] == pytest.approx(0.5)


def test_nothing_found_and_nothing_given():
    one = evaluator()
    metrics = one.compute()
    assert math.isnan(metrics["segm_AP"])
    assert metrics["id_switches"] == 0
    one.update(FIRST, [detections()] * 4)
    metrics = one.compute()
    assert metrics["segm_AP"] == 0
    assert math.isnan(metrics["association_accuracy"])
    assert "identity: association accuracy -, kept -, 0 switches" in table(metrics, ["a", "b"])


def test_crowd_regions_take_no_part_in_association():
    data = content()
    data["annotations"][0]["iscrowd"] = 1
    one = evaluator(truth=data)
    one.update(FIRST, [PERFECT] * 4)
    metrics = one.compute()
    assert (metrics["segm_AP"], metrics["association_accuracy"]) == (pytest.approx(1), 1)
    assert math.isnan(metrics["segm_AP/a"])


def test_sizes_go_by_the_areas_of_the_annotations():
    data = content()
    data["annotations"][0]["areas"] = [200.0**2, None, 200.0**2, 200.0**2]
    one = evaluator(truth=data)
    one.update(FIRST, [PERFECT] * 4)
    metrics = one.compute()
    assert (metrics["segm_APs"], metrics["segm_APm"]) == (pytest.approx(1), pytest.approx(1))
    assert math.isnan(metrics["segm_APl"])


def test_what_cannot_be_evaluated_is_said():
    with pytest.raises(UserError, match="correct width and height"):
        evaluator().update(FIRST[:1], [replace(PERFECT, size=(40, 100))])
    one = evaluator()
    one.update([FIRST[2]], [PERFECT])
    with pytest.raises(ValueError, match="frame 1 comes after frame 2"):
        one.update([FIRST[1]], [PERFECT])
    data = content()
    data["videos"][0] |= {"height": 2**16, "width": 2**15}
    with pytest.raises(UserError, match="cut it into several"):
        evaluator(truth=data)


def test_ranks_put_their_videos_together(monkeypatch: pytest.MonkeyPatch):
    import torch.distributed as dist

    whole, parts = evaluator(), [evaluator() for _ in range(2)]
    found = [PERFECT] * 6 + [SWAPPED] * 2
    whole.update(FIRST + SECOND, found)
    parts[1].update(FIRST, found[:4])
    parts[0].update(SECOND, found[4:])
    expected = whole.compute()
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(
        dist, "all_gather_object", lambda out, own: out.__setitem__(slice(None), [part.results for part in parts])
    )
    for part in parts:
        assert json.dumps(part.compute()) == json.dumps(expected)


def test_tracks_become_entries_of_a_submission():
    one = evaluator()
    one.update(FIRST[:3], [PERFECT, detections((B, 0, 1, 0.5)), detections((B, 1, 1, 0.7))])
    results = json.loads(json.dumps(tracks_to_results(5, one.results[5], 4, [4, 8])))
    assert [(r["video_id"], r["category_id"]) for r in results] == [(5, 4), (5, 8)]
    assert [r["score"] for r in results] == [pytest.approx(0.9 / (1 + DOUBT)), pytest.approx(2.1 / (3 + DOUBT))]
    assert results[0]["segmentations"] == [rle(A), None, None, None]
    assert results[1]["segmentations"] == [rle(B)] * 3 + [None]
    assert tracks_to_results(5, Linked(), 4, [4, 8]) == []


def test_matches_are_kept_where_asked():
    one = VideoEvaluator(content(), PLACES, TrackerConfig(), keep_matches=True)
    one.update(FIRST + SECOND, [PERFECT] * 8)
    one.compute()
    assert one.matches["image_ids"].tolist() == [5, 6]
    assert one.matches["segm_matched"].all()
    assert one.matches["segm_matched"].shape == (4, 10)


@pytest.mark.slow
def test_300_videos_of_30_frames_take_less_than_a_minute():
    """Five objects a video and ten detections a frame at 360 x 640, linked, encoded and evaluated on one core."""
    rng, videos, frames, size = np.random.default_rng(0), 300, 30, (360, 640)
    names = [f"{frame}.jpg" for frame in range(frames)]
    y, x = np.mgrid[:28, :28] / 13.5 - 1
    disc = torch.tensor(1 / (1 + np.exp(8 * (x**2 + y**2 - 0.8))), dtype=torch.float32)
    truth: list[dict[str, Any]] = []
    found: dict[tuple[int, int], Detections] = {}
    for video in range(videos):
        start, speed, side = rng.uniform(0, 300, (10, 2)), rng.normal(0, 4, (10, 2)), rng.uniform(40, 160, (10, 1))
        looks = torch.tensor(4 * np.eye(16)[:10] - 1, dtype=torch.float32)
        scores, labels = torch.tensor(np.linspace(0.95, 0.4, 10)).float(), torch.tensor(rng.integers(10, size=10))
        codes: list[list[Any]] = [[] for _ in range(5)]
        for frame in range(frames):
            corner = start + frame * speed
            boxes = np.concatenate([corner, corner + side], 1)
            for k in range(5):
                code = mask_ops.encode(mask_ops.paste(disc.numpy(), boxes[k].astype(np.float32), size), size)
                codes[k].append(code if mask_ops.area(code) else None)
            jitter = torch.tensor(boxes + rng.normal(0, 2, (10, 4)), dtype=torch.float32)
            found[video, frame] = Detections(jitter, scores, labels, disc.expand(10, 28, 28), size, embeddings=looks)
        truth += [{"video_id": video, "category_id": int(labels[k]), "segmentations": codes[k]} for k in range(5)]
    data = {
        "videos": [{"id": v, "height": size[0], "width": size[1], "file_names": names} for v in range(videos)],
        "categories": [{"id": label, "name": str(label)} for label in range(10)],
        "annotations": truth,
    }
    places = {video * frames + frame: (video, frame) for video, frame in found}
    one = VideoEvaluator(data, places, TrackerConfig())
    begin = time.process_time()
    one.update(list(places), list(found.values()))
    linked = time.process_time()
    metrics = one.compute()
    end = time.process_time()
    print(f"\nlinking and encoding {linked - begin:.1f} s, evaluating {end - linked:.1f} s, {metrics}")
    assert metrics["association_accuracy"] > 0.9
    assert end - begin < 60
