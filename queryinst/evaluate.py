"""`python -m queryinst.evaluate checkpoint=FILE`: metrics of a trained model, of COCO or, for video, of YouTube-VIS.

python -m queryinst.evaluate checkpoint=outputs/RUN/best.ckpt                      as at the end of the training run
python -m queryinst.evaluate checkpoint=... all_stages=true                        every stage's own results
python -m queryinst.evaluate checkpoint=... elastic=true                           with fewer stages, fewer proposals
python -m queryinst.evaluate checkpoint=... precision=bf16                         sooner: the network prepared for use
python -m queryinst.evaluate checkpoint=... images=FOLDER annotations=FILE         on other data with the same classes
python -m queryinst.evaluate checkpoint=mmdet:1x_pro100 images=COCO/val2017 \\
    annotations=COCO/annotations/instances_val2017.json expect=published          published weights: is their AP met?
python -m queryinst.evaluate checkpoint=... max_detections=600                     of images with more than 100 objects
"""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from queryinst.command_config import EvaluateConfig
from queryinst.errors import UserError
from queryinst.evaluation.expected import PUBLISHED, Expected, expected, require_val2017
from queryinst.settings import changed
from queryinst.slots import NETWORK, is_allowed, is_ours, outside, place
from queryinst.studies.command import command
from queryinst.zoo import in_zoo

if TYPE_CHECKING:
    from queryinst.checkpoints.load import Checkpoint
    from queryinst.config import PostprocessConfig
    from queryinst.data.coco import CocoFile
    from queryinst.lightning.module import QueryInstModule
    from queryinst.models.queryinst import QueryInst

ELASTIC = "elastic.json"


@command("evaluate", EvaluateConfig)
def main(config: EvaluateConfig) -> None:
    if (config.images is None) != (config.annotations is None):
        raise UserError(
            "images and annotations belong together: give both, or neither for the run's own validation set"
        )
    wanted = _wanted(config)
    from queryinst.checkpoints.load import load
    from queryinst.data.notes import notes
    from queryinst.memory import keep_memory
    from queryinst.structures import COUNTED
    from queryinst.studies.results import require_writable

    keep_memory()
    checkpoint = load(config.checkpoint, config.allow)
    if checkpoint.config.data.video:
        asked = ("elastic=true",) * config.elastic + ("expect",) * bool(wanted)
        asked += ("max_detections",) * bool(config.max_detections) + ("crowd",) * bool(config.crowd)
        if asked:
            raise UserError(f"{asked[0]} is for images, and {config.checkpoint} is a model for video: leave it out")
    elif config.tracker != type(config.tracker)():
        raise UserError(f"tracker is for video, and {config.checkpoint} is a model for images: leave it out")
    source = _source(config, checkpoint)
    if config.expect == PUBLISHED:
        require_val2017(len(source.images), source.path)
    for note in notes(source, checkpoint.config.model.num_proposals, config.max_detections or COUNTED):
        print(f"note: {note}")
    checkpoint.require_classes(source.categories.ids, source.categories.names, source.path)
    output = Path(config.output) if config.output else None
    if config.elastic and not config.images:
        output = output or Path(config.checkpoint).parent / ELASTIC
    if output:
        require_writable(output, "output", "metrics.json")
    if config.elastic:
        _elastic(config, checkpoint, source, output)
        met = True
    else:
        met = _metrics(config, checkpoint, source, output, wanted)
    if output:
        print(f"\nwritten to {output}")
    if not met:
        sys.exit(1)


def _wanted(config: EvaluateConfig) -> Expected | None:
    """The AP that should come out. Raises UserError for what can be seen to be wrong before anything is fetched."""
    if in_zoo(config.checkpoint) and not config.images:
        raise UserError(
            f"{config.checkpoint} comes without data: give images=FOLDER annotations=FILE, such as COCO's val2017"
        )
    if config.expect is None:
        return None
    if config.elastic:
        raise UserError("expect is of the whole model, and elastic=true evaluates parts of it: leave one out")
    return expected(config.expect, config.tolerance, config.checkpoint)


def _source(config: EvaluateConfig, checkpoint: "Checkpoint") -> "CocoFile":
    """The data set to evaluate on."""
    from queryinst.data.coco import CocoFile
    from queryinst.data.datamodule import open_split
    from queryinst.data.embedded import make_embedded
    from queryinst.data.own import ReadFile, reader_of
    from queryinst.data.youtube_vis import VideoFile

    data = checkpoint.config.data
    data.crowd = config.crowd or data.crowd
    if config.images and config.annotations:
        where = Path(config.annotations), Path(config.images)
        reader = reader_of(data)
        if not is_ours(reader) and is_allowed(reader, config.allow):
            return ReadFile(reader, *where, crowd=data.crowd)  # otherwise they are COCO's
        return VideoFile(*where) if data.video else CocoFile(*where, crowd=data.crowd)
    checkpoint.require_allowed(*NETWORK, "reader")
    make_embedded(data)
    return open_split(data, "val", f"; {config.checkpoint} was evaluated there: give images=FOLDER annotations=FILE")


def _network(config: EvaluateConfig, checkpoint: "Checkpoint") -> "QueryInst":
    from queryinst.models.deploy import deploy

    model = checkpoint.build()
    return model if config.precision == "run" else deploy(model, config.precision)


def _postprocess(config: EvaluateConfig, checkpoint: "Checkpoint") -> "PostprocessConfig":
    """The run's, which keeps at least as many detections as are judged."""
    model = checkpoint.config.model
    if not config.max_detections:
        return model.postprocess
    kept = model.postprocess.max_detections or model.num_proposals
    return replace(model.postprocess, max_detections=max(kept, config.max_detections))


def _own_metrics(config: EvaluateConfig, checkpoint: "Checkpoint") -> dict[str, Any]:
    """Those of the command, and those of the run whose modules the command allows."""
    kept = dict(config.metrics)
    for part in outside(checkpoint.config):
        if part.slot != "metric" or part.word in kept:
            continue
        if is_allowed(part, config.allow):
            kept[part.word] = checkpoint.config.metrics[part.word]
        else:
            print(f"left out: the run's own metric {part.word} ({part.name}); allow=[{place(part)[0]}] computes it")
    return kept


def _metrics(
    config: EvaluateConfig, checkpoint: "Checkpoint", source: "CocoFile", output: Path | None, wanted: Expected | None
) -> bool:
    """Evaluate, print and write; whether AP is as it was wanted, if it was."""
    from queryinst.inference.predictor import device_of
    from queryinst.lightning.kinds import evaluator, table
    from queryinst.lightning.module import QueryInstModule
    from queryinst.lightning.own import OwnMetrics
    from queryinst.models.packed import pack
    from queryinst.structures import COUNTED
    from queryinst.studies.results import write

    stages = range(checkpoint.config.model.num_stages) if config.all_stages else [-1]
    tracker = changed(checkpoint.config.tracker, config.tracker)
    judged = config.max_detections or COUNTED
    evaluators = {
        stage: evaluator(source, tracker, config.backend, max_detections=judged, boundary=config.boundary)
        for stage in stages
    }
    network = _network(config, checkpoint)
    if config.precision != "run" and device_of(config.accelerator) == "cpu":
        network = pack(network)
    own = OwnMetrics(_own_metrics(config, checkpoint), source.content)
    module = QueryInstModule(network, evaluators, _postprocess(config, checkpoint), own_metrics=own)
    _validate(module, config, checkpoint, source)
    for stage in stages:
        prefix = "" if stage == -1 else f"stage_{stage + 1}/"
        print(f"{f'stage {stage + 1}' if prefix else ''}\n{table(module.metrics, source.categories.names, prefix)}")
    if evaluators[stages[-1]].diagnosis:
        print(f"\nwhy AP is nearly 0: {evaluators[stages[-1]].diagnosis}")
    met, said = wanted.judge(module.metrics, prefix) if wanted else (True, "")
    if said:
        print(f"\n{said}")
    if output:
        annotations = source.path.as_posix()
        content = {"checkpoint": config.checkpoint, "annotations": annotations, "metrics": module.metrics}
        write(output, {**content, "expected": asdict(wanted) | {"met": met}} if wanted else content)
    return met


def _elastic(config: EvaluateConfig, checkpoint: "Checkpoint", source: "CocoFile", output: Path | None) -> None:
    from queryinst.lightning.elastic import ElasticModule, chart, table
    from queryinst.structures import COUNTED
    from queryinst.studies.results import write

    every, trained = checkpoint.config.model.num_proposals, checkpoint.config
    numbers = config.proposals or [max(1, every * quarters // 4) for quarters in (4, 3, 2, 1)]
    if max(numbers) > every:
        raise UserError(f"proposals must be at most {every}, as many as the model has; got {max(numbers)}")
    module = ElasticModule(
        _network(config, checkpoint),
        source.content,
        sorted(set(numbers)),
        _postprocess(config, checkpoint),
        config.backend,
        config.max_detections or COUNTED,
    )
    _validate(module, config, checkpoint, source)
    module.add_cost(-(-trained.augmentation.test_short_side // 32) * 32)
    print(table(module.rows))
    if output:
        annotations = source.path.as_posix()
        write(output, {"checkpoint": config.checkpoint, "annotations": annotations, "rows": module.rows})
        output.with_suffix(".png").write_bytes(chart(module.rows))
        print(f"drawn in {output.with_suffix('.png')}")


def _validate(module: "QueryInstModule", config: EvaluateConfig, checkpoint: "Checkpoint", source: "CocoFile") -> None:
    """Run a module over the data set, as the training run did."""
    from queryinst.data.collate import FixedSampler
    from queryinst.data.datamodule import loader
    from queryinst.data.dataset import CocoDataset
    from queryinst.data.transforms import EvaluationGeometry
    from queryinst.lightning.trainer import trainer_of

    dataset = CocoDataset(source.images, EvaluationGeometry(checkpoint.config.augmentation))
    batch = config.batch_size or checkpoint.config.data.batch_size
    trained = checkpoint.config.trainer
    precision = trained.precision if config.precision == "run" else "32-true"  # a deployed network has its own
    settings = {"accelerator": config.accelerator, "precision": precision, "devices": 1, "logger": False}
    limit = trained.max_val_batches if config.images is None else None
    if limit and limit * batch < len(dataset):
        print(
            f"note: {limit * batch} of {len(dataset)} images, as in this run (trainer.max_val_batches={limit}); "
            "images=FOLDER annotations=FILE evaluates all"
        )
    trainer = trainer_of({**settings, "limit_val_batches": limit})
    trainer.validate(module, loader(dataset, FixedSampler(len(dataset)), batch, config.num_workers), verbose=False)


if __name__ == "__main__":
    main()
