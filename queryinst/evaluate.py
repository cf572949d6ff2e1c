"""`python -m queryinst.evaluate checkpoint=FILE`: COCO metrics of a trained model.

python -m queryinst.evaluate checkpoint=outputs/RUN/best.ckpt                      as at the end of the training run
python -m queryinst.evaluate checkpoint=... all_stages=true                        every stage's own results
python -m queryinst.evaluate checkpoint=... images=FOLDER annotations=FILE         on other data with the same classes
"""

from pathlib import Path

from queryinst.command_config import EvaluateConfig
from queryinst.errors import UserError
from queryinst.studies.command import command


@command("evaluate", EvaluateConfig)
def main(config: EvaluateConfig) -> None:
    if (config.images is None) != (config.annotations is None):
        raise UserError(
            "images and annotations belong together: give both, or neither for the run's own validation set"
        )
    from queryinst.checkpoints.load import load
    from queryinst.data import shapes
    from queryinst.data.coco import CocoDataset, CocoFile
    from queryinst.data.collate import FixedSampler
    from queryinst.data.datamodule import loader, open_split
    from queryinst.data.transforms import EvaluationGeometry
    from queryinst.evaluation.coco import CocoEvaluator, table
    from queryinst.lightning.module import QueryInstModule
    from queryinst.lightning.trainer import trainer_of
    from queryinst.studies.results import require_writable, write

    checkpoint = load(config.checkpoint)
    if config.images and config.annotations:
        source = CocoFile(Path(config.annotations), Path(config.images))
    else:
        data = checkpoint.config.data
        if data.shapes:
            shapes.make(Path(data.root), data.shapes)
        source = open_split(
            data, "val", f"; {config.checkpoint} was evaluated there: give images=FOLDER annotations=FILE"
        )
    checkpoint.require_classes(source.categories.ids, source.categories.names, source.path)
    if config.output:
        require_writable(Path(config.output), "output", "metrics.json")
    stages = range(checkpoint.config.model.num_stages) if config.all_stages else [-1]
    content = source.content
    evaluators = {stage: CocoEvaluator(content, config.backend) for stage in stages}
    module = QueryInstModule(checkpoint.build(), evaluators, checkpoint.config.model.postprocess)
    dataset = CocoDataset(source.images, EvaluationGeometry(checkpoint.config.augmentation))
    batch = config.batch_size or checkpoint.config.data.batch_size
    trained = checkpoint.config.trainer
    settings = {"accelerator": config.accelerator, "precision": trained.precision, "devices": 1, "logger": False}
    limit = trained.max_val_batches if config.images is None else None
    trainer = trainer_of({**settings, "limit_val_batches": limit})
    trainer.validate(module, loader(dataset, FixedSampler(len(dataset)), batch, config.num_workers), verbose=False)

    for stage in stages:
        prefix = "" if stage == -1 else f"stage_{stage + 1}/"
        print(f"{f'stage {stage + 1}' if prefix else ''}\n{table(module.metrics, source.categories.names, prefix)}")
    if evaluators[stages[-1]].diagnosis:
        print(f"\nwhy AP is nearly 0: {evaluators[stages[-1]].diagnosis}")
    if config.output:
        write(
            Path(config.output),
            {"checkpoint": config.checkpoint, "annotations": source.path.as_posix(), "metrics": module.metrics},
        )
        print(f"\nwritten to {config.output}")


if __name__ == "__main__":
    main()
