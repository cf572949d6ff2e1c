"""Images and annotations like COCO's, made for measuring: no meaning, but the sizes, the counts and the formats."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from queryinst.ops import masks as mask_ops

HEIGHT, WIDTH = 480, 640
CATEGORIES = [{"id": number, "name": f"class {number}"} for number in range(1, 81)]


def segmentation(rng: np.random.Generator, as_rle: bool = False) -> tuple[Any, list[float], float]:
    """Segmentation, box (x, y, width, height) and area of an object whose side is between 8 and 320 pixels."""
    side = np.exp(rng.uniform(np.log(8), np.log(320)))  # as many small as medium and large ones, as in COCO
    radii = side / 2 * np.array([rng.uniform(0.7, 1.3), rng.uniform(0.7, 1.3)])
    vertices = int(rng.integers(15, 26))
    angles = np.linspace(0, 2 * np.pi, vertices, endpoint=False)
    centre = rng.uniform([0, 0], [WIDTH, HEIGHT])
    outline = centre + radii * rng.uniform(0.7, 1.0, (vertices, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    outline = outline.clip(0, [WIDTH, HEIGHT]).round(2)
    low, high = outline.min(axis=0), outline.max(axis=0)
    box = [float(value) for value in (*low, *(high - low).round(2))]
    area = round(float(cv2.contourArea(outline.astype(np.float32))), 4)
    if not as_rle:
        return [outline.ravel().tolist()], box, area
    rle = mask_ops.encode(mask_ops.LocalMask(mask_ops.rasterise([[outline]], HEIGHT, WIDTH)[0], 0, 0), (HEIGHT, WIDTH))
    return {**rle, "counts": rle["counts"].decode()}, box, area


def picture(rng: np.random.Generator) -> NDArray[np.uint8]:
    """(HEIGHT, WIDTH, 3) with smooth parts, edges and a little noise: a JPEG of it is as large as a photograph's."""
    coarse = rng.integers(0, 256, (15, 20, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
    edges = cv2.resize(rng.integers(-30, 31, (60, 80, 3)).astype(np.float32), (WIDTH, HEIGHT), interpolation=0)
    noise = rng.normal(0, 6, smooth.shape)
    return np.asarray((smooth + edges + noise).clip(0, 255), np.uint8)


def make(folder: Path, images: int, instances: int, seed: int = 0) -> Path:
    """Write JPEG images with `instances` objects each and their annotation file, whose path is returned.

    One object in ten is a run-length code, the others are polygons.
    """
    rng = np.random.default_rng(seed)
    content: dict[str, list[Any]] = {"images": [], "categories": CATEGORIES, "annotations": []}
    folder.mkdir(parents=True)
    for image in range(1, images + 1):
        name = f"{image}.jpg"
        Image.fromarray(picture(rng)).save(folder / name, quality=90)
        content["images"].append({"id": image, "file_name": name, "height": HEIGHT, "width": WIDTH})
        for _ in range(instances):
            number = len(content["annotations"]) + 1
            outline, box, area = segmentation(rng, as_rle=number % 10 == 0)
            content["annotations"].append(_annotation(number, image, int(rng.integers(1, 81)), outline, box, area))
    path = folder / "instances.json"
    path.write_text(json.dumps(content))
    return path


def _annotation(number: int, image: int, category: int, outline: Any, box: list[float], area: float) -> dict[str, Any]:
    return {
        "segmentation": outline,
        "area": area,
        "iscrowd": 0,
        "image_id": image,
        "bbox": box,
        "category_id": category,
        "id": number,
    }


def write_annotations(path: Path, images: int, annotations: int, seed: int = 0) -> None:
    """An annotation file without its images, written piece by piece; outlines repeat after 5,000 objects."""
    rng = np.random.default_rng(seed)
    pool = []
    for number in range(min(5000, annotations)):
        outline, box, area = segmentation(rng, as_rle=number % 100 == 0)
        body = json.dumps({"segmentation": outline, "area": area, "iscrowd": 0, "bbox": box})
        pool.append(body.removesuffix("}"))
    with path.open("w") as file:
        file.write('{"categories": ' + json.dumps(CATEGORIES) + ', "images": [')
        for image in range(1, images + 1):
            entry = {"id": image, "file_name": f"{image:012}.jpg", "height": HEIGHT, "width": WIDTH, "license": 1}
            file.write((", " if image > 1 else "") + json.dumps(entry))
        file.write('], "annotations": [')
        owners = rng.integers(1, images + 1, annotations).tolist()
        classes = rng.integers(1, 81, annotations).tolist()
        for number, (image, category) in enumerate(zip(owners, classes, strict=True), 1):
            ids = f', "image_id": {image}, "category_id": {category}, "id": {number}}}'
            file.write((", " if number > 1 else "") + pool[number % len(pool)] + ids)
        file.write("]}")
