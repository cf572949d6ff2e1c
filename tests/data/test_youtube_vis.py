"""YouTube-VIS files: frames as images, tracks, pairs; and one sentence for a file that is not right."""

import copy
import itertools
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import coco_folder
from pycocotools import mask as coco_mask
from test_fuzz import ODD, mutate, places

from queryinst.config import AugmentationConfig
from queryinst.data import coco, index
from queryinst.data.coco import CocoFile
from queryinst.data.collate import VideoSampler, collate_pairs
from queryinst.data.dataset import CocoDataset
from queryinst.data.transforms import TrainGeometry
from queryinst.data.video_validation import faults
from queryinst.data.youtube_vis import PairDataset, VideoFile
from queryinst.errors import UserError

SQUARE = [10.0, 10, 30, 10, 30, 30, 10, 30]
RUNS = {"size": [40, 50], "counts": [410, 20, 20, 20, 1530]}
TEXT = {"size": [40, 50], "counts": coco_mask.frPyObjects(RUNS, 40, 50)["counts"].decode()}


def content() -> dict[str, Any]:
    """Two videos of three frames and one; three tracks, one of them never seen, and a crowd region."""
    videos = [
        {"id": 7, "width": 50, "height": 40, "length": 3, "file_names": ["a/0.jpg", "a/1.jpg", "a/2.jpg"]},
        {"id": 2, "width": 60, "height": 30, "file_names": ["b/0.jpg"], "occlusion": True},
    ]
    tracks = [
        {"id": 5, "video_id": 7, "category_id": 9, "iscrowd": 0},
        {"id": 6, "video_id": 7, "category_id": 4},
        {"id": 8, "video_id": 7, "category_id": 4, "iscrowd": 1},
        {"id": 9, "video_id": 2, "category_id": 4},
        {"id": 11, "video_id": 2, "category_id": 9},
    ]
    masks: list[list[Any]] = [[[SQUARE], None, TEXT], [None, RUNS, None], [RUNS, RUNS, RUNS], [None], [[SQUARE]]]
    for track, of in zip(tracks, masks, strict=True):
        track["segmentations"] = of
        track["bboxes"] = [[10.0, 10, 20, 20] if mask else None for mask in of]
        track["areas"] = [333.25 if mask else None for mask in of]  # neither of the box nor of the mask
    del tracks[4]["areas"]
    categories = [{"id": 9, "name": "owl"}, {"id": 4, "name": "ape"}]
    return {"videos": videos, "annotations": tracks, "categories": categories, "info": {}}


def read(folder: Path, data: Any) -> VideoFile:
    return VideoFile(coco_folder(folder, data), folder)


@pytest.mark.parametrize("large", [False, True])
def test_frames_are_images_and_annotations_are_tracks(tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch):
    if large:
        monkeypatch.setattr(index, "SMALLEST", 0)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = read(tmp_path, content())
    if large:  # the second opening reads the index, and so does a process that is sent the file
        monkeypatch.setattr(coco, "read_json", None)
        source = pickle.loads(pickle.dumps(VideoFile(source.path, tmp_path)))
        assert source.index.file
    assert source.categories.names == ("ape", "owl")
    assert [image.id for image in source.images] == [0, 1, 2, 3]
    assert source.places == [(7, 0), (7, 1), (7, 2), (2, 0)]
    assert source.images[2].path == tmp_path / "a/2.jpg"
    assert [(image.height, image.width) for image in source.images] == [(40, 50)] * 3 + [(30, 60)]
    assert [(video.id, len(video), video.occlusion) for video in source.videos] == [(7, 3, False), (2, 1, True)]
    assert source.videos[0].file_names == ("a/0.jpg", "a/1.jpg", "a/2.jpg")
    found = [source.instances(image) for image in source.images]
    assert [of.tracks.tolist() for of in found] == [[0], [1], [0], [4]]
    assert [of.labels.tolist() for of in found] == [[1], [0], [1], [1]]
    assert all((of.boxes == [10, 10, 30, 30]).all() for of in found)
    assert [a["id"] for a in source.annotations(source.images[0])] == [5, 8]
    assert [source.near(position, 1) for position in range(4)] == [range(2), range(3), range(1, 3), range(3, 4)]
    assert len(source.trainable(32, keep_empty=True)) == 3


def test_content_is_the_file_without_what_is_never_seen(tmp_path: Path):
    data, made = content(), read(tmp_path, content()).content
    assert [track["id"] for track in made["annotations"]] == [5, 6, 8, 11]
    for track in made["annotations"]:
        expected = next(of for of in data["annotations"] if of["id"] == track["id"])
        expected["segmentations"] = [TEXT if mask is RUNS else mask for mask in expected["segmentations"]]
        assert track == {"iscrowd": 0, "areas": [None], **expected}
    assert [video["length"] for video in made["videos"]] == [3, 1]
    assert made["videos"][1] == {**data["videos"][1], "length": 1}
    assert read(tmp_path, made).content == made


def test_an_index_of_images_is_not_taken_for_one_of_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(index, "SMALLEST", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = coco_folder(tmp_path, content() | {"images": [{"id": 1, "file_name": "x", "height": 9, "width": 9}]})
    mixed = json.loads(path.read_text())
    for annotation in mixed["annotations"]:
        annotation.update(image_id=1, bbox=[1, 1, 2, 2], segmentation=[SQUARE])
    path.write_text(json.dumps(mixed))
    assert len(CocoFile(path, tmp_path).images) == 1
    assert len(VideoFile(path, tmp_path).images) == 4


def change(*keys: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(data: dict[str, Any]) -> None:
        place: Any = data
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = to

    return apply


FAULTS: list[tuple[Callable[[Any], None], str]] = [
    (lambda c: c.pop("videos"), "is not a YouTube-VIS annotation file: it needs the lists videos, annotations and cat"),
    (lambda c: c.pop("annotations"), "has no annotations: those of YouTube-VIS's own validation and test videos are n"),
    (change("annotations", to=None), "keep some of the training videos for validation, in a file of their own"),
    (change("videos", to=[]), "has no videos"),
    (change("videos", 0, "file_names", to=[]), r"video 7 has no frames \(file_names is empty\)"),
    (change("videos", 0, "file_names", to="a.jpg"), "video 7 has file_names a.jpg; wanted a list with the file's name"),
    (change("videos", 0, "file_names", to=["", "b", "c"]), "wanted a list with the file's name of every frame"),
    (change("videos", 0, "length", to=4), "video 7 has length 4 and 3 file_names"),
    (change("videos", 0, "width", to=0), "video 7 has width 0 and height 40; both must be positive whole numbers"),
    (change("videos", 1, "id", to=7), "videos: id 7 occurs twice"),
    (change("videos", 1, "id", to="b"), "videos: an id is 'b'"),
    (lambda c: c["videos"][1].pop("file_names"), "videos, id 2, has no file_names; YouTube-VIS asks for"),
    (lambda c: c["annotations"][0].pop("bboxes"), "annotations, id 5, has no bboxes; YouTube-VIS asks for"),
    (change("annotations", 0, "video_id", to=3), "annotation 5 names video 3, which is not among the 2 videos"),
    (change("annotations", 0, "category_id", to=3), r"annotation 5 names category 3, .*among the categories \(4, 9\)"),
    (change("annotations", 0, "iscrowd", to=2), "annotation 5 has iscrowd 2; wanted 0 or 1"),
    (
        change("annotations", 0, "segmentations", to=[None]),
        "annotation 5 has 1 segmentations; its video 7 has 3 frames",
    ),
    (change("annotations", 0, "bboxes", to=[None]), "annotation 5 has 1 bboxes; its video 7 has 3 frames"),
    (change("annotations", 0, "areas", to=3), "annotation 5 has areas 3; its video 7 has 3 frames"),
    (change("annotations", 0, "bboxes", 0, to=None), "annotation 5, frame 0 has a mask and no box; where an object is"),
    (change("annotations", 0, "segmentations", 2, to=None), "annotation 5, frame 2 has a box and no mask; where"),
    (change("annotations", 0, "bboxes", 0, to=[1, 2, 3]), r"annotation 5, frame 0 has box \[1, 2, 3\]; wanted four"),
    (change("annotations", 0, "bboxes", 0, 2, to=-1), "annotation 5, frame 0 has box .*, whose width or height is neg"),
    (change("annotations", 0, "areas", 0, to="x"), "annotation 5, frame 0 has area x; wanted a finite number"),
    (change("annotations", 0, "segmentations", 0, to=[]), "annotation 5, frame 0 has a box and no mask"),
    (change("annotations", 0, "segmentations", 0, to=[[1, 2]]), "annotation 5, frame 0 has a polygon of 2 numbers"),
    (change("annotations", 1, "segmentations", 1, "size", to=[50, 40]), r"annotation 6, frame 1 has an RLE of size"),
    (change("annotations", 1, "segmentations", 1, "counts", to=[1, 2]), "annotation 6, frame 1 has an RLE whose runs"),
    (change("annotations", 0, "segmentations", 2, "counts", to="zz"), "annotation 5, frame 2 has .*RLE"),
    (change("categories", to=[]), "has no categories"),
]


@pytest.mark.parametrize(("spoil", "sentence"), FAULTS, ids=[f.replace("\\", "")[:40] for _, f in FAULTS])
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, spoil: Callable[[Any], None], sentence: str):
    data = copy.deepcopy(content())
    spoil(data)
    with pytest.raises(UserError, match=sentence) as raised:
        read(tmp_path, data)
    assert str(raised.value).startswith(str(tmp_path))


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match=r"expected a YouTube-VIS annotation file there.*get it"):
        VideoFile(tmp_path / "train.json", tmp_path, "; get it")


def pairs(root: Path, reach: int = 100, seed: int = 0) -> PairDataset:
    source = VideoFile(root / "annotations/instances_train.json", root / "train/JPEGImages")
    geometry = TrainGeometry(AugmentationConfig(short_sides=[48, 64, 80], long_side=96, crop=0.5, crop_sides=[24, 64]))
    frames = CocoDataset(source.images, geometry, source.instances, 8, seed, photometric=1.0, substitute=True)
    return PairDataset(frames, source, reach)


def test_a_pair_is_two_frames_of_one_video(clips_source: Path):
    for reach in (1, 2, 100):
        made = pairs(clips_source, reach)
        places, far = made.source.places, set()
        for epoch in range(4):
            for position in range(len(made)):
                key, reference = (sample.image_id for sample in made[epoch, position])
                assert key == position
                assert places[key][0] == places[reference][0]
                far.add(places[reference][1] - places[key][1])
        assert far == {step for step in range(-min(reach, 3), min(reach, 3) + 1) if step}


def test_the_same_happens_to_both(clips_root: Path):
    """Where the two frames of a video are one file, a pair is one picture twice, at other places in other epochs."""
    folder = clips_root / "train/JPEGImages"
    for clip in folder.iterdir():
        for frame in clip.iterdir():
            frame.write_bytes((clip / "00000.jpg").read_bytes())
    made, seen = pairs(clips_root), set()
    for epoch in range(12):
        key, reference = made[epoch, 5]
        assert (key.image == reference.image).all()
        seen.add(key.image.numpy().tobytes())
    assert len(seen) > 8


def test_pairs_depend_on_seed_epoch_and_position_only(clips_source: Path):
    def bytes_of(made: PairDataset, epoch: int, position: int) -> list[bytes]:
        return [sample.image.numpy().tobytes() for sample in made[epoch, position]]

    made = pairs(clips_source)
    before = bytes_of(made, 3, 4)
    bytes_of(made, 1, 2)
    assert bytes_of(made, 3, 4) == before == bytes_of(pairs(clips_source), 3, 4)
    assert before != bytes_of(made, 4, 4)
    assert before != bytes_of(pairs(clips_source, seed=1), 3, 4)


def test_a_video_of_one_frame_is_its_own_reference(clips_root: Path):
    path = clips_root / "annotations/instances_train.json"
    data = json.loads(path.read_text())
    for video in data["videos"]:
        video.update(file_names=video["file_names"][:1], length=1)
    for track in data["annotations"]:
        for name in ("segmentations", "bboxes", "areas"):
            track[name] = track[name][:1]
    path.write_text(json.dumps(data))
    key, reference = pairs(clips_root)[0, 2]
    assert key.image_id == reference.image_id == 2
    assert (key.image == reference.image).all()


def test_a_frame_that_cannot_be_read_is_replaced_with_its_partner(clips_root: Path):
    made = pairs(clips_root)
    made.source.images[4].path.write_bytes(b"no image")
    key, reference = made[0, 4]
    assert key.image_id >= 5 <= reference.image_id
    assert "image 4" in key.problems[0]
    assert not reference.problems


def test_tracks_of_a_batch_are_in_the_order_of_its_objects(clips_source: Path):
    made = pairs(clips_source)
    batch = collate_pairs([made[0, 1], made[0, 14]])
    tracks = batch.targets.tracks
    assert tracks is not None
    assert len(tracks) == sum(batch.targets.counts) == len(batch.targets.labels)
    per_image = tracks.split(batch.targets.counts)
    for one, other in ((0, 1), (2, 3)):
        labels = [batch.targets.labels.split(batch.targets.counts)[image].tolist() for image in (one, other)]
        classes = [dict(zip(per_image[i].tolist(), labels[n], strict=True)) for n, i in enumerate((one, other))]
        shared = classes[0].keys() & classes[1].keys()
        assert shared
        assert all(classes[0][track] == classes[1][track] for track in shared)
    assert not set(per_image[0].tolist()) & set(per_image[2].tolist()), "numbers are unique over the file"


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_evaluation_gives_each_rank_whole_videos_in_order(world: int):
    lengths = [3, 1, 4, 2]
    begins = np.cumsum([0, *lengths])
    parts = [[position for _, position in VideoSampler(lengths, rank, world)] for rank in range(world)]
    assert [len(VideoSampler(lengths, rank, world)) for rank in range(world)] == [len(part) for part in parts]
    assert sorted(position for part in parts for position in part) == list(range(10))
    for rank, part in enumerate(parts):
        videos = [int(np.searchsorted(begins, position, side="right")) - 1 for position in part]
        assert set(videos) == set(range(4)[rank::world])
        assert part == sorted(part)


def test_odd_values_at_every_place_are_read_or_refused(tmp_path: Path):
    """Hundreds of broken files. What can be opened can be used."""
    path, refused, opened = tmp_path / "odd.json", 0, 0
    changes = [*(("replace", odd) for odd in ODD), ("delete", None), ("repeat", None)]
    for way, (kind, value) in list(itertools.product(places(content()), changes))[::8]:
        data = json.loads(json.dumps(content()))  # nothing in it is shared
        mutate(data, way, kind, value)
        path.write_text(json.dumps(data))
        done = f"{kind} {way} {value!r:.80}"
        if next(faults(json.loads(path.read_text())), None):
            refused += 1
            with pytest.raises(UserError):
                VideoFile(path, tmp_path)
            continue
        opened += 1
        source = VideoFile(path, tmp_path)
        frames = source.images
        found = [source.instances(image) for image in frames]
        assert len(frames) == len(source.places) == sum(map(len, source.videos)), done
        for image, of in zip(frames, found, strict=True):
            assert len(of.tracks) == len(of)
            of.draw(of.regions(image.height, image.width, 8), 8, min(image.height, 99), min(image.width, 99))
        json.dumps(source.content)
    assert refused > 100 < opened
