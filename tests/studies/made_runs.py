"""Finished runs that never trained, for tests of `compare`: folders with everything that a run leaves for it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from queryinst.config import TrainConfig
from queryinst.evaluation.bootstrap import average, precisions, read
from queryinst.settings import walk
from queryinst.studies.compare.groups import Group, group
from queryinst.studies.compare.runs import Run, find
from queryinst.studies.sweep import Record

NAMES = ("circle", "square", "star")
IMAGES = 60
THRESHOLDS = np.linspace(0.5, 0.95, 10)


def make_run(
    folder: Path,
    settings: dict[str, Any] | None = None,
    seed: int = 0,
    quality: float = 0.7,
    names: Sequence[str] = NAMES,
    older: bool = False,
    gflops: float = 10.0,
    **changed: Any,
) -> Path:
    """A run folder. `quality`: how well its boxes fit; `older`: as of a version before matches and stages were kept."""
    folder.mkdir(parents=True)
    write_matches(folder / "matches.npz", seed, quality, len(names))
    metrics = metrics_of(folder / "matches.npz", names)
    identity = {key: value for key, entry, value in walk(TrainConfig(seed=seed)) if entry.metadata["identity"]}
    identity |= {"seed": seed, "data.train": "00aa", "data.val": "11bb"} | (settings or {})
    result = {
        "name": "shapes",
        "id": folder.name.rpartition("-")[2],
        "identity": identity,
        "config": {"data": {"root": "data/things"}, "weights": None},
        "versions": {"queryinst": "0.1.0", "torch": "2.15.0"},
        "git": {"revision": "c0ffee" * 6 + "beef", "dirty": False},
        "hardware": {"system": "Linux", "processor": "AMD EPYC", "threads": 1, "gpus": []},
        "metrics": metrics,
        "best": "best.ckpt",
        "steps": 100,
        "minutes": 5.0 + seed / 10,
        "parameters": 3_000_000,
        "flops": int(gflops * 1e9),
        "skipped_images": [],
        "stages": [
            {name: value * part if value else value for name, value in metrics.items()} for part in (0.5, 0.9, 1)
        ],
        "seconds_per_image": gflops / 500 + seed / 1e4,
    } | changed
    if older:
        (folder / "matches.npz").unlink()
        del result["stages"], result["seconds_per_image"]
    else:
        rows = [
            f"{step},,{metrics['segm_AP'] * (1 - 0.9 ** (step / 10 + 1)) + seed / 100}" for step in range(10, 101, 10)
        ]
        (folder / "metrics.csv").write_text("step,train/loss,val/segm_AP\n5,3.0,\n" + "\n".join(rows) + "\n")
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def write_matches(path: Path, seed: int, quality: float, classes: int) -> None:
    """Detections of one set of ground truths: found ones with some IoU, and false ones."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(1000 + seed)
    image = np.sort(truth.integers(0, IMAGES, 4 * IMAGES))
    category = truth.integers(0, classes, len(image))
    arrays: dict[str, Any] = {"image_ids": np.arange(IMAGES) * 3 + 1, "category_ids": np.arange(classes) + 5}
    for kind, easier in (("bbox", 0.05), ("segm", 0.0)):
        iou = np.clip(quality + easier + rng.normal(0, 0.15, len(image)), 0, 1)
        false = rng.integers(0, IMAGES, len(image))
        arrays |= {
            f"{kind}_image": np.concatenate([image, false]).astype(np.int32),
            f"{kind}_category": np.concatenate([category, rng.integers(0, classes, len(false))]).astype(np.int16),
            f"{kind}_score": np.concatenate([iou, rng.beta(1, 3, len(false))]).astype(np.float32),
            f"{kind}_matched": np.concatenate([iou[:, None] >= THRESHOLDS, np.zeros((len(false), 10), bool)]),
            f"{kind}_ignored": np.zeros((2 * len(image), 10), bool),
            f"{kind}_truth_image": image.astype(np.int32),
            f"{kind}_truth_category": category.astype(np.int16),
        }
    np.savez_compressed(path, thresholds=THRESHOLDS, **arrays)


def metrics_of(path: Path, names: Sequence[str]) -> dict[str, float | None]:
    """The metrics that the matches give; by size there are none."""
    metrics: dict[str, float | None] = {}
    for kind, matches in read(path).kinds.items():
        values = precisions(matches, np.ones((1, IMAGES), np.int64))
        metrics[f"{kind}_AP"] = float(average(values)[0])
        metrics |= {f"{kind}_AP50": float(values[0, :, 0].mean()), f"{kind}_AP75": float(values[0, :, 5].mean())}
        metrics |= {f"{kind}_APs": float(values[0].mean()) * 0.8, f"{kind}_APl": None}
        metrics |= {f"{kind}_AP/{name}": float(values[0, k].mean()) for k, name in enumerate(names)}
    return metrics


def make_study(
    output: Path, name: str, values: dict[int, float], seeds: Sequence[int] = (0, 1, 2), **more: Any
) -> None:
    """A study of `num_stages`: of each value its quality, with every seed."""
    jobs = output / "studies" / name
    jobs.mkdir(parents=True, exist_ok=True)
    for stages, quality in values.items():
        for seed in seeds:
            number = len(list(jobs.glob("*.json")))
            folder = make_run(
                output / f"shapes-{name}{stages}{seed}",
                {"model.num_stages": stages},
                seed,
                quality + 0.01 * (seed - 1),
                gflops=4.0 + 2 * stages,
                **more,
            )
            write_job(jobs, number, [f"model.num_stages={stages}", f"seed={seed}"], folder)


def groups_of_study(output: Path, values: dict[int, float], **more: Any) -> list[Group]:
    """The groups of such a study, one a value."""
    make_study(output, "s", values, **more)
    return group(find(["s"], output).runs)


def fake_group(label: str, values: Sequence[float]) -> Group:
    """A group of one mask AP a seed, without a file."""
    runs = (
        Run(Path(label) / str(seed), {"identity": {"seed": seed}, "metrics": {"segm_AP": value}})
        for seed, value in enumerate(values)
    )
    return Group(label, {}, tuple(runs), ())


def write_job(jobs: Path, number: int, overrides: list[str], folder: Path | None, status: str = "finished") -> None:
    """The record of one job of a study."""
    jobs.mkdir(parents=True, exist_ok=True)
    record = Record(overrides, folder.as_posix() if folder else "", status, "call", number)
    (jobs / f"{folder.name if folder else f'failed-{number}'}.json").write_text(json.dumps(asdict(record)))


def write_elastic(folder: Path) -> None:
    """elastic.json: fewer stages and fewer proposals than the run was trained with."""
    rows = [
        {
            "stages": stages,
            "proposals": proposals,
            "segm_AP": 0.2 + 0.08 * stages + proposals / 2000,
            "bbox_AP": 0.22 + 0.08 * stages + proposals / 2000,
            "gflops": 4 + 2.0 * stages * proposals / 100,
            "seconds_per_image": 0.01 * stages,
        }
        for stages in (1, 2, 3)
        for proposals in (50, 100)
    ]
    (folder / "elastic.json").write_text(json.dumps({"checkpoint": "best.ckpt", "run": "0123abcd", "rows": rows}))
