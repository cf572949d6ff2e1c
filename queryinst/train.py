"""`python -m queryinst.train`: train a recipe, evaluate it, and show it.

    python -m queryinst.train                                         the small model on the embedded data
    python -m queryinst.train data=coco data.root=FOLDER              the same on your own data
    python -m queryinst.train +experiment=ms_crop_3x_pro300           a recipe of the model zoo
    python -m queryinst.train model.num_stages=4 seed=1               any setting of queryinst/config.py

The same command again resumes an interrupted run and skips a finished one.
"""

from queryinst.config import TrainConfig
from queryinst.studies.command import command


@command("config", TrainConfig)
def main(config: TrainConfig) -> None:
    from queryinst.studies.job import run

    run(config)


if __name__ == "__main__":
    main()
