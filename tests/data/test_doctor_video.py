"""The data doctor on video: a twin of `shapes_video` with every fault once, a clean one, and strange files."""

import contextlib
import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from test_doctor import JSON, leaves

from queryinst.config import DataConfig
from queryinst.data import video_validation
from queryinst.data.doctor import Report, as_text, examine
from queryinst.data.doctor_video import examine as examine_content
from queryinst.data.faults import OF_IMAGES, RULES, VIDEO_RULES, Findings, rules_of
from queryinst.data.youtube_vis import VideoFile
from queryinst.errors import UserError
from queryinst.video_config import VideoConfig

HEIGHT, WIDTH, FRAMES = 80, 100, 3
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
LISTS = ("segmentations", "bboxes", "areas")


class Twin:
    """A copy of `shapes_video_tiny` with the categories that both splits have, and ways to break it."""

    def __init__(self, root: Path) -> None:
        self.root, self.added = root, 0
        self.content = {split: json.loads(self.file(split).read_text()) for split in ("train", "val")}
        used = [{a["category_id"] for a in content["annotations"]} for content in self.content.values()]
        for number, content in enumerate(self.content.values()):
            content["categories"] = [c for c in content["categories"] if c["id"] in used[0] & used[1]]
            for annotation in content["annotations"]:
                annotation["id"] += 1000 * number
                if annotation["category_id"] not in used[0] & used[1]:
                    annotation["category_id"] = content["categories"][0]["id"]
        self.category = self.content["train"]["categories"][0]["id"]

    def file(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}.json"

    def examine(self, **how: Any) -> Report:
        for split, content in self.content.items():
            self.file(split).write_text(json.dumps(content))
        names = {f"{split}_images": f"{split}/JPEGImages" for split in ("train", "val")}
        files = {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
        return examine(DataConfig(root=str(self.root), video=VideoConfig(), **names, **files), **how)

    def frame(self, folder: str, number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
        """The name of a new frame, unlike any other."""
        path = self.root / "train/JPEGImages" / folder / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size, (self.added, number, 7)).save(path)
        return f"{folder}/{number}.png"

    def video(self, frames: int = FRAMES, size: tuple[int, int] = (WIDTH, HEIGHT), **changes: Any) -> dict[str, Any]:
        """A new video with one sound object."""
        self.added += 1
        names = [self.frame(f"new{self.added}", number, size) for number in range(frames)]
        video = {"id": 9000 + self.added, "file_names": names, "height": HEIGHT, "width": WIDTH, **changes}
        self.content["train"]["videos"].append(video)
        self.track(video_id=video["id"], frames=frames)
        return video

    def track(self, frames: int = FRAMES, **changes: Any) -> dict[str, Any]:
        """A new annotation, of a new video unless it names one; `...` leaves a field out."""
        if "video_id" not in changes:
            changes["video_id"] = self.video()["id"]
        annotations = self.content["train"]["annotations"]
        shift = 30 * sum(a["video_id"] == changes["video_id"] for a in annotations)
        track = {
            "id": 1 + max(a["id"] for a in annotations),
            "category_id": self.category,
            "segmentations": [[[v + shift if n % 2 == 0 else v for n, v in enumerate(SQUARE)]] for _ in range(frames)],
            "bboxes": [[10 + shift, 10, 20, 20] for _ in range(frames)],
            "areas": [400] * frames,
            **changes,
        }
        annotations.append({key: value for key, value in track.items() if value is not ...})
        return annotations[-1]

    def seen(self, **changes: Any) -> None:
        """A new object, of which one frame is changed: `mask`, `box` or `area`."""
        track = self.track()
        for name, value in changes.items():
            track[{"mask": "segmentations", "box": "bboxes", "area": "areas"}[name]][1] = value


def rle(counts: list[int], height: int = HEIGHT, width: int = WIDTH) -> dict[str, Any]:
    return {"size": [height, width], "counts": counts}


def polygon(*values: float) -> list[list[float]]:
    return [list(values)]


def mixed(twin: Twin) -> None:
    video = twin.video()
    video["file_names"][2] = twin.frame("elsewhere", 2)


def shared(twin: Twin) -> None:
    theirs = twin.content["val"]["videos"][0]
    ours = twin.video(
        frames=2, height=theirs["height"], width=theirs["width"], size=(theirs["width"], theirs["height"])
    )
    source = twin.root / "val/JPEGImages" / theirs["file_names"][0]
    (twin.root / "train/JPEGImages" / ours["file_names"][0]).write_bytes(source.read_bytes())


def same(twin: Twin) -> None:
    track = twin.track()
    for name in ("segmentations", "bboxes"):
        track[name][1:] = copy.deepcopy(twin.content["train"]["annotations"][-2][name][1:])


def missing(twin: Twin) -> None:
    (twin.root / "train/JPEGImages" / twin.video()["file_names"][1]).unlink()


def damaged(twin: Twin) -> None:
    (twin.root / "train/JPEGImages" / twin.video()["file_names"][1]).write_text("no picture")


def resized(twin: Twin) -> None:
    name = twin.video()["file_names"][1]
    folder, _, file = name.partition("/")
    twin.frame(folder, int(file[0]), (50, 50))


def again(twin: Twin) -> None:
    video = twin.video()
    video["file_names"][2] = video["file_names"][1]


def twice(twin: Twin) -> None:
    twin.track()["id"] = twin.content["train"]["annotations"][-2]["id"]


def without(twin: Twin) -> None:
    twin.video()
    twin.content["train"]["annotations"].pop()


def unused(twin: Twin) -> None:
    for content in twin.content.values():
        content["categories"].append({"id": 95, "name": "heart"})
    twin.track(category_id=95)


FAULTS: dict[str, Callable[[Twin], Any]] = {
    "missing-field": lambda t: t.track(bboxes=...),
    "duplicate-videos-id": lambda t: t.video(id=t.content["train"]["videos"][0]["id"]) and None,
    "file-names": lambda t: t.video(file_names="a.jpg"),
    "video-empty": lambda t: t.video(file_names=[]),
    "video-length": lambda t: t.video(length=FRAMES + 1),
    "size-field": lambda t: t.video(height="80"),
    "dangling-video": lambda t: t.track(video_id=777),
    "unknown-category": lambda t: t.track(category_id=777),
    "iscrowd-value": lambda t: t.track(iscrowd=2),
    "segmentations-length": lambda t: t.track(segmentations=[None]),
    "bboxes-length": lambda t: t.track(bboxes=[[10, 10, 20, 20]] * 4),
    "areas-length": lambda t: t.track(areas=[400]),
    "half-visible": lambda t: t.seen(mask=None),
    "not-understood": lambda t: t.track(category_id=[3]),
    "box-values": lambda t: t.seen(box=[1, 2, 3]),
    "box-negative": lambda t: t.seen(box=[30, 30, -20, 20]),
    "area-value": lambda t: t.seen(area="large"),
    "polygon-brackets": lambda t: t.seen(mask=polygon([1, 2], [3, 4], [5, 6])),
    "mask-kind": lambda t: t.seen(mask="mask.png"),
    "polygon-points": lambda t: t.seen(mask=polygon(1, 2, 3, 4)),
    "polygon-values": lambda t: t.seen(mask=polygon(1, 2, 3, 4, 5, 1e9)),
    "rle-size": lambda t: t.seen(mask=rle([8000], WIDTH, HEIGHT)),
    "rle-counts": lambda t: t.seen(mask=rle([5, 6])),
    "duplicate-annotation-id": twice,
    "annotation-id-0": lambda t: t.track(id=0),
    "box-xyxy": lambda t: t.seen(mask=polygon(40, 40, 55, 40, 55, 60, 40, 60), box=[40, 40, 55, 60], area=300),
    "box-outside": lambda t: t.seen(box=[WIDTH + 5, 10, 20, 20], mask=polygon(97, 10, 99, 10, 99, 30)),
    "box-overhangs": lambda t: t.seen(box=[10, 10, WIDTH, 20], mask=polygon(10, 10, 99, 10, 99, 30, 10, 30)),
    "box-degenerate": lambda t: t.seen(box=[50, 50, 0.5, 20], mask=polygon(50, 50, 50.5, 50, 50.5, 70), area=5),
    "mask-far-from-box": lambda t: t.seen(box=[60, 50, 20, 20]),
    "mask-flat": lambda t: t.seen(mask=rle([8000])),
    "polygon-outside": lambda t: t.seen(box=[70, 10, 30, 20], mask=polygon(70, 10, 110, 10, 110, 30, 70, 30)),
    "area-not-positive": lambda t: t.seen(area=0),
    "area-above-box": lambda t: t.seen(area=5000),
    "category-unused": unused,
    "image-small": lambda t: t.video(height=31, size=(WIDTH, 31)),
    "image-missing": missing,
    "image-unreadable": damaged,
    "image-size": resized,
    "duplicate-frame": again,
    "shared-video": shared,
    "never-visible": lambda t: t.track(**{name: [None] * FRAMES for name in LISTS}),
    "duplicate-track": same,
    "frames-unordered": lambda t: t.video()["file_names"].reverse(),
    "frames-mixed": mixed,
    "video-single-frame": lambda t: t.video(frames=1),
    "video-without-objects": without,
}
del FAULTS["duplicate-videos-id"]  # what follows it is of another video: by itself, below
WHOLE: dict[str, Callable[[Twin], Any]] = {
    "not-youtube-vis": lambda t: t.content["train"].pop("videos"),
    "no-ground-truth": lambda t: t.content["val"].pop("annotations"),
    "no-videos": lambda t: t.content["train"]["videos"].clear(),
    "no-categories": lambda t: t.content["train"]["categories"].clear(),
    "no-objects": lambda t: t.content["train"]["annotations"].clear(),
    "categories-differ": lambda t: t.content["train"]["categories"].append({"id": 99, "name": "heart"}),
    "duplicate-videos-id": lambda t: t.video(id=t.content["train"]["videos"][0]["id"]),
}


def counts(report: Report) -> dict[str, int]:
    total: Counter[str] = Counter()
    for finding in report.findings:
        total[finding.code] += finding.times
    return dict(total)


@pytest.fixture
def twin(clips_root: Path) -> Twin:
    return Twin(clips_root)


def test_shapes_video_has_no_fault(twin: Twin):
    report = twin.examine()
    assert counts(report) == {}
    survey = report.surveys["train"]
    assert len(survey.videos or []) == 6
    assert len(survey.images) == len(survey.sizes) == len(survey.objects) == 24
    assert survey.used.total() == survey.annotations
    first = as_text(report, "clips").splitlines()
    assert first[0].startswith("clips train: 6 videos, 24 frames, ")
    assert first[-1].endswith(f"{len(rules_of(video=True))} kinds of fault looked for")


def test_every_kind_that_only_video_has_is_tested():
    assert VIDEO_RULES.keys() <= FAULTS.keys() | WHOLE.keys() <= rules_of(video=True).keys()
    assert not VIDEO_RULES.keys() & RULES.keys()
    assert f"{len(VIDEO_RULES)} kinds of fault that only video" in (ROOT / "README.md").read_text()
    assert set(OF_IMAGES) < RULES.keys()
    assert len(VIDEO_RULES) >= 12
    for rule in VIDEO_RULES.values():
        assert len(rule.advice) > 10


def test_a_broken_twin_has_every_fault_once(twin: Twin):
    for spoil in FAULTS.values():
        spoil(twin)
    assert counts(twin.examine()) == dict.fromkeys(FAULTS, 1)


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_alone_is_not_taken_for_another(twin: Twin, code: str):
    FAULTS[code](twin)
    report = twin.examine()
    assert counts(report) == {code: 1}
    assert report.clean == (rules_of(video=True)[code].severity == "warning")


@pytest.mark.parametrize("code", WHOLE)
def test_faults_of_a_whole_file(twin: Twin, code: str):
    WHOLE[code](twin)
    report = twin.examine(images="none")
    assert counts(report)[code] == 1
    assert not report.clean


@pytest.mark.parametrize("code", [*FAULTS, *WHOLE])
def test_training_stops_where_the_doctor_finds_what_it_cannot_use(twin: Twin, code: str):
    (FAULTS | WHOLE)[code](twin)
    for split, content in twin.content.items():
        codes = [fault.code for fault in video_validation.faults(content)]
        twin.file(split).write_text(json.dumps(content))
        with pytest.raises(UserError) if codes else contextlib.nullcontext():
            VideoFile(twin.file(split), twin.root / split / "JPEGImages")


TEXT = coco_mask.frPyObjects({"size": [40, 50], "counts": [500, 1500]}, 40, 50)["counts"].decode()
SMALL = {
    "videos": [{"id": 5, "file_names": ["a/1.png", "a/2.png"], "length": 2, "height": 40, "width": 50}],
    "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 7, "video_id": 5, "category_id": 9, "bboxes": [[9, 9, 21, 21], None], "areas": [9, None]}
        | {"segmentations": [[SQUARE], None]},
        {"id": 8, "video_id": 5, "category_id": 2, "bboxes": [[9, 9, 21, 21]] * 2, "iscrowd": 1}
        | {"segmentations": [{"size": [40, 50], "counts": [500, 1500]}, {"size": [40, 50], "counts": TEXT}]},
    ],
}


@given(data=st.data(), times=st.integers(1, 3))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_json_is_too_strange(data: st.DataObject, times: int, tmp_path: Path):
    """Each file is refused in one line by training, and is not clean, or is read whole."""
    content: Any = copy.deepcopy(SMALL)
    for _ in range(times):
        *way, last = data.draw(st.sampled_from(leaves(content)[1:] or [("videos",)]))
        node = content
        for step in way:
            node = node[step]
        node[last] = data.draw(JSON)
    findings = Findings()
    survey = examine_content(content, Path("nowhere"), "train", findings, 32, False)
    lines = as_text(Report(findings, {"train": survey}), "strange").split("\n")
    assert all(line.isprintable() for line in lines)
    path = tmp_path / "strange.json"
    path.write_text(json.dumps(content))
    faults = [fault.code for fault in video_validation.faults(json.loads(path.read_text()))]
    assert set(faults) <= {finding.code for finding in findings}
    if faults:
        with pytest.raises(UserError) as raised:
            VideoFile(path, tmp_path)
        assert str(raised.value).startswith(str(path))
        return
    source = VideoFile(path, tmp_path)
    lengths = {video.id: len(video) for video in source.videos}
    assert all(len(track["bboxes"]) == lengths[track["video_id"]] for track in source.content["annotations"])
    for image in source.images:
        found = source.instances(image)
        assert len(found) == len(found.tracks)


@pytest.mark.parametrize("content", [None, 5, "text", [], {}, [[]], {"videos": {}, "annotations": 3, "categories": ""}])
def test_no_root_is_too_strange(content: Any):
    findings = Findings()
    examine_content(content, Path("nowhere"), "val", findings, 32, False)
    assert [finding.code for finding in findings] == ["not-youtube-vis"]


def test_the_command(twin: Twin, tmp_path: Path, run: Run):
    twin.examine(images="none")
    settings = ["data=youtube_vis", f"data.root={twin.root}"]
    settings += [f"data.{split}_images={split}/JPEGImages" for split in ("train", "val")]
    settings += [f"data.{split}_annotations=annotations/instances_{split}.json" for split in ("train", "val")]
    code, text = run("doctor", *settings, f"json={tmp_path}/report.json", f"picture={tmp_path}/seen.png")
    assert code == 0, text
    assert text.splitlines()[0].startswith("youtube_vis train: 6 videos, 24 frames, ")
    assert json.loads((tmp_path / "report.json").read_text())["splits"]["val"]["videos"] == 2
    twin.seen(mask=None)
    twin.examine(images="none")
    code, text = run("doctor", *settings, "json=-", "images=none")
    assert code == 1
    assert [(fault["code"], fault["count"]) for fault in json.loads(text)["faults"]] == [("half-visible", 1)]
    code, text = run("doctor", "data=youtube_vis", f"data.root={twin.root}")
    assert code == 2
    assert "train.json does not exist; expected a YouTube-VIS annotation file there" in text
    assert "YouTube-VIS itself is at" in text
