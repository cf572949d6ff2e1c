"""What `source=` means, and the frames of a video."""

import math
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from conftest import Camera
from PIL import Image

from queryinst.errors import UserError
from queryinst.inference import sources
from queryinst.inference.film import Film
from queryinst.inference.pictures import Picture, to_picture
from queryinst.inference.sources import Files, Video, open_source


def frames(number: int, height: int = 48, width: int = 64) -> list[Picture]:
    """Frames of one colour each, red grows and blue falls."""
    colours = [(20 * n + 20, 100, 220 - 20 * n) for n in range(number)]
    return [np.full((height, width, 3), colour, np.uint8) for colour in colours]


def video(path: Path, number: int = 8) -> Path:
    codec = {".webm": "VP80", ".avi": "MJPG"}.get(path.suffix, "mp4v")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    for frame in frames(number):
        writer.write(frame[..., ::-1])
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "deep/c.png", "deep/er/a.JPG"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def names(source: str | Path) -> list[str]:
    files = open_source(str(source))
    assert isinstance(files, Files)
    assert files.total == len(list(files)) == len(files.names)
    return files.names


def test_images(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert names(folder / "b.png") == ["b.png"]
    assert names(folder) == ["a.JPG", "b.png"]
    assert names(folder / "*.png") == ["b.png"]
    assert names(folder / "**" / "*") == ["a.JPG", "b.png", "deep/c.png", "deep/er/a.JPG"]
    assert names(folder / "deep" / "*" / "?.JPG") == ["a.JPG"]
    monkeypatch.chdir(folder)
    assert names("**/[ac].*") == ["a.JPG", "deep/c.png", "deep/er/a.JPG"]


def test_a_folder_is_read_by_its_suffixes_in_order_of_names(tmp_path: Path):
    suffixes = ["bmp", "gif", "jfif", "jp2", "jpeg", "jpg", "png", "ppm", "tif", "tiff", "webp", "avif"]
    for number, name in enumerate([*suffixes, "mp4", "txt", "HEIC"], 1):
        (tmp_path / f"{number}.{name}").touch()
    (tmp_path / ".hidden.jpg").touch()
    (tmp_path / "17").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "16", "PNG")
    expected = [*(f"{number}.{suffix}" for number, suffix in enumerate(suffixes, 1)), "16"]
    for source in (tmp_path, tmp_path / "*"):
        assert names(source) == expected, "in the order of the numbers"
        folder = ["17/"] if source == tmp_path else []
        assert open_source(str(source)).left_out == ["13.mp4", "14.txt", "15.HEIC", *folder]


@pytest.mark.parametrize("kind", ["avif", "jfif", "jp2", "ppm"])
def test_further_kinds_are_read(tmp_path: Path, kind: str):
    Image.new("RGB", (16, 8), "red").save(tmp_path / f"a.{kind}")
    assert names(tmp_path) == [f"a.{kind}"]
    assert np.abs(to_picture(tmp_path / f"a.{kind}").astype(int) - [255, 0, 0]).max() < 5


def test_a_folder_without_images_names_what_it_has(tmp_path: Path):
    (tmp_path / "a.heic").touch()
    with pytest.raises(UserError, match=r"has no images; looked for .*; it has a\.heic$"):
        open_source(str(tmp_path))


def test_a_file_is_what_its_content_says(tmp_path: Path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.mp4", "PNG")
    assert names(tmp_path / "photo.mp4") == ["photo.mp4"]
    for name in ("film", "film.3gp", "film.jpg.MTS"):
        path = video(tmp_path / "made.mp4").rename(tmp_path / name)
        source = open_source(str(path))
        assert isinstance(source, Video)
        assert len(list(source)) == 8
    (tmp_path / "notes.txt").write_text("no film")
    assert isinstance(open_source(str(tmp_path / "notes.txt")), Files), "which reading refuses"


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_an_animation_keeps_its_times(tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    pictures = [Image.fromarray(frame) for frame in frames(4)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 500, 200, 200], lossless=True)
    source = open_source(str(path))
    assert isinstance(source, Video)
    assert (source.total, source.rate) == (4, pytest.approx(4))
    seen = list(source)
    assert np.abs(np.array(seen, int) - np.array(frames(4), int)).max() <= 3
    assert [source.describe(number)["seconds"] for number in range(4)] == [0, 0.1, 0.6, 0.8]


def test_a_film_of_one_rate_shows_a_picture_as_long_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    film = Film(tmp_path / "a.mp4", 10)
    for picture, seconds in zip(frames(4), [0, 0.1, 0.5, 0.6], strict=True):
        film.add(picture, seconds)
    film.close()
    seen = [frame[0, 0, 0] for frame in open_source(str(tmp_path / "a.mp4"))]  # type: ignore[union-attr]
    assert np.abs(np.array(seen, int) - [20, 40, 40, 40, 40, 60, 80]).max() < 12


def test_a_film_of_a_variable_rate_keeps_its_times(tmp_path: Path):
    film = Film(tmp_path / "a.mp4", 10)
    times = [0, 0.1, 0.5, 0.6, 2.0]
    for picture, seconds in zip(frames(5), times, strict=True):
        film.add(picture, seconds)
    film.close()
    source = open_source(str(tmp_path / "a.mp4"))
    assert len(list(source)) == 5
    assert [source.seconds(number) for number in range(5)] == pytest.approx(times, abs=0.002)


def test_image_ids_are_those_of_the_names_where_all_have_one(folder: Path):
    described = [open_source(str(folder)).describe(number) for number in range(2)]
    assert described == [{"file_name": "a.JPG", "image_id": 1}, {"file_name": "b.png", "image_id": 2}]
    (folder / "deep" / "er" / "a.JPG").rename(folder / "deep" / "0042.jpg")
    (folder / "deep" / "c.png").rename(folder / "deep" / "7.png")
    files = open_source(str(folder / "deep"))
    assert [files.describe(number)["image_id"] for number in range(2)] == [7, 42]
    (folder / "deep" / "7.png").rename(folder / "deep" / "42.png")
    assert [open_source(str(folder / "deep")).describe(number)["image_id"] for number in range(2)] == [1, 2]


@pytest.mark.parametrize(
    ("name", "kind"),
    [(f"a.{kind}", kind) for kind in ("mp4", "avi", "mov", "mkv", "webm")]
    + [(f"a.{suffix}", "mp4") for suffix in ("MP4", "m4v", "mpg", "mpeg")],  # a video is what its content says
)
def test_videos(tmp_path: Path, name: str, kind: str):
    path = video(tmp_path / f"made.{kind}").rename(tmp_path / name)
    source = open_source(str(path))
    assert isinstance(source, Video)
    assert not source.live
    assert source.rate == pytest.approx(10)
    assert source.total == 8
    seen = list(source)
    assert len(seen) == 8
    for frame, expected in zip(seen, frames(8), strict=True):
        assert frame.shape == (48, 64, 3)
        assert abs(frame.astype(int) - expected).max() < 12, "in this order, and RGB"
    assert source.seconds(5) == pytest.approx(0.5)
    assert source.describe(3) == {"file_name": name, "frame": 3, "image_id": 3, "seconds": 0.3}
    assert source.name(3) == f"{name}-000003"


def test_an_animated_gif_is_a_video_and_another_is_an_image(tmp_path: Path):
    first, *others = [Image.fromarray(frame) for frame in frames(4)]
    first.save(tmp_path / "moving.gif", save_all=True, append_images=others, duration=100)
    first.save(tmp_path / "still.gif")
    (tmp_path / "broken.gif").write_bytes(b"GIF89a")
    moving = open_source(str(tmp_path / "moving.gif"))
    assert isinstance(moving, Video)
    assert len(list(moving)) == 4
    assert names(tmp_path / "still.gif") == ["still.gif"]
    assert names(tmp_path / "broken.gif") == ["broken.gif"]


class Header(Camera):
    """A video whose file says `rate` frames a second, `count` of them."""

    rate, count = 25.0, 3.0
    released = 0

    def __init__(self, path: str) -> None:
        super().__init__(-1)

    def get(self, key: int) -> float:
        return {cv2.CAP_PROP_FPS: self.rate, cv2.CAP_PROP_FRAME_COUNT: self.count}.get(key, 0.0)

    def release(self) -> None:
        type(self).released += 1


@pytest.mark.parametrize(
    ("said", "rate"),
    [(0.01, 0.01), (23.976, 23.976), (1000, 1000)]
    + [(nonsense, 30) for nonsense in (0.0099, 3e-5, 0, -1, 1000.1, 90_000, math.nan, math.inf)],
)
def test_a_rate_that_nobody_films_at_is_the_usual_one(monkeypatch: pytest.MonkeyPatch, said: float, rate: float):
    monkeypatch.setattr(cv2, "VideoCapture", Header)
    monkeypatch.setattr(Header, "rate", said)
    monkeypatch.setattr(Header, "pictures", frames(3))
    source = Video("a.webm")
    assert source.rate == rate
    assert len(list(source)) == 3
    assert [source.seconds(number) for number in range(3)] == pytest.approx([0, 1 / rate, 2 / rate], rel=1e-12)


@pytest.mark.parametrize(("said", "total"), [(3.0, 3), (1.0, 1), (0.0, None), (-9e18, None), (math.nan, None)])
def test_a_file_that_does_not_say_how_many_frames_it_has(monkeypatch: pytest.MonkeyPatch, said: float, total: int):
    monkeypatch.setattr(cv2, "VideoCapture", Header)
    monkeypatch.setattr(Header, "count", said)
    assert Video("a.webm").total == total


def test_whoever_stops_early_lets_go_of_the_file(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cv2, "VideoCapture", Header)
    monkeypatch.setattr(Header, "pictures", frames(3))
    monkeypatch.setattr(Header, "released", 0)
    looked = iter(Video("a.webm"))
    next(looked)
    assert Header.released == 0
    looked.close()  # type: ignore[attr-defined]
    assert Header.released == 1


def test_a_camera_shows_its_frames_when_they_were_taken(monkeypatch: pytest.MonkeyPatch):
    clock = iter([100.0, 100.5, 100.75, 104.0])
    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.setattr(Camera, "pictures", frames(3))
    monkeypatch.setattr(Camera, "get", lambda self, key: 50.0)  # what it says is not what it does
    camera = open_source("1")
    assert isinstance(camera, Video)
    assert (camera.live, camera.total, camera.title, camera.rate) == (True, None, "camera-1", 50)
    assert [frame[0, 0].tolist() for frame in camera] == [frame[0, 0].tolist() for frame in frames(3)]
    assert Camera.index == 1
    assert [camera.seconds(number) for number in range(3)] == [0.5, 0.75, 4.0]


def test_what_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    (tmp_path / "bad.mp4").write_bytes(b"nothing" * 100)
    for source, sentence in (
        ("nowhere", "does not exist; give an image"),
        (str(tmp_path / "*.jpg"), "has no images; looked for .avif, .bmp"),
        (str(tmp_path), "has no images"),
        (str(tmp_path / "bad.mp4"), "cannot be read as a video"),
        ("97", "there is no camera 97 here"),
    ):
        with pytest.raises(UserError, match=sentence) as error:
            open_source(source)
        assert source in str(error.value)
    assert capfd.readouterr() == ("", ""), "OpenCV and FFmpeg keep silent"


def test_a_file_may_be_called_like_a_camera(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    (folder / "b.png").rename(folder / "0")
    assert names("0") == ["0"]


@pytest.mark.parametrize("av", [True, False])
def test_a_film_has_the_pictures_that_were_added(tmp_path: Path, av: bool, monkeypatch: pytest.MonkeyPatch):
    if not av:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    film = Film(tmp_path / "film.mp4", 10)
    pictures = frames(6, 47, 63)  # H.264 knows even sizes only
    for number, picture in enumerate(pictures):
        film.add(picture, number / 10)
    film.close()
    seen = Video(str(tmp_path / "film.mp4"))
    assert seen.rate == pytest.approx(10, abs=0.1)
    assert seen.total == 6
    for frame, expected in zip(seen, pictures, strict=True):
        assert frame.shape == (48, 64, 3)
        assert abs(frame.astype(int) - expected[0, 0]).max() < 12
    content = (tmp_path / "film.mp4").read_bytes()
    assert (b"avc1" in content) == av, "H.264, which browsers play"
    if av:
        assert content.index(b"moov") < content.index(b"mdat"), "it plays before it is loaded"


def test_a_film_of_odd_sides_grows_at_the_right_and_at_the_bottom(tmp_path: Path):
    picture = np.full((47, 63, 3), 30, np.uint8)
    picture[21:, 35:] = 220
    film = Film(tmp_path / "film.mp4", 10)
    film.add(picture, 0.0)
    film.close()
    (seen,) = Video(str(tmp_path / "film.mp4"))
    assert np.abs(seen[:47, :63].astype(int) - picture).max() < 60


def test_a_film_of_a_camera_lasts_as_long_as_it_looked(tmp_path: Path):
    import av

    film = Film(tmp_path / "film.mp4", 30)
    for picture, seconds in zip(frames(4), (0.0, 0.5, 0.6, 3.0), strict=True):
        film.add(picture, seconds)
    film.close()
    with av.open(str(tmp_path / "film.mp4")) as file:
        assert [frame.time for frame in file.decode(video=0)] == pytest.approx([0.0, 0.5, 0.6, 3.0], abs=1e-3)


def test_a_film_at_the_rate_of_television_has_its_rate_exactly(tmp_path: Path):
    import av

    film = Film(tmp_path / "film.mp4", 30_000 / 1001)
    for number, picture in enumerate(frames(4)):
        film.add(picture, number * 1001 / 30_000)
    film.close()
    with av.open(str(tmp_path / "film.mp4")) as file:
        assert file.streams.video[0].average_rate == Fraction(30_000, 1001)


def test_a_film_that_cannot_be_written(tmp_path: Path):
    film = Film(tmp_path / "no" / "film.mp4", 10)
    with pytest.raises(UserError) as error:
        film.add(frames(1)[0], 0.0)
    assert str(error.value) == f"{film.path} cannot be written (No such file or directory); give another folder"
    film.close()
    Film(tmp_path / "empty.mp4", 10).close()
    assert list(tmp_path.iterdir()) == []
