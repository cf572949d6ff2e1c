"""Validation photographs with their annotations, what QueryInst finds and what Mask R-CNN finds, and cuts of them.

    python experiments/real_photos/pictures.py FACADE best.ckpt mask_rcnn.json pictures.jpg

mask_rcnn.json is a COCO results file, as `mask_rcnn.py --results` writes it. Of both networks, as many of the best
detections are drawn as the photograph has objects: a threshold would favour the one whose scores it suits.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np

import queryinst
from queryinst.data.coco import CocoFile
from queryinst.lightning.callbacks.pictures import annotated
from queryinst.ops.masks import decode
from queryinst.visualize import draw

SHOWN = (3, 20, 45, 70)  # of the 83 validation photographs
CUT = slice(160, 352)  # rows and columns of the 512 x 512 pixels that are shown once more, enlarged
SIDE = 336  # pixels of each picture in the grid


def main(facade: Path, checkpoint: Path, results: Path, to: Path) -> None:
    source = CocoFile(facade / "valid" / "_annotations.coco.json", facade / "valid")
    found: dict[int, list[dict]] = {}
    for entry in json.loads(results.read_text()):
        found.setdefault(entry["image_id"], []).append(entry)
    model = queryinst.load(checkpoint)
    rows = []
    for image in (source.images[index] for index in SHOWN):
        truth = annotated(image, source)
        count = len(truth.masks)
        ours = model.predict(image.path, score=0.0)[:count]
        theirs = sorted(found.get(image.id, []), key=lambda entry: -entry["score"])[:count]
        layers = [
            (truth.masks, truth.labels),
            (ours.local_masks, ours.labels.tolist()),
            (
                [decode(e["segmentation"]) for e in theirs],
                [source.categories.ids.index(e["category_id"]) for e in theirs],
            ),
        ]
        nothing = [""] * count
        drawn = [draw.overlay(ours.image, masks, nothing[: len(masks)], 0.35, labels) for masks, labels in layers]
        rows += [drawn, [picture[CUT, CUT] for picture in drawn]]
    headings = ["annotated", "QueryInst", "Mask R-CNN"]
    half = len(rows) // 2  # two photographs side by side
    grid = draw.grid([a + b for a, b in zip(rows[:half], rows[half:], strict=True)], headings * 2, SIDE)
    to.write_bytes(cv2.imencode(to.suffix, np.ascontiguousarray(grid[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])[1])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
