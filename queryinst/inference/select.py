"""Which instances somebody wants to see: classes by name, and one of several masks of the same thing."""

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from queryinst.checkpoints.convert import some
from queryinst.errors import UserError, nearest
from queryinst.inference.result import Classes, Result


def labels_of(wanted: Sequence[str | int], classes: Classes) -> list[int]:
    """The labels of classes given by name or category id. Raises UserError for one that the model does not have."""
    labels: set[int] = set()
    for one in [wanted] if isinstance(wanted, str) else wanted:
        named = [k for k, name in enumerate(classes.names) if name == str(one)]
        found = named or [k for k, category in enumerate(classes.ids) if str(category) == str(one)]
        if not found:
            close = nearest(str(one), classes.names)
            raise UserError(f"classes: the model has no '{one}'{close}; it knows {some(classes.names)}")
        labels.update(found)
    return sorted(labels)


def suppress(result: Result, threshold: float) -> Result:
    """Mask NMS: of two instances of a class whose masks have an IoU above `threshold`, the better one stays."""
    if len(result) < 2:
        return result
    overlap = coco_mask.iou(result.rles, result.rles, [0] * len(result))
    rivals = (overlap > threshold) & (result.labels[:, None] == result.labels)
    keep = np.ones(len(result), bool)
    for row in range(len(result)):  # best first
        if keep[row]:
            keep[row + 1 :] &= ~rivals[row, row + 1 :]
    return result[keep]
