"""What a run leaves for W&B and TensorBoard, read back from an offline run that was stopped by SIGTERM and resumed."""

import csv
import json
import math
import os
import runpy
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

STOP_AT = 30  # of 42 steps; the second epoch began at 21
COMMAND = [
    *(
        "data=shapes_tiny",
        "schedule.epochs=2",
        "schedule.warmup_iterations=2",
        "data.batch_size=1",
        "trainer.threads=1",
    ),
    *("study_name=a_study", "logger=[csv,tensorboard,wandb]", "logger.wandb.tags=[first]", "logger.wandb.mode=offline"),
    *("callbacks.pictures=2", "callbacks.picture_score=0.1", "trainer.max_train_batches=21"),
    *("model.num_stages=2", "model.num_proposals=10"),
    *("+callbacks.extra.stop._target_=test_dashboards.StopOnce", f"+callbacks.extra.stop.step={STOP_AT}"),
]


class StopOnce(pl.Callback):
    """As a cluster ends a run; when it is resumed, that step is past."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def train(*arguments: str) -> int:
    """`python -m queryinst.train`, in this process; its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["queryinst.train", *arguments])
        sys.modules.pop("queryinst.train", None)
        try:
            runpy.run_module("queryinst.train", run_name="__main__")
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


@dataclass
class Offline:
    """One folder of an offline run, as the records of its file by their type."""

    folder: Path
    records: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> "Offline":
        """With W&B's own reader."""
        (path,) = folder.glob("run-*.wandb")
        command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return cls(folder, [json.loads(line) for line in text.splitlines()])

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def history(self) -> list[dict[str, Any]]:
        return [entry["item"] for entry in self.of("history")]

    @property
    def config(self) -> dict[str, Any]:
        return {k: v for entry in self.of("config") for k, v in entry.get("update", {}).items()}

    @property
    def summary(self) -> dict[str, Any]:
        return {k: v for entry in self.of("summary") for k, v in entry.get("update", {}).items()}

    def table(self, key: str) -> dict[str, Any]:
        (path,) = (row[f"{key}.path"] for row in self.history if f"{key}.path" in row)
        content: dict[str, Any] = json.loads((self.folder / "files" / path).read_text())
        return content


@dataclass
class Finished:
    """The run's folder, its result and its two offline folders."""

    folder: Path
    result: dict[str, Any]
    first: Offline
    last: Offline


@pytest.fixture(scope="module")
def finished(shapes_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    work = tmp_path_factory.mktemp("dashboards")
    shutil.copytree(shapes_source, work / "data" / "shapes_tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        assert train(*COMMAND) == 128 + signal.SIGTERM
        assert train(*COMMAND) == 0
    (folder,) = (work / "outputs").iterdir()
    offline = [Offline.read(path) for path in sorted(folder.glob("wandb/offline-run-*"))]
    return Finished(folder, json.loads((folder / "result.json").read_text()), *offline)


def scalars(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The rows of metrics, without W&B's own entries and without pictures and tables."""
    plain = [
        {k: v for k, v in row.items() if not k.startswith("_") and isinstance(v, int | float) and "." not in k}
        for row in rows
    ]
    return [row for row in plain if row.keys() != {"trainer/global_step"}]


def test_a_resumed_run_is_one_run_and_continues_its_curves(finished: Finished):
    """Both folders together have the rows of metrics.csv, which is that of a run that was never stopped."""
    ids = {offline.of("run")[0]["run_id"] for offline in (finished.first, finished.last)}
    assert ids == {finished.result["id"]}
    assert all(offline.of("run")[0]["resume"] for offline in (finished.first, finished.last))
    assert finished.first.of("preempting")
    assert not finished.last.of("preempting")
    assert [offline.of("exit")[-1].get("exit_code", 0) for offline in (finished.first, finished.last)] == [143, 0]
    with (finished.folder / "metrics.csv").open(newline="") as file:
        written = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    rows = scalars(finished.first.history + finished.last.history)
    assert [{"step": row.pop("trainer/global_step"), **row} for row in rows] == written
    assert max(row["trainer/global_step"] for row in scalars(finished.first.history)) < STOP_AT
    assert min(row["trainer/global_step"] for row in scalars(finished.last.history)) >= STOP_AT


def test_hyperparameters_group_job_type_and_tags(finished: Finished):
    for offline in (finished.first, finished.last):
        run, config = offline.of("run")[0], offline.config
        assert (run["run_group"], run["job_type"], run["project"]) == ("a_study", "train", "queryinst")
        assert run["tags"] == ["first", "tiny", "shapes_tiny"]
        assert (config["model.num_stages"], config["backbone.name"], config["data.batch_size"]) == (2, "tiny", 1)
        assert config["optimizer.lr"] == finished.result["config"]["optimizer"]["lr"]
        assert (config["parameters"], config["flops"]) == (finished.result["parameters"], finished.result["flops"])
        assert config["classes"] == 8
        assert config["callbacks.extra.stop.step"] == STOP_AT
        assert not any(isinstance(value, dict) for key, value in config.items() if not key.startswith("_wandb"))


def test_curves(finished: Finished):
    rows = scalars(finished.first.history + finished.last.history)
    steps = {name: [row["trainer/global_step"] for row in rows if name in row] for row in rows for name in row}
    assert steps["train/loss"] == steps["train/lr"] == steps["train/grad_norm"] == [0, 20, 21, 41]
    for stage in (1, 2):
        for term in ("class", "l1", "giou", "mask"):
            assert steps[f"train/stage_{stage}/loss_{term}"] == [0, 20, 21, 41]
    assert steps["train/images_per_second"] == steps["train/data_wait"] == [19, 40]
    once_an_epoch = ("val/segm_AP", "val/bbox_AP75", "val/segm_AP/star", "val/queries_used")
    for name in (*once_an_epoch, "val/query_change/stage_2"):
        assert steps[name] == [20, 41], name
    assert steps["val/query_change/evaluation"] == [41], "the first evaluation is in the other process' memory"
    assert all(0 <= row[k] <= 1 for row in rows for k in row if k.startswith(("val/query_change", "val/queries_used")))


def test_tensorboard_has_the_same_curves(finished: Finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.folder / "tensorboard")).Reload()
    curves = {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
    for row in scalars(finished.first.history + finished.last.history):
        step = row.pop("trainer/global_step")
        for name, value in row.items():
            assert curves[name][int(step)] == pytest.approx(value, rel=1e-6), name
    for kind in ("segm", "bbox"):
        by_stage = [stage[f"{kind}_AP"] for stage in finished.result["stages"]]
        assert list(curves[f"best/by_stage/{kind}_AP"].values()) == pytest.approx(by_stage)
    pictures = {tag: [e.step for e in events.Images(tag)] for tag in events.Tags()["images"]}
    assert pictures == {"val/pictures": [20, 41], "val/queries": [20, 41], "best/precision_recall": [41]}


def test_summary_has_the_best_and_every_stages_ap(finished: Finished):
    summary, metrics = finished.last.summary, finished.result["metrics"]
    rows = scalars(finished.last.history)
    for kind in ("segm", "bbox"):
        assert summary[f"val/{kind}_AP"] == {"max": max(row.get(f"val/{kind}_AP", 0) for row in rows)}
        for number, stage in enumerate(finished.result["stages"], 1):
            assert summary[f"stage_{number}/{kind}_AP"] == pytest.approx(stage[f"{kind}_AP"])
    best = {
        name.removeprefix("best/"): v for name, v in summary.items() if name.startswith("best/") and "." not in name
    }
    assert best == pytest.approx({name: value for name, value in metrics.items() if value is not None})
    assert summary["failed"] is False
    stages = finished.last.table("best/stages_table")
    assert stages["columns"] == ["stage", "AP", "kind"]
    assert [row[:2] for row in stages["data"][:2]] == [
        [number, pytest.approx(stage["segm_AP"])] for number, stage in enumerate(finished.result["stages"], 1)
    ]


def test_classes_and_precision_over_recall(finished: Finished):
    metrics = finished.result["metrics"]
    table = finished.last.table("best/classes")
    assert table["columns"][:3] == ["class", "objects", "mask AP"]
    for name, count, *scores in table["data"]:
        assert (scores[0], scores[-1]) == (metrics[f"segm_AP/{name}"], metrics[f"bbox_AP/{name}"])
        assert (count == 0) == (scores[0] is None)
    assert len(table["data"]) == 8
    for kind, short in (("mask", "segm"), ("box", "bbox")):
        curve = finished.last.table(f"best/precision_recall_{kind}_table")
        assert curve["columns"] == ["recall", "precision", "IoU"]
        for line, name in (("0.50", "AP50"), ("0.75", "AP75"), ("0.50 to 0.95", "AP")):
            points = [(recall, precision) for recall, precision, of in curve["data"] if of == line]
            assert [recall for recall, _ in points] == pytest.approx(np.linspace(0, 1, 101))
            assert np.mean([precision for _, precision in points]) == pytest.approx(metrics[f"{short}_{name}"])
    assert cv2.imread(str(finished.folder / "pictures" / "precision_recall.png")) is not None


def test_overlays_of_the_same_images_at_every_evaluation(finished: Finished):
    truths = []
    for offline in (finished.first, finished.last):
        (row,) = (row for row in offline.history if "val/overlays.filenames" in row)
        assert row["val/overlays.captions"] == ["image 500001", "image 500002"]
        for name in row["val/overlays.filenames"]:
            assert max(cv2.imread(str(offline.folder / "files" / name)).shape) == 96
        layers = [
            {
                name: cv2.imread(str(offline.folder / "files" / mask["path"]), cv2.IMREAD_UNCHANGED)
                for name, mask in of.items()
            }
            for of in row["val/overlays.all_masks"]
        ]
        assert all(
            set(of) == {f"{a}{b}" for a in ("ground truth", "prediction") for b in ("", " objects")} for of in layers
        )
        for of, boxes in zip(layers, row["val/overlays.all_boxes"], strict=True):
            for name in ("ground truth", "prediction"):
                entry = json.loads((offline.folder / "files" / boxes[name]["path"]).read_text())["box_data"]
                seen = set(np.unique(of[f"{name} objects"])) - {0}
                assert len(seen) <= len(entry), "an object may lie below others"
                assert ((of[name] > 0) == (of[f"{name} objects"] > 0)).all()
                assert set(np.unique(of[name])) - {0} <= {box["class_id"] for box in entry}
        assert any(of["prediction objects"].max() > 1 for of in layers), "several objects are told apart"
        truths.append([of["ground truth objects"] for of in layers])
    assert all((one == other).all() for one, other in zip(*truths, strict=True))
    names = finished.last.config["_wandb"]["mask/class_labels"]["val/overlays_wandb_delimeter_prediction"]["value"]
    assert list(names.values())[:2] == ["circle", "square"]


def test_the_map_of_queries_is_a_picture_in_all_places(finished: Finished):
    assert sorted(path.name for path in finished.folder.glob("pictures/queries_*")) == [
        "queries_001.png",
        "queries_002.png",
    ]
    (row,) = (row for row in finished.last.history if "val/queries.filenames" in row)
    assert row["trainer/global_step"] == 41
    ours = cv2.imread(str(finished.folder / "pictures" / "queries_002.png"))
    theirs = cv2.imread(str(finished.last.folder / "files" / row["val/queries.filenames"][0]))
    assert (ours == theirs).all()


def test_the_matching_before_is_in_the_checkpoint(finished: Finished):
    states = torch.load(finished.folder / "last.ckpt", weights_only=True)["callbacks"]
    (state,) = (state for name, state in states.items() if "MatchingStability" in name)
    assert len(state["previous"]) == 8
    assert all(queries.shape[0] == 2 for queries in state["previous"].values())


class Crash(pl.Callback):
    """A fault that is not the user's."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 2:
            raise ZeroDivisionError("a fault of ours")


def test_a_crashed_run_is_marked_failed(workplace: Path):
    extra = "+callbacks.extra.crash._target_=test_dashboards.Crash"
    code = train(*COMMAND[:8], "callbacks.pictures=0", "logger=wandb", "logger.wandb.mode=offline", extra)
    assert code == 2  # a fault of the user's own code is said
    (folder,) = workplace.glob("outputs/*/wandb/offline-run-*")
    offline = Offline.read(folder)
    assert offline.of("exit")[-1]["exit_code"] == 1
    assert offline.summary["failed"] is True
    assert math.isfinite(offline.summary["train/loss"])
