"""A training run from its configuration: everything is built, trained, and evaluated with the best weights."""

import dataclasses
import math
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from queryinst.checkpoints.load import load, require_fit, start_backbone, start_from
from queryinst.config import TrainConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion.matcher import Matcher
from queryinst.data.datamodule import CocoDataModule
from queryinst.errors import Stopped, UserError
from queryinst.evaluation import matches
from queryinst.lightning import kinds
from queryinst.lightning import loggers as log
from queryinst.lightning.callbacks.compilation import Compilation
from queryinst.lightning.callbacks.explanation import Explanation
from queryinst.lightning.callbacks.matching_stability import STABILITY_IMAGES, MatchingStability
from queryinst.lightning.callbacks.patience import Patience
from queryinst.lightning.callbacks.progress import RunProgress
from queryinst.lightning.callbacks.query_use import QueryUse
from queryinst.lightning.callbacks.thaw import Thaw, thawing
from queryinst.lightning.callbacks.throughput import Throughput
from queryinst.lightning.dry_pass import dry_pass
from queryinst.lightning.module import QueryInstModule, Training
from queryinst.lightning.own import OwnMetrics, blamed, instantiate
from queryinst.lightning.report import report
from queryinst.lightning.trainer import BEST, LAST, build_trainer
from queryinst.models.cost import flops, parameters, seconds
from queryinst.models.queryinst import QueryInst
from queryinst.models.signals import Signals
from queryinst.ops.ranks import of_all_ranks
from queryinst.slots import sources
from queryinst.video_config import TrackerConfig


@dataclass(frozen=True)
class Trained:
    """What came of a run."""

    metrics: dict[str, float]  # of the best checkpoint, as `queryinst.evaluate` gives them
    stages: list[dict[str, float]]  # the same of each stage's own boxes, classes and masks
    best: str  # name of the best checkpoint
    steps: int
    minutes: float  # training and evaluation, over all resumptions
    parameters: int
    flops: int
    seconds_per_image: float  # network and post-processing, one image of the test's short side, square
    skipped_images: list[str]
    ended: str = "schedule"  # what ended the training: the schedule, max_steps, or early stopping (any callback)


def train(
    config: TrainConfig, data: CocoDataModule, folder: Path, run_id: str, more: Sequence[pl.Callback] = ()
) -> Trained:
    """Train to the end, from `last.ckpt` where there is one, and evaluate `best.ckpt`; with `more` callbacks.

    Raises:
        Stopped: it ended before that, and can go on.
        UserError: the weights do not fit, an image cannot be read, or a loss is not finite.
    """
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module, loaded = _module(config, data, folder, run_id)
    last = folder / LAST if (folder / LAST).exists() else None
    step = _step_of(last, module) if last else 0
    tags = (config.backbone.name, Path(config.data.root).name)
    loggers = log.build_loggers(config.logger, folder, run_id, folder.name, step, config.study_name, tags)
    own = {kind: instantiate(nodes, kind) for kind, nodes in _extra(config).items()}
    loggers += own["logger"].values()
    throughput, progress = Throughput(), RunProgress()
    callbacks = [throughput, progress, *_callbacks(config, data, folder, progress.say)]
    callbacks += [*own["callback"].values(), *more]
    trainer = build_trainer(config.trainer, config.optimizer, config.schedule, callbacks, loggers, folder)

    side = -(-config.augmentation.test_short_side // 32) * 32
    cost = {"parameters": parameters(module.model), "flops": flops(module.model, side, side)}
    say: Callable[[str], None] = progress.say if trainer.is_global_zero else lambda text: None
    say("\n".join([*_heading(config, data, trainer.world_size), *(f"weights    {sentence}" for sentence in loaded)]))
    say(f"network    {cost['parameters'] / 1e6:.2f} M parameters, {cost['flops'] / 1e9:.2f} GFLOPs at {side}x{side}")
    say(f"folder     {folder}" + (f", resumed at step {step}" if step else ""))
    failed = True
    try:
        with blamed(own["logger"] | own["callback"]):
            settings = _flat(dataclasses.asdict(config) | {"chosen": {}})  # that is prose
            log.begin(loggers, {**settings, **cost, "classes": len(data.categories)})
            trainer.fit(module, datamodule=data, ckpt_path=last, weights_only=True)
            ended = _ended(trainer)
            if ended != "schedule":
                epochs: Any = trainer.fit_loop.epoch_progress.current  # `current_epoch` is one less after a resume
                say(f"ended by {ended} at step {trainer.global_step}, in epoch {epochs.processed}{_why(trainer)}")
            best = _load_best(module, folder)
            trainer.loggers = []  # the curves have these numbers already, at the step they belong to
            metrics, stages = _evaluate_stages(trainer, module, data, config.tracker, folder)
            latency = seconds(module.model, config.model.postprocess, side, side)
            shown = folder if config.callbacks.pictures else None
            report(loggers, metrics, stages, module.evaluators[-1], shown, trainer.global_step - 1)
        failed = False
    except SystemExit as leaving:  # Lightning's way to end after Ctrl+C; and rich's, where nobody reads
        if isinstance(leaving.__context__, BrokenPipeError):
            raise
        raise KeyboardInterrupt from None
    finally:
        if failed and (folder / LAST).exists():
            at = " at trainer.extra.max_time" if str(sys.exception()) == str(Stopped(signal.SIGALRM)) else ""
            say(f"stopped{at}; the same command goes on from step {_step_of(folder / LAST)}")
        elif failed and isinstance(sys.exception(), KeyboardInterrupt | Stopped):
            say("stopped before the first checkpoint; the same command begins again")
        if config.trainer.compile:
            torch.compiler.set_stance("default")
        log.close(loggers, sys.exception() if failed else None)
    minutes, skipped, steps = throughput.elapsed() / 60, sorted(of_all_ranks(data.problems)), trainer.global_step
    return Trained(
        metrics, stages, best, steps, minutes, **cost, seconds_per_image=latency, skipped_images=skipped, ended=ended
    )


def _load_best(module: QueryInstModule, folder: Path) -> str:
    """Give the module the best weights of a run. Returns the file's name."""
    best = BEST if (folder / BEST).exists() else LAST
    weights = load(folder / best).weights
    require_fit(weights, module.model.state_dict(), folder / best)
    module.model.load_state_dict(weights)
    return best


def _ended(trainer: pl.Trainer) -> str:
    """What ended the training, for `Trained`."""
    if trainer.should_stop:
        return "early stopping"
    return "max_steps" if 0 <= trainer.max_steps <= trainer.global_step else "schedule"


def _why(trainer: pl.Trainer) -> str:
    """What `trainer.patience` says of the end, if it was that."""
    reasons = (callback.reason for callback in trainer.early_stopping_callbacks if isinstance(callback, Patience))
    return next((f": {reason}" for reason in reasons if reason), "")


def _callbacks(
    config: TrainConfig, data: CocoDataModule, folder: Path, say: Callable[[str], None]
) -> list[pl.Callback]:
    """Those that look at an evaluation, and those that change what trains and how."""
    settings, source = config.callbacks, data.file("val")
    made: list[pl.Callback] = [
        Explanation(say),
        QueryUse(config.model.num_proposals, settings.picture_score, folder if settings.pictures else None),
        MatchingStability(Matcher(config.criterion), [image.id for image in source.images[:STABILITY_IMAGES]]),
    ]
    if settings.pictures:
        made.append(kinds.pictures(source, folder, settings, config.tracker))
    if config.backbone.thaw is not None:
        made.append(Thaw(config.backbone.thaw, say))
    if config.trainer.compile:
        made.append(Compilation())
    return made


def _extra(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """Other people's loggers and callbacks, by what they are."""
    return {"logger": config.logger.extra, "callback": config.callbacks.extra}


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree of settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _evaluate_stages(
    trainer: pl.Trainer, module: QueryInstModule, data: CocoDataModule, tracker: TrackerConfig, folder: Path
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """The metrics of the last stage, and of each; what those of the last are made of goes into `matches.npz`."""
    source, count = data.file("val"), len(module.model.stages)
    earlier = {stage: kinds.evaluator(source, tracker) for stage in range(count - 1)}
    last = kinds.evaluator(source, tracker, keep_matches=True, boundary=True)
    module.evaluators = {**earlier, -1: last}
    trainer.validate(module, datamodule=data, verbose=False)
    if trainer.is_global_zero:
        matches.save(last.matches, folder)
    prefixes = [f"stage_{stage + 1}/" for stage in earlier]
    stages = [
        {name.removeprefix(prefix): value for name, value in module.metrics.items() if name.startswith(prefix)}
        for prefix in prefixes
    ]
    metrics = {name: value for name, value in module.metrics.items() if not name.startswith(tuple(prefixes))}
    return metrics, [*stages, metrics]


def _module(config: TrainConfig, data: CocoDataModule, folder: Path, run_id: str) -> tuple[QueryInstModule, list[str]]:
    """The LightningModule with its initial weights, and a sentence on what was loaded into it."""
    categories = data.categories
    model = QueryInst(config.model, config.backbone, len(categories))
    loaded = []
    if config.weights:
        loaded.append(start_from(model, config.model, config.weights, categories.names))
    elif config.backbone.weights:
        loaded.append(start_backbone(model.backbone, config.backbone.name, config.backbone.weights))
    steps = math.ceil(data.batches_per_epoch(config.trainer.max_train_batches) / config.trainer.accumulate)
    training = Training(
        Criterion(config.criterion),
        config.optimizer,
        config.schedule,
        config.data.batch_size,
        steps,
        data.count_problems,
        frozenset() if config.backbone.thaw is None else thawing(model.backbone),
    )
    record: dict[str, Any] = {
        "config": dataclasses.asdict(config),
        "category_ids": list(categories.ids),
        "category_names": list(categories.names),
        "run": run_id,
        "parts": sources(config),
    }
    evaluators = {-1: kinds.evaluator(data.file("val"), config.tracker)}
    own = OwnMetrics(config.metrics, data.file("val").content) if config.metrics else None
    dry_pass(config, model, training.criterion, own)
    signals = Signals(config.signals, config.model, len(categories), model.stages[0].box)
    module = QueryInstModule(model, evaluators, config.model.postprocess, training, record, folder, own, signals)
    return module, loaded


def _step_of(checkpoint: Path, module: QueryInstModule | None = None) -> int:
    """How far a checkpoint is. Raises UserError where it is damaged, or is not the module's."""
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        step, weights = int(content["global_step"]), dict(content["state_dict"])
    except Exception as error:  # torch's many ways to say damaged
        raise UserError(
            f"{checkpoint} is damaged ({type(error).__name__}), so this run cannot go on: delete {checkpoint.parent} "
            "to train it again, or start another run from its best.ckpt with weights="
        ) from None
    if module is not None:
        require_fit(weights, module.state_dict(), checkpoint)
    return step


def _heading(config: TrainConfig, data: CocoDataModule, world: int) -> list[str]:
    model, train, val = config.model, data.file("train"), data.file("val")
    used = len(data.training_images())
    lr = config.optimizer.lr * config.data.batch_size / config.optimizer.lr_batch
    lines = [
        f"QueryInst  {config.backbone.name}, {model.num_proposals} queries, {model.num_stages} stages",
        f"data       {config.data.root}: {used} training images ({len(train.images) - used} left out), "
        f"{len(val.images)} validation images, {len(data.categories)} classes",
        f"files      {config.data.train_annotations}, images in {config.data.train_images}; "
        f"{config.data.val_annotations}, images in {config.data.val_images}",
        f"training   {config.schedule.epochs} epochs, {config.data.batch_size} images a step on "
        f"{world} device{'s' * (world > 1)}, learning rate {lr:.3g}",
    ]
    values = _flat(dataclasses.asdict(config))
    lines += [
        f"chosen     {key}{f'={_shown(values[key])}' if key in values else ''}: {why}"
        for key, why in config.chosen.items()
    ]
    if config.data.group_by_aspect:
        plain, grouped = data.padding()
        lines.append(
            f"batches    {grouped:.0%} of the pixels are padding; {plain:.0%} without grouping by aspect ratio"
        )
    if config.logger.wandb.enabled and log.switched_off():
        lines.append(f"W&B        left out: {log.switched_off()}")
    return lines


def _shown(value: Any) -> str:
    """As one would type it."""
    return "null" if value is None else str(value)
