"""The embedded data set `shapes`: a COCO folder that the project makes itself, in seconds, the same everywhere.

An image is a function of (seed, split, index): a muted textured background with 1 to 12 textured shapes that occlude
each other, drop shadows, and noise; one in forty is crowded. A category has a typical hue, as things in the world
have, and one object in ten goes against it. An image is drawn four times as large and reduced, so that edges are soft
and annotations are finer than a pixel. As in real data there are tiny objects, masks in several parts, crowd regions,
images without objects, a category that never occurs, category ids with gaps, and all three ways of writing a mask:
polygons, uncompressed and compressed RLE. The rest of the framework knows the result only as COCO data.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from queryinst.config import ShapesConfig
from queryinst.data.drawing import OUTLINES, Rng, background, paint, place, silhouette, texture, typical
from queryinst.data.folder import make_folder
from queryinst.ops.masks import LocalMask, encode, run_lengths

VERSION = 2  # of what is drawn; part of the data set's fingerprint
CATEGORIES = {
    3: "circle",
    7: "square",
    8: "triangle",
    15: "star",
    22: "ring",
    40: "cross",
    41: "crescent",
    90: "hexagon",
}
ABSENT = 90  # the category without instances
FINE = 4  # drawn so many times as large
LEAST_VISIBLE = 0.5  # no object is covered more than this leaves
FIRST_ID = {"train": 1, "val": 500_001}  # image ids of the splits

Picture = NDArray[np.uint8]
Annotation = dict[str, Any]


def fingerprint(config: ShapesConfig) -> dict[str, Any]:
    """What the data set is a function of."""
    return {"generator": "shapes", "version": VERSION, **asdict(config)}


def make(root: Path, config: ShapesConfig) -> None:
    """Write the data set to `root` unless it is there already: `images/{train,val}` and `annotations/instances_*.json`.

    It appears as a whole or not at all: everything is written beside it and renamed at the end.

    Raises:
        UserError: `root` holds something else.
    """
    make_folder(root, fingerprint(config), lambda folder, split, indices: _write(folder, split, indices, config))


def _write(root: Path, split: str, indices: Iterable[int], config: ShapesConfig) -> None:
    """One split: its images and its annotation file."""
    folder = root / "images" / split
    folder.mkdir(parents=True)
    content: dict[str, Any] = {
        "info": {"description": "QueryInst's embedded data set", "made_from": fingerprint(config)},
        "categories": [{"id": key, "name": name, "supercategory": "shape"} for key, name in CATEGORIES.items()],
        "images": [],
        "annotations": [],
    }
    for index in indices:
        picture, annotations = draw(config, split, index)
        image_id = FIRST_ID[split] + index
        name, (height, width) = f"{image_id:012d}.jpg", picture.shape[:2]
        (folder / name).write_bytes(
            cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes()
        )
        content["images"].append({"id": image_id, "file_name": name, "height": height, "width": width})
        for annotation in annotations:
            content["annotations"].append({"id": len(content["annotations"]) + 1, "image_id": image_id, **annotation})
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def draw(config: ShapesConfig, split: str, index: int) -> tuple[Picture, list[Annotation]]:
    """One image (H, W, 3) uint8 RGB and its annotations, without ids."""
    rng = np.random.default_rng([config.seed, list(FIRST_ID).index(split), index])
    width, height = image_size(rng, config.side)
    scene = _Scene(rng, width, height)
    if rng.random() < 0.03:
        return scene.finish(), []
    if rng.random() < 0.05:
        scene.add_crowd()
    crowded = rng.random() < 0.025
    for _ in range(int(rng.integers(7, 13) if crowded else min(rng.geometric(0.5), 12))):
        scene.add(rng.choice([key for key in CATEGORIES if key != ABSENT]), _radius(rng, config.side))
    return scene.finish(), scene.annotations()


def image_size(rng: Rng, side: int) -> tuple[int, int]:
    """Width and height."""
    short = side * 3 // 4
    return [(side, side), (side, short), (short, side)][rng.choice(3, p=[0.6, 0.2, 0.2])]


def shadow_of(rng: Rng) -> tuple[float, float, float]:
    """An object's shadow, as `paint` takes it."""
    return rng.uniform(1, 4), rng.uniform(1, 4), rng.uniform(0.2, 0.6)


def _radius(rng: Rng, side: int) -> float:
    """Log-uniform from a seventh to a third of the image, and one in forty tiny."""
    low, high = (0.02, 0.03) if rng.random() < 0.025 else (0.14, 0.34)
    return float(side * np.exp(rng.uniform(np.log(low), np.log(high))))


class _Scene:
    """An image in the making: the picture at its own size, and at four times the size which object owns each pixel."""

    def __init__(self, rng: Rng, width: int, height: int) -> None:
        self.rng, self.width, self.height = rng, width, height
        self.picture = background(rng, width, height)
        self.owner = np.zeros((height * FINE, width * FINE), np.uint8)  # 0: background; the n-th object has n
        self.areas: list[int] = []  # of each object, before anything covered it
        self.visible: list[int] = []  # what is left of them
        self.categories: list[int] = []
        self.crowds: set[int] = set()

    def add(self, category: int, radius: float) -> None:
        """Draw an object in front of all others where it hides none of them too much, or give up after a few tries."""
        for _ in range(8):
            centre = self.rng.uniform(0.08, 0.92, 2) * [self.width, self.height]
            mask = self._silhouette(place(OUTLINES[CATEGORIES[category]](self.rng), centre, radius, self.rng))
            left = self.visible - self._covered(mask)
            if np.count_nonzero(mask) >= 10 * FINE**2 and all(left >= LEAST_VISIBLE * np.array(self.areas)):
                self._paint(mask, category)
                return

    def add_crowd(self) -> None:
        """A cluster of small circles annotated as one crowd region."""
        centre = self.rng.uniform([0.2, 0.2], [0.8, 0.8]) * [self.width, self.height]
        mask = np.zeros(self.owner.shape, bool)
        for _ in range(self.rng.integers(8, 16)):
            spot = centre + self.rng.normal(0, 0.1 * self.width, 2)
            mask |= self._silhouette(place(OUTLINES["circle"](self.rng), spot, self.rng.uniform(3, 5), self.rng))
        if mask.any():
            self._paint(mask, 3)
            self.crowds.add(len(self.areas))

    def _silhouette(self, outline: list[NDArray[np.float64]]) -> NDArray[np.bool_]:
        return silhouette(outline, self.height, self.width, FINE)

    def _covered(self, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How much of each object drawn so far `mask` covers."""
        return np.bincount(self.owner[mask], minlength=len(self.areas) + 1)[1:]

    def _paint(self, mask: NDArray[np.bool_], category: int) -> None:
        shadow = shadow_of(self.rng)
        colours = typical(self.rng, list(CATEGORIES).index(category), len(CATEGORIES))
        paint(self.picture, mask, texture(self.rng, self.width, self.height, colours), shadow)
        self.visible = [*(self.visible - self._covered(mask)).tolist(), int(np.count_nonzero(mask))]
        self.areas.append(self.visible[-1])
        self.categories.append(category)
        self.owner[mask] = len(self.areas)

    def finish(self) -> Picture:
        """The picture with noise, (H, W, 3) uint8."""
        noise = self.rng.normal(0, self.rng.uniform(2, 10), self.picture.shape)
        return (self.picture + noise).clip(0, 255).astype(np.uint8)

    def annotations(self) -> list[Annotation]:
        found = []
        for number, category in enumerate(self.categories, 1):
            crowd = number in self.crowds
            annotation = _annotate(self.rng, (self.owner == number).astype(np.uint8), crowd)
            found.append({"category_id": int(category), "iscrowd": int(crowd), **annotation})
        return found


def _annotate(rng: Rng, fine: NDArray[np.uint8], crowd: bool) -> Annotation:
    """Box, area and segmentation of a mask drawn at four times the size; crowd regions are RLE, as in COCO."""
    opened = cv2.morphologyEx(
        fine, cv2.MORPH_OPEN, np.ones((FINE + 1, FINE + 1), np.uint8)
    )  # without slivers thinner than a pixel
    fine = np.asarray(opened, np.uint8) if opened.any() else fine
    coarse = cv2.resize(fine.astype(np.float32), None, fx=1 / FINE, fy=1 / FINE, interpolation=cv2.INTER_AREA) >= 0.5
    x, y, width, height = cv2.boundingRect(fine)
    contours, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    outer = [c for c, links in zip(contours, hierarchy[0], strict=True) if links[3] < 0]
    parts = [cv2.approxPolyDP(c, 0.7, closed=True)[:, 0] for c in outer]
    parts = [(part + 0.5) / FINE for part in parts if len(part) >= 3]
    way = rng.random()
    if crowd or way > 0.7 or len(outer) < len(contours) or not parts:  # a hole cannot be written as a polygon
        rle = encode(LocalMask(coarse.astype(np.uint8), 0, 0), coarse.shape)
        if crowd or way > 0.85:
            segmentation: Any = {"size": list(coarse.shape), "counts": run_lengths(rle).tolist()}
        else:
            segmentation = {"size": list(coarse.shape), "counts": rle["counts"].decode()}
    else:
        segmentation = [np.round(part, 3).ravel().tolist() for part in parts]
    return {
        "bbox": [x / FINE, y / FINE, width / FINE, height / FINE],
        "area": float(fine.sum()) / FINE**2,
        "segmentation": segmentation,
    }
