"""As a user does it: train, stop, resume, evaluate, predict, fine-tune, and the mistakes on the way."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from conftest import BRIEF, ROOT, SHORT, SMALLER, TINY, Run
from omegaconf import OmegaConf

sys.path.append(str(ROOT / "experiments" / "exact_resume"))
from kill import outcome, same

SIGNALS = {path.stem for path in (ROOT / "conf" / "signals").glob("*.yaml")}
SIGNALS -= {"none", "box_target"}  # a score has one target; here `mask_target`
SAME = ("segm_AP", "bbox_AP", "segm_AP50", "segm_AR100", "bbox_ARs")


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def result(workplace: Path) -> dict[str, Any]:
    return json.loads(only(workplace, "outputs/*/result.json").read_text())


def metrics_rows(workplace: Path) -> list[dict[str, str]]:
    with only(workplace, "outputs/*/metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_train_evaluate_predict(workplace: Path, run: Run):
    code, text = run("train", *BRIEF)
    assert code == 0, text
    folder = only(workplace, "outputs/*")
    names = {path.name for path in folder.iterdir()}
    assert {"best.ckpt", "last.ckpt", "config.yaml", "metrics.csv", "pictures", "result.json"} <= names
    assert "epoch 2/2  step 12/12" in text
    assert str(folder.relative_to(workplace)) in text
    assert text.count("python -m queryinst.") == 3, "three commands to try next"

    record = result(workplace)
    assert record["steps"] == 12
    assert record["minutes"] > 0
    assert record["flops"] > 1e6
    assert record["config"]["schedule"]["epochs"] == 2
    assert record["id"] in folder.name
    assert record["metrics"]["segm_AP/hexagon"] is None
    assert record["stages"][-1] == record["metrics"]
    assert 0 < record["seconds_per_image"] < 10
    assert (folder / "matches.npz").exists()
    assert {"torch", "queryinst", "python"} <= record["versions"].keys()
    rows = metrics_rows(workplace)
    assert {"step", "train/loss", "train/stage_1/loss_mask", "val/segm_AP", "train/lr"} <= rows[0].keys()
    assert cv2.imread(str(folder / "pictures" / "epoch_002.png")).shape[1] > 600

    code, text = run("train", *BRIEF)
    assert code == 0
    assert "this run is finished" in text

    best = folder / "best.ckpt"
    kept = [torch.load(folder / f"{name}.ckpt", weights_only=True).keys() for name in ("best", "last")]
    assert ["optimizer_states" in content for content in kept] == [False, True]
    code, text = run("evaluate", f"checkpoint={best}", "output=again.json")
    assert code == 0, text
    again = json.loads((workplace / "again.json").read_text())["metrics"]
    assert again == record["metrics"]

    code, text = run("predict", f"checkpoint={best}", "source=data/shapes_tiny/images/val", "output=seen", "score=0")
    assert code == 0, text
    assert len(list((workplace / "seen").glob("*.png"))) == 8
    predictions = json.loads((workplace / "seen" / "predictions.json").read_text())
    assert len(predictions) == 8 * record["config"]["model"]["num_proposals"]
    from pycocotools import mask as coco_mask

    for prediction in predictions[:20]:
        assert prediction["category_id"] in (3, 7, 8, 15, 22, 40, 41, 90)
        seen = cv2.imread(str(workplace / "data/shapes_tiny/images/val" / prediction["file_name"]))
        assert coco_mask.decode(prediction["segmentation"]).shape == seen.shape[:2]
        assert prediction["image_id"] == int(Path(prediction["file_name"]).stem)
    check_evaluation(workplace, run, best, predictions)


def check_evaluation(workplace: Path, run: Run, checkpoint: Path, predictions: list[dict[str, Any]]) -> None:
    """Some of its own predictions are the truth: so little training finds nothing else, and 0 is equal to 0."""
    content = json.loads((workplace / "data/shapes_tiny/annotations/instances_val.json").read_text())
    seen = [prediction for prediction in predictions if min(prediction["bbox"][2:]) > 4][::2]
    content["annotations"] = [
        {**found, "id": number, "iscrowd": 0, "area": found["bbox"][2] * found["bbox"][3]}
        for number, found in enumerate(seen, 1)
    ]
    (workplace / "own.json").write_text(json.dumps(content))
    words = [f"checkpoint={checkpoint}", "images=data/shapes_tiny/images/val", "annotations=own.json", "output=e.json"]
    metrics = {}
    for way in ("precision=run", "precision=fp32", "precision=bf16", "all_stages=true"):
        code, text = run("evaluate", *words, way, *["backend=faster_coco_eval"] * (way == "all_stages=true"))
        assert code == 0, text
        metrics[way] = json.loads((workplace / "e.json").read_text())["metrics"]
    assert "stage 1" in text
    whole, stages = metrics["precision=run"], metrics["all_stages=true"]
    assert 0.1 < whole["segm_AP"] < 1
    assert metrics["precision=fp32"]["segm_AR100"] == pytest.approx(whole["segm_AR100"], abs=0.005)
    assert metrics["precision=bf16"]["bbox_AR100"] == pytest.approx(whole["bbox_AR100"], abs=0.1)
    assert metrics["precision=bf16"] != whole
    assert all(stages[f"stage_3/{name}"] == pytest.approx(whole[name], abs=1e-9) for name in SAME)
    assert stages["stage_1/segm_AP"] != stages["stage_3/segm_AP"]


RESUME = [*TINY, "schedule.epochs=2", "data.batch_size=2", "trainer.checkpoint_every=1", "callbacks.pictures=0"]
RESUME += ["trainer.max_train_batches=8"]


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    ("number", "settings"),
    [
        (signal.SIGKILL, []),
        (signal.SIGTERM, ["trainer.accumulate=2", "trainer.ema=0.9"]),
        (signal.SIGKILL, [f"signals=[{','.join(sorted(SIGNALS))}]", "criterion.matches_per_object=[2,1]"]),
    ],
    ids=["killed", "terminated, averaged weights", "killed, all signals"],
)
def test_stop_and_resume_ends_as_if_never_stopped(
    workplace: Path, run: Run, number: signal.Signals, settings: list[str]
):
    """Ended from outside in the middle of an epoch, loading in two processes, and started again, loading in none.

    The signal goes to the loader processes too, as a cluster sends it.
    The same weights, optimizer, schedule, metrics and rows to the last bit. `experiments/exact_resume` does it often.
    """
    command = [*RESUME, *settings]
    code, text = run("train", *command)
    assert code == 0, text
    expected, metrics = outcome(workplace), result(workplace)["metrics"]
    shutil.rmtree(workplace / "outputs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "queryinst.train", *command, "data.num_workers=2"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(words, cwd=workplace, env=environment, **quiet) as process:
        until = time.monotonic() + 120
        while not list(workplace.glob("outputs/*/last.ckpt")):
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < until, "no checkpoint within two minutes"
            time.sleep(0.01)
        os.killpg(process.pid, number)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert not list(workplace.glob("outputs/*/result.json"))
    before = torch.load(only(workplace, "outputs/*/last.ckpt"), weights_only=True)["global_step"]
    assert 0 < before < expected["global_step"]

    code, text = run("train", *command)
    assert code == 0, text
    assert f"resumed at step {before}" in text
    assert not same(outcome(workplace), expected)
    assert result(workplace)["metrics"] == metrics


def test_two_runs_of_one_seed_are_the_same_and_of_two_seeds_are_not(trained: Path, workplace: Path, run: Run):
    weights = [torch.load(trained / "last.ckpt", weights_only=True)["state_dict"]]
    for seed, output in ((0, "b"), (1, "c")):
        code, text = run("train", *SHORT, f"seed={seed}", f"output={output}")
        assert code == 0, text
        weights.append(torch.load(only(workplace, f"{output}/*/last.ckpt"), weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert any(not torch.equal(value, weights[2][name]) for name, value in weights[0].items())


def test_your_own_data_and_fine_tuning(trained: Path, workplace: Path, run: Run):
    """Other names, other folders, fewer classes: only the command line says so."""
    theirs = workplace / "theirs"
    (theirs / "ann").mkdir(parents=True)
    for split in ("train", "val"):
        shutil.copytree(f"data/shapes_tiny/images/{split}", theirs / split)
        content = json.loads((workplace / f"data/shapes_tiny/annotations/instances_{split}.json").read_text())
        content["categories"] = [c for c in content["categories"] if c["id"] in (3, 7, 8, 15)]
        content["annotations"] = [a for a in content["annotations"] if a["category_id"] in (3, 7, 8, 15)]
        (theirs / "ann" / f"{split}.json").write_text(json.dumps(content))
    source = trained / "last.ckpt"
    own = [
        "+experiment=tiny",
        "data.root=theirs",
        "data.train_images=train",
        "data.val_images=val",
        "data.num_workers=0",
        "data.batch_size=4",
    ]
    own += [
        *SMALLER,
        "data.train_annotations=ann/train.json",
        "data.val_annotations=ann/val.json",
        "output=mine",
        "schedule.epochs=1",
    ]
    code, text = run("train", *own, f"weights={source}")
    assert code == 0, text
    assert "4 classes" in text
    assert "class layers start fresh (8 classes there, 4 here)" in text
    mine = only(workplace, "mine/*/best.ckpt")
    assert torch.load(mine, weights_only=True)["queryinst"]["category_names"] == [
        "circle",
        "square",
        "triangle",
        "star",
    ]
    code, text = run(
        "evaluate",
        f"checkpoint={mine}",
        "images=data/shapes_tiny/images/val",
        "annotations=data/shapes_tiny/annotations/instances_val.json",
    )
    assert code == 2
    assert "was trained on 4 classes" in text
    code, text = run("train", *own, f"weights={source}", "model.num_stages=3")
    assert code == 2
    assert "has another architecture" in text
    assert len(list(workplace.glob("mine/*"))) == 1, "nothing is left of what failed"


def test_somebodys_photographs_are_fine_tuned_on_with_settings_that_suit_them(workplace: Path, run: Run):
    """As `data=coco data.root=FOLDER` alone; what is added makes it short."""
    source, theirs = workplace / "data/shapes_tiny", workplace / "theirs"
    for split in ("train", "val"):  # as Roboflow has them
        folder = theirs / {"val": "valid"}.get(split, split)
        shutil.copytree(source / "images" / split, folder)
        shutil.copy(source / f"annotations/instances_{split}.json", folder / "_annotations.coco.json")
    words = ["data=coco", "data.root=theirs", "trainer.accelerator=cpu"]
    short = ["model.width=32", "model.num_stages=2", "augmentation.test_short_side=64", "schedule.epochs=1"]
    short += ["trainer.max_train_batches=2", "data.num_workers=0", "callbacks.pictures=0", "logger=none"]
    code, text = run("train", *words, *short)
    assert code == 0, text
    assert "chosen     experiment: finetune_small, without a GPU and published weights (mmdet:ms_3x_pro100 is" in text
    assert "QueryInst  torchvision:mobilenet_v2, 50 queries, 2 stages" in text
    assert "files      train/_annotations.coco.json, images in train; valid/_annotations.coco.json, images in" in text
    assert "chosen     backbone.weights=null: the ImageNet weights of torchvision:mobilenet_v2 cannot be had" in text
    assert re.search(r"chosen     model.num_proposals=50: \d+ objects in an image at most", text)
    assert re.search(r"chosen     data.batch_size=1: 24 images of \d objects, no GPU: 32 objects a step", text)
    assert "chosen     augmentation.short_sides=[48, 80]: a quarter below and above 64" in text
    assert "chosen     augmentation.test_short_side" not in text
    assert "chosen     schedule.epochs" not in text
    kept = OmegaConf.load(only(workplace, "outputs/finetune_small-*/config.yaml"))
    assert kept.chosen["data.batch_size"] in text
    code, text = run("train", *words, *short)
    assert (code, "this run is finished" in text) == (0, True)


def test_mistakes_leave_nothing_behind(workplace: Path, run: Run):
    image = sorted((workplace / "data/shapes_tiny/images/train").iterdir())[3]
    whole = image.read_bytes()

    def files() -> list[Path]:
        return sorted(path for path in workplace.rglob("*") if path != workplace / "outputs")

    before = files()
    for arguments, sentence in (
        (["data=coco", "data.root=nowhere"], "the data folder nowhere does not exist"),
        (["data=coco", "data.root=data/shapes_tiny", "data.train_annotations=no.json"], "no.json does not exist"),
        (["weights=nowhere.ckpt"], "weights=nowhere.ckpt cannot be read"),
        (["data.batch_size=7", "trainer.accumulate=2"], "must divide"),
        (["trainer.devices=many"], "takes a number, a list such as 0,2, or auto"),
        (["+trainer.extra.max_epoch=3"], "'max_epoch' is no argument of pytorch_lightning.Trainer"),
        (["+trainer.extra.max_epochs=3"], "trainer.extra.max_epochs is decided by a setting of its own"),
        (["data.root=data/shapes_tiny/annotations/instances_val.json"], "set data.root=FOLDER"),
        (["+callbacks.extra.mine._target_=no.Where"], "callbacks.extra.mine.name=no:Where: there is no module 'no'"),
        *([] if torch.cuda.is_available() else [(["trainer.accelerator=gpu"], "the trainer cannot be made")]),
    ):
        code, text = run("train", *TINY, *arguments)
        assert (code, text.count("\n")) == (2, 1), text
        assert sentence in text
        assert files() == before

    image.write_bytes(whole[: len(whole) // 2])
    code, text = run("train", *SHORT)
    assert code == 2
    assert image.name in text.splitlines()[-1]
    assert "Traceback" not in text
    code, text = run("train", *SHORT, "data.max_bad_images=1")
    assert code == 0, text
    assert text.count("skipped (1 of 1 allowed)") == 1
    assert len(json.loads(only(workplace, "outputs/*/result.json").read_text())["skipped_images"]) == 1


def test_predict_goes_on_over_images_that_cannot_be_read(trained: Path, workplace: Path, run: Run):
    best = trained / "best.ckpt"
    folder = workplace / "photos"
    folder.mkdir()
    shutil.copy(sorted((workplace / "data/shapes_tiny/images/val").iterdir())[0], folder / "good.jpg")
    (folder / "bad.jpg").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("no image")
    shutil.copy(folder / "good.jpg", folder / "2.jpg")
    code, text = run("predict", f"checkpoint={best}", "source=photos", "output=seen", "score=0")
    assert code == 0, text
    assert "skipped: photos/bad.jpg cannot be read as an image" in text
    assert sorted(path.name for path in (workplace / "seen").glob("*.png")) == ["2.jpg.png", "good.jpg.png"]
    found = json.loads((workplace / "seen/predictions.json").read_text())
    assert len({entry["file_name"] for entry in found}) == len({entry["image_id"] for entry in found}) == 2
    for source, sentence in (
        ("photos/bad.jpg", "none of the 1 images can be read"),
        ("nowhere", "source=nowhere does not exist"),
    ):
        code, text = run("predict", f"checkpoint={best}", f"source={source}")
        assert code == 2
        assert sentence in text


RANKS = [*TINY, "trainer.devices=2", "trainer.strategy=ddp", "trainer.accelerator=cpu"]


def start(workplace: Path, *arguments: str) -> subprocess.Popen[str]:
    """`python -m queryinst.train` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "queryinst.train", *RANKS, *arguments]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, cwd=workplace, env=environment, **pipes)


@pytest.mark.slow
def test_two_processes_stop_together_resume_and_end_as_one(workplace: Path):
    """The first is told to stop; both do, and the same command goes on. What one process would print is printed."""
    settings = ["schedule.epochs=4", "trainer.checkpoint_every=1"]
    with start(workplace, *settings) as process:
        until = time.monotonic() + 200
        while not list(workplace.glob("outputs/*/last.ckpt")):
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < until, "no checkpoint"
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)
        text = process.communicate(timeout=200)[0]
    assert process.returncode == 128 + signal.SIGUSR1, text
    assert text.count("stopped; the same command goes on from step") == 1
    with start(workplace, *settings) as process:
        text = process.communicate(timeout=200)[0]
    assert process.returncode == 0, text
    assert "on 2 devices, learning rate 0.001" in text
    assert text.count("QueryInst  tiny") == text.count("resumed at step") == text.count("trained in") == 1
    assert "epoch 4/4  step 24/24" in text
    assert "Warning" not in text
    assert ".py" not in text, "no line of a warning or a traceback"
    assert result(workplace)["steps"] == 24
    rows = metrics_rows(workplace)
    steps = [(row["step"], bool(row["val/segm_AP"])) for row in rows]
    assert len(steps) == len(set(steps))
    assert sum(bool(row["val/segm_AP"]) for row in rows) == 4


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_ends_both(workplace: Path):
    image = sorted((workplace / "data/shapes_tiny/images/train").iterdir())[3]
    image.write_bytes(image.read_bytes()[:500])
    with start(workplace) as process:
        text = process.communicate(timeout=200)[0]
    assert process.returncode == 2, text
    assert text.count("error") == text.count(image.name) == 1
    assert "Traceback" not in text
    assert not list(workplace.glob("outputs/*")), "nothing is left of what failed"


@pytest.mark.slow
def test_a_handful_of_images_is_learned_by_heart(workplace: Path, run: Run):
    """Six images, again and again, evaluated on themselves: mask AP above 0.9."""
    root = workplace / "data" / "shapes_tiny"
    content = json.loads((root / "annotations" / "instances_train.json").read_text())
    plain = {a["image_id"] for a in content["annotations"] if not a["iscrowd"] and a["area"] > 60}
    spoiled = {a["image_id"] for a in content["annotations"] if a["iscrowd"] or a["area"] <= 60}
    keep = sorted(plain - spoiled)[:6]
    content["images"] = [image for image in content["images"] if image["id"] in keep]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in keep]
    (root / "annotations" / "few.json").write_text(json.dumps(content))
    files = [
        "data.train_annotations=annotations/few.json",
        "data.val_annotations=annotations/few.json",
        "data.val_images=images/train",
    ]
    settings = [
        "+experiment=tiny",
        "data.root=data/shapes_tiny",
        "data.train_images=images/train",
        "data.batch_size=6",
        "data.num_workers=0",
    ]
    training = [
        "schedule.epochs=600",
        "trainer.evaluate_every=600",
        "augmentation.flip=0",
        "logger=none",
        "callbacks.pictures=0",
    ]
    code, text = run("train", *settings, *files, *training)
    assert code == 0, text
    assert result(workplace)["metrics"]["segm_AP"] > 0.9


def test_a_damaged_run_folder_is_named(trained: Path, run: Run):
    """A result or a checkpoint that cannot be read is never taken for one, nor thrown away."""
    result, last = trained / "result.json", trained / "last.ckpt"
    result.write_text("{")
    code, text = run("train", *SHORT)
    assert (code, text.count("\n")) == (2, 1)
    assert "result.json is damaged" in text
    result.unlink()
    last.write_bytes(b"")
    code, text = run("train", *SHORT)
    assert (code, text.count("\n")) == (2, 1)
    assert "last.ckpt is damaged" in text
    assert last.exists()
