"""`python -m queryinst.train`: train a recipe, evaluate it, and show it.

    python -m queryinst.train                                         the small model on the embedded data
    python -m queryinst.train data=coco data.root=FOLDER              fine-tuning on your own data
    python -m queryinst.train +experiment=ms_crop_3x_pro300           a recipe of the model zoo
    python -m queryinst.train model.num_stages=4 seed=1               any setting of queryinst/config.py
    python -m queryinst.train -m +study=stages                        several runs, and what came of each

The same command again resumes an interrupted run and skips a finished one. dry_run=true says what it would do.
"""

from queryinst.config import TrainConfig
from queryinst.studies.command import command


@command("config", TrainConfig, sweeps=True)
def main(config: TrainConfig) -> None:
    if config.dry_run:
        from queryinst.studies.sweep_table import report_plan

        report_plan(config)
        return
    from queryinst.memory import keep_memory

    keep_memory()
    from queryinst.studies.job import run

    run(config)


if __name__ == "__main__":
    main()
