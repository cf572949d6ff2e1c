"""What a data set is like, as far as settings depend on it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from queryinst.config import DataConfig
from queryinst.data.coco import CocoFile
from queryinst.data.datamodule import open_split
from queryinst.errors import UserError

LOOKED_AT = 2000  # images whose objects are read, evenly spread over the file: of COCO, in a second


@dataclass(frozen=True)
class Facts:
    """What there is to train on. Lengths are in pixels of the image files."""

    images: int
    short: int  # median of the images' short sides
    long: int  # median of their long sides
    objects: float  # mean of an image
    most: int  # of an image, in training or validation
    small: float  # side that a tenth of the objects is below: square root of the area of a box


TYPICAL = Facts(images=1000, short=480, long=640, objects=7.3, most=60, small=20.0)  # as of COCO


def facts(data: DataConfig) -> Facts:
    """Look at the annotation files. Raises UserError where they cannot be used, or nothing in them can be learned."""
    train, val = open_split(data, "train"), open_split(data, "val")
    images = train.trainable(data.min_image_side, keep_empty=False)
    if not len(images):
        raise UserError(
            f"{train.path} has no image to train on: none with objects and sides of {data.min_image_side} pixels "
            "or more"
        )
    sizes = train.index.sizes[images.positions]
    every = -(-len(images) // LOOKED_AT)
    return Facts(
        images=len(images),
        short=int(np.median(sizes.min(axis=1))),
        long=int(np.median(sizes.max(axis=1))),
        objects=float(train.index.learnable[images.positions].mean()),
        most=max(file.index.summary().most for file in (train, val)),
        small=float(np.quantile(_sides(train, images.positions[::every]), 0.1)),
    )


def _sides(source: CocoFile, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """(objects,) square roots of the areas of boxes, of the images at these positions."""
    found = [annotation for position in positions for annotation in source.index.annotations(int(position))]
    boxes = np.array([a["bbox"] for a in found if not a.get("iscrowd")], np.float64).reshape(-1, 4)
    return np.sqrt(boxes[:, 2:].clip(0).prod(axis=1))
