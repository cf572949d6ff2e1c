"""Data in a format that is not COCO's: the project's own shapes, each image with a LabelMe file beside it."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask

from queryinst.config import ShapesConfig
from queryinst.data import shapes


def outline(segmentation: Any) -> list[list[float]]:
    """The largest polygon of an object, which LabelMe has one of."""
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = mask.frPyObjects(segmentation, *segmentation["size"])
        contours, _ = cv2.findContours(mask.decode(segmentation), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        polygons = [contour.reshape(-1, 2) for contour in contours]
    else:
        polygons = [np.reshape(polygon, (-1, 2)) for polygon in segmentation]
    return max(polygons, key=lambda polygon: cv2.contourArea(polygon.astype(np.float32))).tolist()


def main(train: int = 600, val: int = 100) -> None:
    shapes.make(Path("data/shapes"), ShapesConfig(train=train, val=val))
    for split in ("train", "val"):
        content = json.loads(Path(f"data/shapes/annotations/instances_{split}.json").read_text())
        names = {category["id"]: category["name"] for category in content["categories"]}
        folder = Path("data/labelme", split)
        folder.mkdir(parents=True, exist_ok=True)
        for image in content["images"]:
            own = [one for one in content["annotations"] if one["image_id"] == image["id"] and not one["iscrowd"]]
            drawn = [{"label": names[one["category_id"]], "points": outline(one["segmentation"])} for one in own]
            size = {"imageHeight": image["height"], "imageWidth": image["width"]}
            file = {"imagePath": image["file_name"], **size, "shapes": drawn}
            (folder / image["file_name"]).with_suffix(".json").write_text(json.dumps(file))
            shutil.copy(Path("data/shapes/images", split, image["file_name"]), folder)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
