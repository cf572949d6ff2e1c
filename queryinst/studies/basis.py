"""`data=coco` alone is somebody's own data, and stands on a recipe that fits it to data and machine."""

import sys
from collections.abc import Sequence

from queryinst.studies.start import PUBLISHED, can_be_had

LARGE, SMALL = "finetune", "finetune_small"


def standing(words: Sequence[str]) -> list[str]:
    """The words of a command line that trains, with the recipe that `data=coco` stands on where none is given."""
    if "data=coco" not in words or any(word.startswith(("+experiment=", "experiment=")) for word in words):
        return list(words)
    import torch

    cpu = "trainer.accelerator=cpu" in words or not torch.accelerator.is_available()
    small = cpu and not can_be_had(PUBLISHED[100])
    if small:
        print(
            f"recipe     {SMALL}: there is no GPU, and published weights cannot be had; +experiment={LARGE} takes "
            "the published network all the same",
            file=sys.stderr,
            flush=True,
        )
    return [*words, f"+experiment={SMALL if small else LARGE}"]
