"""Images for W&B with layers to switch on and off: ground truth and prediction, as classes, as objects, as boxes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from queryinst.ops.masks import LocalMask
from queryinst.visualize.draw import Layer, Picture

LARGEST = 255  # value of a pixel of a mask: more classes or objects than that are not shown
BLANK = 24  # grey of what is no image


def overlays(
    pictures: Sequence[Picture], layers: Sequence[dict[str, Layer]], names: Sequence[str], captions: Sequence[str]
) -> list[Any]:
    """A `wandb.Image` for each picture, with two masks and a set of boxes for each of its layers.

    W&B shows images side by side only where they are of one size: the smaller ones are padded below and on the right.

    A pixel of a mask says one thing only. So `LAYER` tells classes, and `LAYER objects` one object from the next, where
    they touch or overlap.

    Args:
        pictures: (H, W, 3) each.
        layers: of each picture, by name ("prediction", ...).
        names: of the classes.
        captions: of the pictures.
    """
    import wandb

    # W&B keeps one table of names a layer, the same for all images.
    classes = {label + 1: name for label, name in enumerate(names[:LARGEST])}
    most = max((len(layer.labels) for of in layers for layer in of.values()), default=0)
    objects = {number: f"object {number}" for number in range(1, min(most, LARGEST) + 1)}
    images = []
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    for picture, of_picture, caption in zip(pictures, layers, captions, strict=True):
        canvas = np.full((height, width, 3), BLANK, np.uint8)
        canvas[: picture.shape[0], : picture.shape[1]] = picture
        masks, boxes = {}, {}
        for name, layer in of_picture.items():
            values = [label + 1 for label in layer.labels]
            for key, each, table in ((name, values, classes), (f"{name} objects", range(1, most + 1), objects)):
                masks[key] = {"mask_data": painted(layer.masks, each, (height, width)), "class_labels": table}
            seen = zip(layer.masks, values, layer.captions, strict=True)
            drawn = [_box(mask, value, text) for mask, value, text in seen if mask.bitmap.any()]
            boxes[name] = {"class_labels": classes, "box_data": drawn}
        images.append(wandb.Image(Image.fromarray(canvas), caption=caption, masks=masks, boxes=boxes, file_type="jpg"))
    return images


def painted(masks: Sequence[LocalMask], values: Sequence[int], size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W) uint8 with a value for the pixels of each mask, 0 elsewhere; the first mask lies on top.

    A value above 255 is left out.
    """
    canvas = np.zeros(size, np.uint8)
    for mask, value in reversed(list(zip(masks, values, strict=False))):
        if value <= LARGEST:
            height, width = mask.bitmap.shape
            part = canvas[mask.top : mask.top + height, mask.left : mask.left + width]
            part[mask.bitmap.astype(bool)] = value
    return canvas


def _box(mask: LocalMask, value: int, caption: str) -> dict[str, Any]:
    """The box around a mask that is not empty, as W&B wants it."""
    rows, columns = np.flatnonzero(mask.bitmap.any(1)), np.flatnonzero(mask.bitmap.any(0))
    return {
        "position": {
            "minX": int(mask.left + columns[0]),
            "maxX": int(mask.left + columns[-1] + 1),
            "minY": int(mask.top + rows[0]),
            "maxY": int(mask.top + rows[-1] + 1),
        },
        "domain": "pixel",
        "class_id": value,
        "box_caption": caption,
    }
