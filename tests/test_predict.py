"""`python -m queryinst.predict` on every kind of source; `tests/test_end_to_end.py` has a trained model."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Camera, Run
from PIL import Image
from pycocotools import mask as coco_mask

from queryinst.inference.sources import Video

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "deep/a.png"):
        Image.fromarray(RGB).save(folder / name)
    return folder


def entries(output: str = "predictions") -> list[dict[str, Any]]:
    return json.loads((Path(output) / "predictions.json").read_text())


def test_a_folder_a_pattern_and_an_image(photos: Path, untrained: Path, run: Run):
    model = f"checkpoint={untrained}"
    code, text = run("predict", model, "source=photos", "score=0")
    assert code == 0, text
    assert text.startswith("12 instances in 2 images, ")
    assert sorted(path.name for path in Path("predictions").iterdir()) == ["a.png.png", "b.jpg.png", "predictions.json"]
    assert [entry["file_name"] for entry in entries()] == ["a.png"] * 6 + ["b.jpg"] * 6
    for entry in entries():
        assert entry["category_id"] in (4, 7, 90)
        assert coco_mask.decode(entry["segmentation"]).shape == (40, 50)
    code, text = run("predict", model, "source=photos", "output=none", "score=1")
    assert text.splitlines()[1] == "nothing has a score of 1 or more; a lower score=NUMBER shows what is less sure"
    code, text = run("predict", model, "source=photos/**/*.png", "output=all", "score=0", "batch_size=1")
    assert code == 0, text
    assert {(entry["file_name"], entry["image_id"]) for entry in entries("all")} == {("a.png", 1), ("deep/a.png", 2)}
    assert (Path("all") / "deep" / "a.png.png").exists()
    code, text = run("predict", model, "source=photos/b.jpg", "output=one", "score=0", "overlays=false")
    assert code == 0, text
    assert [path.name for path in Path("one").iterdir()] == ["predictions.json"]


def test_filters_and_cutouts(photos: Path, untrained: Path, run: Run):
    words = [f"checkpoint={untrained}", "source=photos/a.png", "score=0"]
    code, text = run("predict", *words, "classes=[dog,traffic light]", "max_detections=9", "cutouts=true")
    assert code == 0, text
    assert {entry["category_id"] for entry in entries()} == {7, 90}
    assert len(entries()) == 9, "of twelve pairs"
    cut = sorted(path.name for path in Path("predictions/cutouts").iterdir())
    assert len(cut) == sum(coco_mask.area(entry["segmentation"]) > 0 for entry in entries()) > 0
    assert all(name.startswith("a.png-00") and name.endswith(("-dog.png", "-traffic_light.png")) for name in cut)
    assert cv2.imread(f"predictions/cutouts/{cut[0]}", cv2.IMREAD_UNCHANGED).shape[2] == 4
    scores = {}
    for setting, number in (("batch_size=1", 6), ("proposals=2", 2), ("stages=1", 6), ("precision=bf16", 6)):
        code, text = run("predict", *words, setting)
        assert code == 0, text
        assert len(entries()) == number
        scores[setting] = [entry["score"] for entry in entries()]
    assert len(set(map(tuple, scores.values()))) == 4, "none of them is left out"
    assert scores["precision=bf16"] == pytest.approx(scores["batch_size=1"], abs=0.1)
    code, text = run("predict", *words, "one_class=true", "max_detections=18")
    assert (code, len(entries())) == (0, 6), text
    code, text = run("predict", *words, "nms=0.1", "max_detections=18")
    assert code == 0, text
    assert 0 < len(entries()) < 18


def test_odd_images_never_stop_a_folder(photos: Path, untrained: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    picture = Image.fromarray(RGB)
    for name, mode in {"cmyk.jpg": "CMYK", "grey.jpg": "L", "palette.gif": "P", "alpha.png": "RGBA"}.items():
        picture.convert(mode).save(photos / name)
    Image.fromarray(RGB[..., 0].astype(np.uint16) * 257).save(photos / "deep.png")
    picture.resize((1, 1)).save(photos / "one.png")
    picture.resize((1, 700)).save(photos / "tall.png")
    picture.resize((700, 1)).save(photos / "wide.png")
    good = len([path for path in photos.iterdir() if path.is_file()])
    (photos / "cut.jpg").write_bytes((photos / "b.jpg").read_bytes()[:-300])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "folder.jpg").mkdir()
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(photos / "float.tif")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5_000)  # an attack is twice as many, a warning comes before
    picture.resize((80, 80)).save(photos / "large.png")
    Image.new("1", (200, 200)).save(photos / "huge.png")
    code, text = run("predict", f"checkpoint={untrained}", "source=photos", "score=0", "cutouts=true")
    assert code == 0, text
    lines = text.splitlines()
    assert len(lines) == 5 + 2
    assert sum(line.startswith("left out, as no images that can be read (1): ") for line in lines) == 1, text
    for name in ("cut.jpg", "empty.jpg", "folder.jpg", "float.tif", "huge.png"):
        assert sum(line.startswith(f"skipped: photos/{name}") for line in lines) == 1, text
    assert f" in {good + 1} images" in text
    assert len(list(Path("predictions").glob("*.png"))) == good + 1
    assert len({entry["file_name"] for entry in entries()}) == good + 1


def test_a_video(photos: Path, untrained: Path, run: Run):
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), 5, (50, 40))
    for number in range(7):
        writer.write(np.roll(RGB, number, 1))
    writer.release()
    code, text = run("predict", f"checkpoint={untrained}", "source=clip.avi", "output=.", "score=0", "batch_size=3")
    assert code == 0, text
    assert text.startswith("42 instances in 7 frames, ")
    assert [entry["frame"] for entry in entries(".")] == [n for n in range(7) for _ in range(6)]
    assert {entry["file_name"] for entry in entries(".")} == {"clip.avi"}
    film = Video("clip.overlay.mp4")
    assert (film.total, film.rate) == (7, pytest.approx(5))
    pictures = list(film)
    assert len(pictures) == 7
    assert pictures[0].shape == (320, 400, 3), "small frames are drawn larger"
    assert not (pictures[0] == pictures[3]).all()
    code, text = run("predict", f"checkpoint={untrained}", "source=clip.avi", "output=x", "overlays=false", "score=0")
    assert code == 0, text
    assert [path.name for path in Path("x").iterdir()] == ["predictions.json"]
    whole = Path("clip.avi").read_bytes()
    Path("cut.avi").write_bytes(whole[: len(whole) // 2])
    code, text = run("predict", f"checkpoint={untrained}", "source=cut.avi", "score=0")
    assert code == 0, text
    assert "skipped: the end of cut.avi: of its 7 frames 3 can be read" in text


def test_photos_are_not_a_video(photos: Path, untrained: Path, untrained_video: Path, run: Run):
    """A model for video finds in them what it finds, with a track or without one, unless they are said to be frames."""
    words = [f"checkpoint={untrained_video}", "score=0"]
    for source, number in (("photos", 12), ("photos/a.png", 6)):
        code, text = run("predict", *words, f"source={source}")
        assert code == 0, text
        assert text.startswith(f"{number} instances in ")
        assert not any("track_id" in entry for entry in entries())
        assert not Path("predictions/tracks.json").exists()
    code, text = run("predict", *words, "source=photos/a.png", "tracker.by=iou")
    assert (code, len(entries())) == (0, 6), text
    assert not Path("predictions/tracks.json").exists(), "one photo is no video"
    for model, by in ((untrained_video, "embedding"), (untrained, "iou")):
        code, text = run("predict", f"checkpoint={model}", "score=0", "source=photos", f"tracker.by={by}")
        assert code == 0, text
        assert entries()
        assert all("track_id" in entry for entry in entries())
        assert all(
            len(track["segmentations"]) == 2 for track in json.loads(Path("predictions/tracks.json").read_text())
        )


def test_frames_that_cannot_be_read_keep_their_place(photos: Path, untrained: Path, run: Run):
    for path in photos.glob("*.*"):
        path.unlink()
    for number in range(5):
        Image.fromarray(RGB).save(photos / f"{number}.png")
    for number in (1, 4):
        (photos / f"{number}.png").write_bytes(b"nothing")
    words = [f"checkpoint={untrained}", "source=photos", "score=0", "tracker.by=iou", "tracker.birth_score=0"]
    code, text = run("predict", *words)
    assert code == 0, text
    tracks = json.loads(Path("predictions/tracks.json").read_text())
    assert tracks
    for track in tracks:
        assert [mask is not None for mask in track["segmentations"]] == [True, False, True, True, False]
    code, text = run("predict", *words[:2], "score=1", *words[3:])
    assert (code, entries()) == (0, []), text
    assert json.loads(Path("predictions/tracks.json").read_text()) == tracks, "linking needs those of low scores"


def test_a_query_keeps_its_number_whichever_go_on(photos: Path, untrained: Path, run: Run):
    """Which two of the six queries go on differs from picture to picture; with all of them the tracks are the same."""
    rng = np.random.default_rng(1)
    for number in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)).save(photos / f"{number}.png")
    words = [f"checkpoint={untrained}", "source=photos/*.png", "score=0", "tracker.by=query", "tracker.birth_score=0"]
    code, text = run("predict", *words, "proposals=2", "one_class=true", "overlays=false")
    assert code == 0, text
    seen = {entry["track_id"] for entry in entries()}
    assert len(entries()) == 7 * 2
    assert seen <= set(range(6))
    assert not seen <= {0, 1}, "places among those that went on"


def test_what_is_wrong_is_one_sentence(photos: Path, untrained: Path, run: Run):
    (photos / "bad.jpg").write_bytes(b"nothing")
    (photos / "bad.mp4").write_bytes(b"nothing")
    for words, sentence in (
        (["source=97"], "there is no camera 97 here"),
        (["source=nowhere"], "source=nowhere does not exist"),
        (["source=photos/*.bmp"], "has no images"),
        (["source=photos/bad.mp4"], "cannot be read as a video"),
        (["source=photos/bad.jpg"], "none of the 1 images can be read, first: photos/bad.jpg cannot be read"),
        (["source=photos", "classes=[dgo]"], "the model has no 'dgo'; did you mean 'dog'?"),
        (["source=photos", "stages=3"], "stages must be at least 1 and at most 2"),
        (["source=photos", "nms=2"], "nms must be at most 1"),
        (["source=photos", "output=photos/a.png"], "output=photos/a.png cannot be written"),
        (["source=photos", "precision=int8"], "precision takes one of fp32, bf16"),
        (["source=photos", "accelerator=mps"], "there is no device 'mps'"),
    ):
        code, text = run("predict", f"checkpoint={untrained}", *words)
        assert code == 2, text
        assert sentence in text
        assert len(text.splitlines()) == 1


def test_a_camera_ends_with_an_interrupt(photos: Path, untrained: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    from queryinst.inference.record import Drawn, Record

    def add(self: Record, drawn: Drawn) -> None:
        kept(self, drawn)
        if self.pictures == 4:
            raise KeyboardInterrupt

    kept = Record.add
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "pictures", [RGB] * 1000)
    monkeypatch.setattr(Record, "add", add)
    code, text = run("predict", f"checkpoint={untrained}", "source=0", "score=0")
    assert code == 0, text
    assert text.startswith("24 instances in 4 frames")
    assert {entry["frame"] for entry in entries()} == {0, 1, 2, 3}
