"""The folder of a prediction, file by file, and the tracks of a video as a results file has them."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from queryinst.errors import UserError
from queryinst.evaluation.tubes import DOUBT
from queryinst.inference.record import Record
from queryinst.inference.result import Classes, Result
from queryinst.inference.sources import Files
from queryinst.inference.tracking import Story, seen_of, tracked
from queryinst.structures import Detections
from queryinst.video_config import TrackerConfig

CLASSES = Classes((4, 7, 90), ("cat", "dog", "traffic light/red"))
BOXES = [[10, 10, 30, 40], [5, 5, 5, 5], [50, 20, 70, 50], [10, 10, 30, 38]]
SCORES = [0.875, 0.75, 0.5, 0.25]  # bfloat16 could hold them: no rounding


def result(number: int = 0, tracks: list[int] | None = None) -> Result:
    """Four instances, the second without a pixel; the first two are traffic lights."""
    detections = Detections(
        torch.tensor(BOXES, dtype=torch.float32),
        torch.tensor(SCORES),
        torch.tensor([2, 2, 1, 0]),
        torch.ones(4, 28, 28),
        (60, 80),
        torch.arange(4),
        tracks=None if tracks is None else torch.tensor(tracks),
    )
    return Result(detections, CLASSES, pixels=np.full((60, 80, 3), 90, np.uint8), number=number)


def files(tmp_path: Path) -> Files:
    return Files([tmp_path / "a.png", tmp_path / "deep" / "b.png"])


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_everything_that_is_found_from_the_score_on_is_written(tmp_path: Path):
    with Record(tmp_path / "out", files(tmp_path), overlays=True, cutouts=True, score=0.5, story=None) as record:
        for number in (0, 1):
            record.add(record.draw(result(number)))
    assert (record.instances, record.pictures) == (6, 2)
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    codes = [entry.pop("segmentation") for entry in entries]
    assert [int(coco_mask.area(code)) for code in codes] == [600, 0, 600] * 2
    assert entries == [
        {"file_name": name, "image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for name, image_id in (("a.png", 1), ("deep/b.png", 2))
        for category, box, score in (
            (90, [10, 10, 20, 30], 0.875),
            (90, [5, 5, 0, 0], 0.75),
            (7, [50, 20, 20, 30], 0.5),
        )
    ]
    cut = [f"{name}-{label}" for name in ("a.png", "deep/b.png") for label in ("001-traffic_light_red", "003-dog")]
    assert written(tmp_path / "out") == sorted(
        [*(f"cutouts/{name}.png" for name in cut), "a.png.png", "deep/b.png.png", "predictions.json"]
    )
    assert cv2.imread(str(tmp_path / "out/cutouts/a.png-003-dog.png"), cv2.IMREAD_UNCHANGED).shape == (30, 20, 4)
    drawn = cv2.imread(str(tmp_path / "out" / "a.png.png"))[..., ::-1]
    assert (drawn == result()[:3].draw()).all(), "what is below the score is not drawn"


def test_a_folder_is_whole_where_a_prediction_ends_early(tmp_path: Path):
    def interrupted() -> None:
        with Record(tmp_path, files(tmp_path), overlays=False, cutouts=False, score=0.9, story=Story([4])) as record:
            record.add(record.draw(result(0, [0, 1, 2, 3])[:0]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert written(tmp_path) == ["predictions.json", "tracks.json"]
    assert (tmp_path / "predictions.json").read_text() == "[]\n"
    assert json.loads((tmp_path / "tracks.json").read_text()) == []


def test_entries_name_their_tracks_and_the_tracks_have_also_what_is_below_the_score(tmp_path: Path):
    story = Story(CLASSES.ids)
    with Record(tmp_path, files(tmp_path), overlays=False, cutouts=False, score=0.6, story=story) as record:
        for number, tracks in ((0, [5, 6, 9, 2]), (1, [5, 6, 2, 9])):
            record.add(record.draw(result(number, tracks)))
    entries = json.loads((tmp_path / "predictions.json").read_text())
    assert [entry["track_id"] for entry in entries] == [5, 6, 5, 6]
    tracks = json.loads((tmp_path / "tracks.json").read_text())
    seen = [(0.875, 0.875), (0.75, 0.75), (0.5, 0.25), (0.25, 0.5)]
    expected = sorted(sum(scores) / (2 + DOUBT) for scores in seen)
    assert sorted(track["score"] for track in tracks) == pytest.approx(expected)


@pytest.mark.parametrize("cutouts", [True, False])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, cutouts: bool):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error:
        Record(tmp_path / "file", files(tmp_path), True, cutouts, 0.5, None)
    reason = "Not a directory" if cutouts else "File exists"
    assert str(error.value) == f"output={tmp_path / 'file'} cannot be written ({reason}); give another folder"


def masks_of(track: dict[str, Any]) -> list[int | None]:
    return [mask and int(coco_mask.area(mask)) for mask in track["segmentations"]]


@pytest.mark.parametrize(("length", "expected"), [(0, 4), (3, 4), (6, 6)])
def test_a_track_has_a_place_for_every_frame_also_for_those_that_nobody_read(length: int, expected: int):
    story = Story(CLASSES.ids, length)
    for number, tracks in ((0, [5, 6, 9, 2]), (1, [9, 6, 5, 2]), (3, [5, 0, 1, 2])):
        story.add(number, seen_of(result(number, tracks)))
    by_masks = {tuple(masks_of(track)): track for track in story.entries()}
    rest = (None,) * (expected - 4)
    track = by_masks[600, 600, None, 600, *rest]  # 5: twice a traffic light, once a dog
    assert (track["video_id"], track["category_id"]) == (1, 90)
    assert track["score"] == pytest.approx((0.875 + 0.5 + 0.875) / (3 + DOUBT))
    assert by_masks[560, 560, None, 560, *rest]["category_id"] == 4
    assert len(story.entries()) == 6


def test_a_video_is_followed_as_the_settings_say():
    frames = [result(number) for number in range(2)]
    config = TrackerConfig(by="query", score=0.0, birth_score=0.6, duplicate_iou=1.0)
    for frame, found in zip(frames, tracked(frames, config), strict=True):
        assert found.number == frame.number
        assert found.tracks is not None
        assert found.tracks.tolist() == [0, 1], "what is below the score of a birth begins no track"
        assert found.scores.tolist() == [0.875, 0.75]
