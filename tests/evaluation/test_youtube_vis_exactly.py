"""The figures of YouTube-VIS by name, against tubes made by hand; what is said, and what is printed."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from queryinst.errors import UserError
from queryinst.evaluation import tubes
from queryinst.evaluation.tubes import Track
from queryinst.evaluation.youtube_vis import Linked, VideoEvaluator, table, tracks_to_results
from queryinst.structures import Detections
from queryinst.video_config import TrackerConfig

HEIGHT, WIDTH, LENGTH = 40, 90, 3
Box = list[float]
Row = tuple[Box, int, int, float]  # box, label, which look, score


def bits(box: Box) -> Any:
    made = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    x1, y1, x2, y2 = (int(v) for v in box)
    made[y1:y2, x1:x2] = 1
    return made


def written(box: Box) -> dict[str, Any]:
    code = coco_mask.encode(bits(box))
    return {**code, "counts": code["counts"].decode()}


def frame(*rows: Row) -> Detections:
    looks = torch.tensor([[5.0 * (k == look) - 1 for k in range(6)] for _, _, look, _ in rows]).reshape(-1, 6)
    return Detections(
        torch.tensor([row[0] for row in rows]).reshape(-1, 4),
        torch.tensor([row[3] for row in rows]),
        torch.tensor([row[1] for row in rows], dtype=torch.int64),
        torch.ones(len(rows), 28, 28),
        (HEIGHT, WIDTH),
        embeddings=looks,
    )


def square(k: int, side: float = 20) -> Box:
    """Places that do not overlap."""
    return [30.0 * k, 10, 30 * k + side, 10 + side]


# Category, boxes in every frame (None: not there), areas in the file, their mean. In video 8 something is hidden.
OBJECTS: dict[int, list[tuple[int, list[Box | None], list[float | None], float]]] = {
    3: [
        (9, [square(0)] * 3, [], 400.0),
        (9, [square(1)] * 3, [20_000.0, 20_000.0, 26_000.0], 22_000.0),
        (2, [square(2), None, square(2)], [200_000.0, None, None], 100_200.0),
    ],
    8: [(2, [square(0), square(1), square(2)], [], 400.0), (9, [square(2), None, None], [None] * 3, 400.0)],
}
# Every frame of both, by the tracks that an identity of its own has: label, boxes, score.
TRACKS: dict[int, list[tuple[int, list[Box | None], float]]] = {
    3: [
        (1, [square(0)] * 3, 0.9),
        (1, [square(1, 15), square(1), square(1)], 0.8),
        (0, [square(2), None, square(2, 14)], 0.7),
    ],
    8: [(0, [square(0), square(1), None], 0.6), (0, [None, None, square(2)], 0.95), (1, [square(2), None, None], 0.5)],
}
PLACES = {10 * video + number: (video, number) for video in OBJECTS for number in range(LENGTH)}


def content(**occlusion: Any) -> dict[str, Any]:
    annotations = [
        {"video_id": video, "category_id": category, "segmentations": [b and written(b) for b in boxes], "areas": areas}
        for video, objects in OBJECTS.items()
        for category, boxes, areas, _ in objects
    ]
    names = [f"{number}.jpg" for number in range(LENGTH)]
    whole = {"height": HEIGHT, "width": WIDTH, "file_names": names}
    return {
        "videos": [{"id": 8, **whole, **occlusion}, {"id": 3, **whole}],
        "categories": [{"id": 9, "name": "b"}, {"id": 2, "name": "a"}],
        "annotations": annotations,
    }


def evaluated(data: dict[str, Any], **asked: Any) -> VideoEvaluator:
    one = VideoEvaluator(data, PLACES, TrackerConfig(), **asked)
    for video in (8, 3):
        for number in range(LENGTH):
            rows = [
                (boxes[number], label, look, score)
                for look, (label, boxes, score) in enumerate(TRACKS[video])
                if boxes[number]
            ]
            one.update([10 * video + number], [frame(*sorted(rows, key=lambda row: -row[3]))])
    return one


def by_hand(*videos: int) -> Any:
    """The average precision of `tubes`, of the same objects and tracks."""

    def tube(video: int, category: int, boxes: list[Box | None]) -> dict[str, Any]:
        codes = [coco_mask.encode(bits(box)) if box else None for box in boxes]
        code = tubes.side_by_side(codes, HEIGHT, WIDTH)
        return {"image_id": video, "category_id": category, "segmentation": code, "iscrowd": 0}

    truth, found = [], []
    for video in videos:
        truth += [{**tube(video, category, boxes), "area": area} for category, boxes, _, area in OBJECTS[video]]
        for label, boxes, score in TRACKS[video]:
            areas = [float(bits(box).sum()) for box in boxes if box]
            mean = score * len(areas) / (len(areas) + tubes.DOUBT)
            found.append({**tube(video, [2, 9][label], boxes), "score": mean, "area": np.mean(areas)})
    sizes = [{"id": video, "height": HEIGHT, "width": WIDTH * LENGTH} for video in videos]
    return tubes.evaluate(sizes, [{"id": 2, "name": "a"}, {"id": 9, "name": "b"}], truth, found)


NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def test_every_figure():
    data = content(occlusion=True)
    one = evaluated(data)
    metrics = one.compute()
    whole, hidden = by_hand(3, 8), by_hand(8)
    expected = {f"segm_{name}": value for name, value in zip(NAMES, whole.stats, strict=True)}
    precision = whole.eval["precision"][:, :, :, 0, 2]
    expected |= {"segm_AP/a": precision[:, :, 0].mean(), "segm_AP/b": precision[:, :, 1].mean()}
    expected["segm_AP_occlusion"] = hidden.stats[0]
    # In video 3 the squares of 15 x 15 and 14 x 14 pixels have an IoU of 0.56 and 0.49 with those of 20 x 20.
    accuracy = {3: 3 + 3 + 1 / 3, 8: 2 * 2 / 3 + 1 / 3 + 1}
    expected |= {
        "id_switches": 1.0,
        "association_accuracy": (accuracy[3] + accuracy[8]) / 11,
        "id_kept": 1 - 1 / 6,
        "association_accuracy_occlusion": accuracy[8] / 4,
        "id_kept_occlusion": 0.5,
    }
    assert metrics == pytest.approx(expected, abs=1e-9)
    assert {type(value) for value in metrics.values()} == {float}
    np.testing.assert_allclose(one.precision["segm"], precision)
    assert one.matches == {}
    assert one.diagnosis == ""


def test_figures_of_occlusion_are_for_data_that_has_them():
    for occlusion in ({}, {"occlusion": False}):
        metrics = evaluated(content(**occlusion)).compute()
        assert not [name for name in metrics if "occlusion" in name]


def test_figures_of_one_video():
    one = evaluated(content(occlusion=True))
    del one.results[8]
    metrics = one.compute()
    assert metrics["segm_AP"] == pytest.approx(by_hand(3).stats[0])
    for name in ("segm_AP_occlusion", "association_accuracy_occlusion", "id_kept_occlusion"):
        assert math.isnan(metrics[name])


def test_what_is_kept_of_the_matching():
    one = evaluated(content(), keep_matches=True)
    metrics = one.compute()
    assert one.matches.keys() == {
        *("image_ids", "category_ids", "thresholds", "segm_image", "segm_category", "segm_score"),
        *("segm_matched", "segm_ignored", "segm_truth_image", "segm_truth_category"),
    }
    assert (one.matches["image_ids"].tolist(), one.matches["category_ids"].tolist()) == ([3, 8], [2, 9])
    rows = zip(one.matches["segm_image"].tolist(), one.matches["segm_category"].tolist(), strict=True)
    assert sorted(rows) == [(0, 0), (0, 1), (0, 1), (1, 0), (1, 0), (1, 1)]
    assert metrics == evaluated(content()).compute()


def test_a_tracker_for_each_video_and_none_after_a_reset():
    one = evaluated(content())
    first = {video: sorted(linked.tracks) for video, linked in one.results.items()}
    assert first == {3: [0, 1, 2], 8: [0, 1, 2]}
    one.reset()
    assert one.results == {}
    one.update([30], [frame((square(0), 1, 0, 0.9))])
    assert (one.results[3].frames, list(one.results[3].tracks)) == ([0], [0])


def test_the_oracle_gives_nothing_to_a_crowd_region():
    data = content()
    data["annotations"][0]["iscrowd"] = 1
    one = VideoEvaluator(data, PLACES, TrackerConfig(by="truth"))
    one.update([30, 31], [frame((square(1), 1, 0, 0.9), (square(0), 1, 1, 0.8))] * 2)
    assert {key: track.frames for key, track in one.results[3].tracks.items()} == {1: [0, 1]}, "the second object"
    one.update([32], [frame((square(2), 1, 0, 0.9), (square(0, 14), 1, 1, 0.8))])
    assert sorted(one.results[3].tracks) == [1, 2]


def test_the_oracle_looks_at_the_frame():
    """An object that is not there is not shown."""
    one = VideoEvaluator(content(), PLACES, TrackerConfig(by="truth"))
    one.update([80, 81, 82], [frame((square(2), 1, 0, 0.9))] * 3)
    assert {key: track.frames for key, track in one.results[8].tracks.items()} == {1: [0], 0: [2]}


def test_sizes_are_of_the_frames_that_were_given():
    data = content()
    data["annotations"] = [{**data["annotations"][0], "areas": [100.0**2, 300.0**2, 400.0**2]}]
    for given, size in ((1, "s"), (2, "m"), (3, "l")):
        one = VideoEvaluator(data, PLACES, TrackerConfig())
        one.update([30, 31, 32][:given], [frame((square(0), 1, 0, 0.9))] * given)
        metrics = one.compute()
        assert {name: metrics[f"segm_AR{name}"] for name in "sml"} == pytest.approx(
            {name: 1.0 if name == size else math.nan for name in "sml"}, nan_ok=True
        )


def test_a_hundred_tracks_of_a_video_and_class_count():
    """The right one is the twelfth."""
    data = content()
    data["annotations"] = data["annotations"][:1]
    one = VideoEvaluator(data, PLACES, TrackerConfig())
    codes = {place: [coco_mask.encode(bits(square(place)))] * LENGTH for place in (0, 1)}
    tracks = {k: Track([0, 1, 2], codes[int(k > 0)], [0.9 - 0.1 * (k == 0)] * 3, [1] * 3) for k in range(12)}
    one.results[3] = Linked([0, 1, 2], tracks)
    metrics = one.compute()
    assert [metrics["segm_AP"], metrics["segm_AP/b"]] == pytest.approx([1 / 12] * 2)
    assert one.precision["segm"][:, :, 1].mean() == pytest.approx(1 / 12)


def test_an_object_that_is_nowhere_counts_as_not_found():
    """As in YouTube-VIS. In a part of the video nobody can know that it is nowhere, and it does not count."""
    data = content()
    nowhere = {"video_id": 3, "category_id": 9, "segmentations": [None] * 3}
    data["annotations"] = [data["annotations"][0], nowhere]
    one = VideoEvaluator(data, PLACES, TrackerConfig())
    for number, recall in ((0, 1.0), (1, 1.0), (2, 0.5)):
        one.update([30 + number], [frame((square(0), 1, 0, 0.9))])
        assert one.compute()["segm_AR100"] == pytest.approx(recall)


def test_what_is_wrong_is_said_in_full():
    one = VideoEvaluator(content(), PLACES, TrackerConfig())
    with pytest.raises(UserError) as error:
        one.update([31], [replace(frame(), size=(41, 92))])
    assert str(error.value) == (
        "video 3 is said to have 90 x 40 pixels, and its frame 1 has 92 x 41: "
        "correct width and height in the annotations"
    )
    one.update([31], [frame()])
    for image in (31, 30):
        with pytest.raises(ValueError, match=rf"^video 3: frame {image - 30} comes after frame 1$"):
            one.update([image], [frame()])
    with pytest.raises(ValueError, match="shorter"):
        one.update([32, 80], [frame()])


def test_pixels_that_can_be_counted():
    data = content()
    video = data["videos"][1] | {"height": 2**15, "width": 2**16, "file_names": ["a", "b"]}
    with pytest.raises(UserError) as error:
        VideoEvaluator({**data, "videos": [data["videos"][0], video]}, PLACES, TrackerConfig())
    assert str(error.value) == (
        "video 3 has 4294967296 pixels in all its frames, and fewer than 4294967296 can be evaluated: "
        "cut it into several"
    )
    VideoEvaluator({**data, "videos": [data["videos"][0], video | {"width": 2**16 - 1}]}, PLACES, TrackerConfig())


def test_entries_of_a_results_file():
    linked = evaluated(content()).results[8]
    tracks = [
        (2, 2 * 0.6 / (2 + tubes.DOUBT), [written(square(0)), written(square(1)), None]),
        (9, 0.5 / (1 + tubes.DOUBT), [written(square(2)), None, None]),
        (2, 0.95 / (1 + tubes.DOUBT), [None, None, written(square(2))]),
    ]
    assert json.loads(json.dumps(tracks_to_results(8, linked, LENGTH, [2, 9]))) == [
        {"video_id": 8, "category_id": category, "score": pytest.approx(score), "segmentations": codes}
        for category, score, codes in tracks
    ]
    assert tracks_to_results(8, Linked(), LENGTH, [2, 9]) == []


def test_the_table_line_by_line():
    metrics = {f"x/segm_{name}": number / 10 for number, name in enumerate(NAMES)}
    metrics |= {"x/segm_APl": math.nan, "x/segm_AP/a": 0.25, "x/segm_AP/b": math.nan}
    metrics |= {"x/association_accuracy": 0.125, "x/id_kept": math.nan, "x/id_switches": 12.0}
    lines = [
        "            AP    AP50    AP75     APs     APm     APl     AR1    AR10",
        "mask     0.000   0.100   0.200   0.300   0.400       -   0.600   0.700",
        "identity: association accuracy 0.125, kept -, 12 switches",
        "mask AP by class: a 0.250, b -",
    ]
    assert table(metrics, ["a", "b"], "x/").split("\n") == lines
    hidden = {"segm_AP": 0.5, "association_accuracy": math.nan, "id_kept": 0.75}
    metrics |= {f"x/{name}_occlusion": value for name, value in hidden.items()}
    lines.insert(3, "clips with occlusion: mask AP 0.500, association accuracy -, kept 0.750")
    assert table(metrics, ["a", "b"], "x/").split("\n") == lines
    assert table({name.removeprefix("x/"): value for name, value in metrics.items()}, ["a", "b"]).split("\n") == lines
