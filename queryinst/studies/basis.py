"""`data=coco` alone is somebody's own data, and stands on a recipe that fits it to data and machine."""

from collections.abc import Sequence

from queryinst.studies.beginning import PUBLISHED, ROOM, missing
from queryinst.studies.paths import quote

LARGE, SMALL = "finetune", "finetune_small"


def standing(words: Sequence[str]) -> list[str]:
    """The words of a command line that trains, with the recipe that `data=coco` stands on where none is given."""
    if "data=coco" not in words or any(word.startswith(("+experiment=", "experiment=")) for word in words):
        return list(words)
    import torch

    cpu = "trainer.accelerator=cpu" in words or not torch.accelerator.is_available()
    gone = missing(PUBLISHED[100]) if cpu else ""
    recipe = SMALL if gone else LARGE
    more = f"; with more than {int(100 / ROOM)} objects in an image it would be {PUBLISHED[300]}"
    why = (
        f"{recipe}, without a GPU and published weights ({gone}{more})"
        if gone
        else f"{recipe}, on which data=coco stands"
    )
    return [*words, f"+experiment={recipe}", f"+chosen.experiment={quote(why)}"]
