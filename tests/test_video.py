"""Video as a user does it: train on clips, stop, resume, evaluate by other trackers, start from a detector."""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT, SMALLER, TINY, Run
from pycocotools import mask as coco_mask

from queryinst.data import shapes_video
from queryinst.evaluation import youtube_vis
from queryinst.inference.film import Film
from queryinst.tracking.tracker import Tracker
from queryinst.video_config import ShapesVideoConfig, TrackerConfig

sys.path += [str(ROOT / "experiments" / "exact_resume"), str(ROOT / "experiments" / "shapes_video")]
import table
from kill import outcome, same

CLIPS = {"train": 4, "val": 2, "frames": 6, "side": 96}
DATA = ["data=shapes_video_tiny", *(f"data.video.shapes.{name}={value}" for name, value in CLIPS.items())]
VIDEO = ["+experiment=shapes_video", *DATA, *SMALLER, "weights=null", "data.batch_size=4", "schedule.epochs=2"]
VIDEO += ["schedule.warmup_iterations=2", "logger=csv", "callbacks.pictures=1", "trainer.checkpoint_every=1"]
VIDEO += ["tracker.score=0.001", "tracker.birth_score=0.001"]  # after so few steps no score is higher


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "shapes_video_tiny"
    shapes_video.make(root, ShapesVideoConfig(**CLIPS))
    return root


@pytest.fixture
def place(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(clips, tmp_path / "data" / "shapes_video_tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Stop(pl.Callback):
    """Tells the process to leave, as a cluster does, after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def result(place: Path, output: str = "outputs") -> dict[str, Any]:
    return json.loads(only(place, f"{output}/*/result.json").read_text())


def check_prediction(place: Path, run: Run, checkpoint: Path) -> None:
    """A film in which colours are tracks, entries that name theirs, and the tracks as the benchmark wants them."""
    frames = sorted((place / "data/shapes_video_tiny/val/JPEGImages").glob("*"))[0]
    film = Film(place / "clip.mp4", 6)
    for number, path in enumerate(sorted(frames.iterdir())):
        film.add(cv2.imread(str(path))[..., ::-1], number / 6)
    film.close()
    for words in (["source=clip.mp4"], [f"source={frames}", "tracker.by=embedding"]):
        code, text = run("predict", f"checkpoint={checkpoint}", *words, "output=seen", "score=0.001")
        assert code == 0, text
        tracks, entries = (
            json.loads((place / "seen" / name).read_text()) for name in ("tracks.json", "predictions.json")
        )
        assert f"{len(tracks)} tracks in tracks.json" in text
        assert tracks
        for track in tracks:
            assert track.keys() == {"video_id", "category_id", "score", "segmentations"}
            assert len(track["segmentations"]) == 6
            seen = [mask for mask in track["segmentations"] if mask]
            assert seen
            assert all(coco_mask.decode(mask).shape == cv2.imread(str(path)).shape[:2] for mask in seen)
        by_track = Counter(entry["track_id"] for entry in entries)
        assert len(by_track) == len(tracks)
        assert sum(by_track.values()) == sum(mask is not None for track in tracks for mask in track["segmentations"])
    assert (place / "seen" / "clip.overlay.mp4").stat().st_size > 1000
    assert len(list((place / "seen").glob("*.png"))) == 6


def test_train_stop_resume_and_evaluate(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch):
    linking: list[TrackerConfig] = []

    class Watched(Tracker):
        def __init__(self, config: TrackerConfig) -> None:
            linking.append(config)
            super().__init__(config)

    monkeypatch.setattr(youtube_vis, "Tracker", Watched)
    code, text = run("train", *VIDEO)
    assert code == 0, text
    record, folder = result(place), only(place, "outputs/*")
    assert record["steps"] == 8, "8 frames of training clips, two pairs a step, twice"
    assert {"association_accuracy", "id_switches", "id_kept", "segm_AP_occlusion"} <= record["metrics"].keys()
    assert record["stages"][-1] == record["metrics"]
    assert "bbox_AP" not in record["metrics"]
    assert "association accuracy" in text
    assert "mask AP" in text
    picture = cv2.imread(str(folder / "pictures" / "epoch_002.png"))
    assert picture.shape[1] == 1200, "six frames of a clip"
    assert len((folder / "metrics.csv").read_text().partition("\n")[0].split("loss_association")) == 3, "two stages"
    expected = outcome(place)

    code, text = run("evaluate", f"checkpoint={folder / 'best.ckpt'}", "output=again.json")
    assert code == 0, text
    assert json.loads((place / "again.json").read_text())["metrics"] == record["metrics"]
    for by in ("iou", "truth", "query"):
        linking.clear()
        code, text = run("evaluate", f"checkpoint={folder / 'best.ckpt'}", f"tracker.by={by}", "output=other.json")
        assert code == 0, text
        assert json.loads((place / "other.json").read_text())["metrics"].keys() == record["metrics"].keys()
        assert {(config.by, config.score) for config in linking} == ({(by, 0.001)} if by != "truth" else set())
    check_prediction(place, run, folder / "best.ckpt")
    code, text = run("train", *VIDEO)
    assert "this run is finished" in text
    assert "mask AP" in text

    shutil.rmtree(place / "outputs")
    stop = ["+callbacks.extra.stop._target_=test_video.Stop", "+callbacks.extra.stop.step=4"]
    code, text = run("train", *VIDEO, *stop)
    assert code == 128 + signal.SIGTERM, text
    assert torch.load(only(place, "outputs/*/last.ckpt"), weights_only=True)["global_step"] == 5
    code, text = run("train", *VIDEO, *stop)  # a callback of the user's own is a part of the run
    assert code == 0, text
    assert "resumed at step 5" in text
    assert not same(outcome(place), expected)
    assert result(place)["metrics"] == record["metrics"]


def test_from_a_detector_with_the_plain_head_and_without_one(place: Path, run: Run, trained: Path):
    detector = trained / "best.ckpt"
    short = [*VIDEO, "schedule.epochs=1", "callbacks.pictures=0", f"weights={detector}"]
    code, text = run("train", *short, "model.association.head=plain", "output=plain")
    assert code == 0, text
    assert "the association heads start fresh" in text
    assert "class layers" not in text, "the same classes"
    code, text = run("train", *short, "model.association=null", "tracker.by=iou", "output=none")
    assert code == 0, text
    assert not any(".association." in name for name in torch.load(only(place, "none/*/best.ckpt"))["state_dict"])
    for wrong, sentence in (
        (["train", *short, "model.association=null"], "tracker.by=embedding needs model.association"),
        (["train", *short, "data.batch_size=5"], "give a multiple of 2"),
        (["train", *TINY, "model=tiny_video"], "model.association learns from pairs of frames"),
        (["train", *short, "tracker.by=truth"], "tracker.by=truth"),
        (["evaluate", f"checkpoint={detector}", "tracker.by=iou"], "tracker is for video"),
        (["evaluate", f"checkpoint={only(place, 'plain/*/best.ckpt')}", "elastic=true"], "elastic=true is for images"),
    ):
        code, text = run(*wrong)
        assert (code, text.count("\n")) == (2, 1), text
        assert sentence in text


def test_the_table_of_the_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for seed, ap in ((0, 0.4), (1, 0.3)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        identity = {"model.association.head": "query", "seed": seed}
        (folder / "result.json").write_text(json.dumps({"identity": identity}))
        for way, share in (("embedding", 1.0), ("iou", 0.5), ("truth", 1.25)):
            metrics = dict.fromkeys(table.COLUMNS.values(), ap * share)
            (folder / f"by_{way}.json").write_text(json.dumps({"metrics": metrics}))
    table.main([tmp_path / "1", tmp_path / "0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| query | 0 | embedding | 0.400 | 0.400 |"), "seeds in order"
    assert lines[6].startswith("| query | 1 | iou | 0.150 |")
    assert lines[8].startswith("| query | mean of 2 | embedding | 0.350 ± 0.071 |")
    assert lines[-1] == "| query | 0.800 ± 0.000 | 0.800, 0.800 | 0.800 ± 0.000 | 0.800, 0.800 |"
