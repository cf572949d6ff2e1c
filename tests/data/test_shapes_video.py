"""The embedded clips: the same everywhere, and made so that looks tell objects apart where box overlap does not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from queryinst.data import shapes, shapes_video
from queryinst.errors import UserError
from queryinst.video_config import ShapesVideoConfig

CONFIG = ShapesVideoConfig(train=1, val=1)
Clip = tuple[list[np.ndarray], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [shapes_video.draw(CONFIG, "val", index) for index in range(24)]


def test_it_is_a_function_of_seed_split_and_index():
    frames, annotations = shapes_video.draw(CONFIG, "val", 3)
    again, annotations_again = shapes_video.draw(CONFIG, "val", 3)
    assert all((a == b).all() for a, b in zip(frames, again, strict=True))
    assert annotations == annotations_again
    for config, split, index in ((CONFIG, "val", 5), (CONFIG, "train", 3), (ShapesVideoConfig(1, 1, seed=1), "val", 3)):
        assert shapes_video.draw(config, split, index)[1] != annotations


def test_training_clips_keep_every_fourth_frame():
    assert len(shapes_video.draw(CONFIG, "train", 0)[0]) == 4
    assert len(shapes_video.draw(CONFIG, "val", 0)[0]) == 16
    assert len(shapes_video.draw(ShapesVideoConfig(1, 1, frames=5), "train", 0)[0]) == 2


def test_objects_enter_leave_hide_and_come_back(clips: list[Clip]):
    seen = ["".join(".x"[mask is not None] for mask in a["segmentations"]) for _, found in clips for a in found]
    assert any(track.startswith(".") for track in seen), "one enters"
    assert any(track.endswith(".") for track in seen), "one leaves"
    assert sum("x." in track.rstrip(".") for track in seen) > 8, "some are hidden and come back"
    assert all("x" in track for track in seen)
    assert {2, 5} < {len(found) for _, found in clips}
    areas = [[area for area in a["areas"] if area] for _, found in clips for a in found]
    assert any(max(of) > 3 * min(of) for of in areas if len(of) > 10)


def test_masks_boxes_and_areas_agree_and_do_not_overlap(clips: list[Clip]):
    for frames, found in clips:
        for time, picture in enumerate(frames):
            covered = np.zeros(picture.shape[:2], int)
            for annotation in found:
                code, box, area = (annotation[name][time] for name in ("segmentations", "bboxes", "areas"))
                if code is None:
                    assert box is area is None
                    continue
                bitmap = coco_mask.decode(code)
                covered += bitmap
                assert bitmap.sum() == area >= shapes_video.LEAST_SEEN
                assert coco_mask.toBbox(code).tolist() == box
            assert covered.max() <= 2  # halves of a pixel at a rim
            assert (covered > 1).mean() < 0.005


def test_a_texture_goes_with_its_object():
    """Pixels at the same place of an object are of one colour in all frames, however it has moved and turned."""
    config, seen = ShapesVideoConfig(1, 1, side=256), 0
    for index in (0, 2, 4):
        frames, _ = shapes_video.draw(config, "val", index)
        rng = np.random.default_rng([0, 1, index, 1])
        width, height = shapes.image_size(rng, 256)
        cast = shapes_video._cast(rng, width, height, 16, occlusion=False)
        front = cast[-1]  # nothing covers it
        spots = np.array([[0.1, 0.35], [-0.35, 0.1], [0.3, 0.1]]) if front.category != 22 else np.array([[0.85, 0.0]])
        for spot in spots:
            colours = []
            for time, frame in enumerate(frames):
                place = shapes_video.pose(
                    [spot[None]], front.way.centres[time], front.way.radii[time], front.way.angles[time]
                )[0][0]
                x, y = np.floor(place).astype(int)
                inside = shapes_video.silhouette(
                    shapes_video.pose(
                        front.outline, front.way.centres[time], front.way.radii[time], front.way.angles[time]
                    ),
                    height,
                    width,
                    1,
                )
                if 2 <= x < width - 2 and 2 <= y < height - 2 and inside[y - 2 : y + 3, x - 2 : x + 3].all():
                    colours.append(frame[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).mean(axis=0))
            if len(colours) > 5:
                seen += 1
                assert np.std(colours, axis=0).max() < 22
    assert seen >= 3


def kept_whole(found: list[dict[str, Any]]) -> float:
    """Share of objects that stay one track from beginning to end when true boxes are linked by overlap alone: in every
    frame an assignment of what is seen to the last boxes of all tracks of the category.
    """
    tracks: list[tuple[int, list[float]]] = []  # category and last box
    members: list[set[int]] = []  # of each track, the objects that it has followed
    of_object: list[set[int]] = [set() for _ in found]  # and of each object, the tracks that have followed it
    for time in range(len(found[0]["bboxes"])):
        seen = [key for key, annotation in enumerate(found) if annotation["bboxes"][time]]
        gain = np.zeros((len(seen), len(tracks)))
        for row, key in enumerate(seen):
            for column, (category, box) in enumerate(tracks):
                overlap = coco_mask.iou([found[key]["bboxes"][time]], [box], [0])[0][0]
                gain[row, column] = overlap + 10 * (category == found[key]["category_id"])
        pairs = zip(*linear_sum_assignment(-gain), strict=True)
        linked = {seen[row]: int(column) for row, column in pairs if gain[row, column] >= 10}
        for key in seen:
            number = linked.get(key, len(tracks))
            last = found[key]["category_id"], found[key]["bboxes"][time]
            tracks[number : number + 1] = [last]
            if number == len(members):
                members.append(set())
            members[number].add(key)
            of_object[key].add(number)
    whole = [len(numbers) == 1 and members[min(numbers)] == {key} for key, numbers in enumerate(of_object)]
    return sum(whole) / len(whole)


def test_box_overlap_links_plain_clips_rightly_and_occlusion_clips_wrongly(clips: list[Clip]):
    plain, occlusion = (np.mean([kept_whole(found) for _, found in clips[first::2]]) for first in (0, 1))
    assert plain > 0.95
    assert occlusion < 0.45


def test_rivals_look_different(clips: list[Clip]):
    """In an occlusion clip objects of one category differ in mean colour, in the frame where most is seen of each."""
    for frames, found in clips[1::2]:
        category = max({a["category_id"] for a in found}, key=[a["category_id"] for a in found].count)
        means = []
        for annotation in (a for a in found if a["category_id"] == category):
            time = int(np.argmax([area or 0 for area in annotation["areas"]]))
            means.append(frames[time][coco_mask.decode(annotation["segmentations"][time]) > 0].mean(axis=0))
        assert len(means) >= 2
        gaps = [np.linalg.norm(a - b) for i, a in enumerate(means) for b in means[:i]]
        assert min(gaps) > 35


def test_the_folder_is_youtube_vis(clips_source: Path):
    for split, count, frames in (("train", 6, 4), ("val", 2, 16)):
        content = json.loads((clips_source / "annotations" / f"instances_{split}.json").read_text())
        assert [category["id"] for category in content["categories"]] == list(shapes.CATEGORIES)
        assert [video["occlusion"] for video in content["videos"]] == [False, True] * (count // 2)
        assert [annotation["id"] for annotation in content["annotations"]] == list(
            range(1, len(content["annotations"]) + 1)
        )
        for video in content["videos"]:
            assert len(video["file_names"]) == video["length"] == frames
            for name in video["file_names"]:
                with Image.open(clips_source / split / "JPEGImages" / name) as picture:
                    assert picture.size == (video["width"], video["height"])


def test_made_once_and_never_over_something_else(clips_root: Path):
    config = ShapesVideoConfig(train=6, val=2, frames=16, side=96)
    before = (clips_root / "annotations" / "instances_val.json").stat().st_mtime_ns
    shapes_video.make(clips_root, config)
    assert (clips_root / "annotations" / "instances_val.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="data.root=FOLDER"):
        shapes_video.make(clips_root, ShapesVideoConfig(train=7, val=2, frames=16, side=96))
