"""One run: its folder, skipping or resuming it, training, the final evaluation and result.json."""

import dataclasses
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
from omegaconf import OmegaConf

from queryinst.config import TrainConfig, walk
from queryinst.errors import UserError
from queryinst.studies.identity import identity, run_folder, run_id

if TYPE_CHECKING:  # torch and Lightning take seconds to import: a command that has nothing to train does not wait for them
    import pytorch_lightning as pl

    from queryinst.lightning.module import QueryInstModule


def run(config: TrainConfig) -> Path:
    """Train and evaluate, or go on where the same run was interrupted, or say that it is finished.

    Returns:
        the run's folder.

    Raises:
        UserError: anything the user can mend. Nothing that was there before is lost.
    """
    values = identity(config)
    folder = run_folder(config, values)
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    if (folder / "result.json").exists():
        if first:
            _report_finished(folder)
        return folder
    lock = filelock.FileLock(str(folder / ".lock"), blocking=False) if first else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if lock:
            lock.acquire()
    except filelock.Timeout:
        raise UserError(f"another process is training this run right now ({folder}); wait for it, or change a setting") from None
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written ({error.strerror}); set output=FOLDER") from None
    try:
        _train(config, values, folder)
    finally:
        if lock:
            lock.release()
    return folder


def _train(config: TrainConfig, values: dict[str, Any], folder: Path) -> None:
    import pytorch_lightning as pl

    from queryinst.data.datamodule import CocoDataModule
    from queryinst.lightning import loggers as log
    from queryinst.lightning.callbacks.pictures import Pictures
    from queryinst.lightning.callbacks.progress import RunProgress
    from queryinst.lightning.callbacks.throughput import Throughput
    from queryinst.lightning.trainer import BEST, LAST, build_trainer, instantiate
    from queryinst.studies import results

    name = run_id(values)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = CocoDataModule(config.data, config.augmentation, config.seed, config.trainer.accumulate)
    data.prepare_data()
    record = {
        "config": dataclasses.asdict(config),
        "category_ids": list(data.categories.ids),
        "category_names": list(data.categories.names),
        "run": name,
    }
    module, loaded = _module(config, data, record, folder)
    last = folder / LAST
    step = _step_of(last) if last.exists() else 0
    description = results.describe(config, values, name)
    OmegaConf.save(OmegaConf.create(record["config"]), folder / "config.yaml")
    settings = {key: value for key, _, value in walk(config)}
    loggers = log.build_loggers(config.logger, folder, name, folder.name, settings, step)
    loggers += instantiate(config.logger.extra, "logger")
    throughput, progress = Throughput(), RunProgress()
    callbacks: list[pl.Callback] = [throughput, progress, *instantiate(config.callbacks.extra, "callbacks")]
    if config.callbacks.pictures:
        callbacks.append(Pictures(data.file("val"), folder, config.callbacks.pictures, config.callbacks.picture_score))
    trainer = build_trainer(config.trainer, config.optimizer, config.schedule, callbacks, loggers, folder)

    model = module.model
    size = config.augmentation.test_short_side
    cost = {"parameters": results.parameters(model), "flops": results.flops(model, _padded(size), _padded(size))}
    say = progress.print if trainer.is_global_zero else lambda *_: None
    say(_heading(config, data, folder, cost, loaded, step, trainer.world_size), highlight=False, soft_wrap=True)
    failed = True
    try:
        trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
        best = folder / BEST if (folder / BEST).exists() else last
        metrics = _final(trainer, module, data, best)
        failed = False
    finally:
        if failed and last.exists():
            say(f"stopped; the same command goes on from step {_step_of(last)}", highlight=False)
        log.close(loggers, failed)
    if not trainer.is_global_zero:
        return
    result = description | cost | {
        "metrics": metrics,
        "steps": trainer.global_step,
        "minutes": throughput.elapsed() / 60,
        "skipped_images": sorted(data.problems),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }  # fmt: skip
    results.write(folder / results.RESULT, result)
    _report(folder, best, metrics, data.categories.names, throughput.elapsed() / 60)


def _module(config: TrainConfig, data: Any, record: dict[str, Any], folder: Path) -> tuple["QueryInstModule", list[str]]:
    """The LightningModule with its initial weights, and what was loaded into it."""
    from queryinst.checkpoints.load import start_backbone, start_from
    from queryinst.criterion.criterion import Criterion
    from queryinst.evaluation.coco import CocoEvaluator
    from queryinst.lightning.module import QueryInstModule, Training
    from queryinst.models.queryinst import QueryInst

    model = QueryInst(config.model, config.backbone, len(data.categories))
    loaded = []
    if config.weights:
        loaded.append(start_from(model, config.weights))
    elif config.backbone.weights:
        loaded.append(start_backbone(model.backbone, config.backbone.name, config.backbone.weights))
    steps = math.ceil(data.batches_per_epoch(config.trainer.max_train_batches) / config.trainer.accumulate)
    training = Training(Criterion(config.criterion), config.optimizer, config.schedule, config.data.batch_size, steps)
    evaluators = {-1: CocoEvaluator(data.file("val").content)}
    return QueryInstModule(model, evaluators, config.model.postprocess, training, record, folder), loaded


def _final(trainer: "pl.Trainer", module: "QueryInstModule", data: Any, best: Path) -> dict[str, float]:
    """Metrics of the best checkpoint: what `queryinst.evaluate` gives for it."""
    from queryinst.checkpoints.load import load

    module.model.load_state_dict(load(best).weights)
    trainer.validate(module, datamodule=data, verbose=False)
    return module.metrics


def _step_of(checkpoint: Path) -> int:
    import torch

    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def _padded(side: int) -> int:
    return -(-side // 32) * 32


def _heading(config: TrainConfig, data: Any, folder: Path, cost: dict[str, int], loaded: list[str], step: int, world: int) -> str:
    size = _padded(config.augmentation.test_short_side)
    lr = config.optimizer.lr * config.data.batch_size / config.optimizer.lr_batch
    unused = len(data.file("train").images) - len(data.training_images())
    lines = [
        f"QueryInst  {config.backbone.name}, {config.model.num_stages} stages, {config.model.num_proposals} proposals, "
        f"{cost['parameters'] / 1e6:.2f} M parameters, {cost['flops'] / 1e9:.2f} GFLOPs at {size}x{size}",
        f"data       {config.data.root}: {len(data.training_images())} training images ({unused} without use), "
        f"{len(data.file('val').images)} validation images, {len(data.categories)} classes",
        f"training   {config.schedule.epochs} epochs, {config.data.batch_size} images a step on {world} device(s), learning rate {lr:.3g}",
        *(f"weights    {sentence}" for sentence in loaded),
        f"folder     {folder}" + (f", resumed at step {step}" if step else ""),
    ]
    return "\n".join(lines)


def _report(folder: Path, best: Path, metrics: dict[str, float], names: tuple[str, ...], minutes: float) -> None:
    from queryinst.evaluation.coco import table

    print(f"\n{table(metrics, names)}\n\ntrained in {minutes:.1f} minutes; everything is in {folder}\n")
    print("look at it      " + f"python -m queryinst.predict checkpoint={best} source=IMAGE_OR_FOLDER")
    print("stage by stage  " + f"python -m queryinst.evaluate checkpoint={best} all_stages=true")
    print("your own data   python -m queryinst.train data=coco data.root=FOLDER", flush=True)


def _report_finished(folder: Path) -> None:
    import json

    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    print(f"this run is finished: {folder}, mask AP {metrics['segm_AP'] or 0:.3f}, box AP {metrics['bbox_AP'] or 0:.3f}")
    print(f"change a setting (seed=1, say) for another run, or delete {folder} to train it again")
