"""What both runners share: an image as the network wants it, and instances drawn on it. NumPy and Pillow only."""

import argparse
import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageOps


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", help="the exported file")
    parser.add_argument("image")
    parser.add_argument("overlay", help="the picture to write, with the instances drawn in")
    parser.add_argument("--score", type=float, default=0.3, help="draw what scores at least this")
    return parser.parse_args()


def read(path):
    """The picture, upright and in colours."""
    return ImageOps.exif_transpose(Image.open(path)).convert("RGB")


def prepare(picture, short_side, long_side):
    """(1, 3, height, width) uint8: the largest that keeps its ratio within both sides.

    Bilinear without antialiasing, as the network is evaluated; Pillow's `resize` would smooth.
    """
    width, height = picture.size
    scale = min(short_side / min(height, width), long_side / max(height, width))
    size = max(1, int(width * scale + 0.5)), max(1, int(height * scale + 0.5))
    if size != picture.size:
        matrix = (width / size[0], 0, 0, 0, height / size[1], 0)
        picture = picture.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1)[None])


def paste(mask, box, height, width):
    """Probabilities inside a box (left, top, right, bottom) to a bitmap of the image."""

    def weights(low, high, limit, cells):
        """How much each cell counts for each pixel, between the centres of both."""
        position = (np.arange(limit) + 0.5 - low) / (high - low) * cells - 0.5
        return np.maximum(0, 1 - abs(position[:, None] - np.arange(cells)))

    rows, columns = mask.shape
    return weights(box[1], box[3], height, rows) @ mask @ weights(box[0], box[2], width, columns).T >= 0.5


def draw(picture, canvas, found, record, score):
    """The picture with its instances, of which each is also printed.

    `canvas` is height, width of what the network saw, `found` its outputs for this image, and `record` what is in the
    file's metadata.
    """
    boxes, scores, labels, masks = found
    boxes = boxes / [canvas[1], canvas[0], canvas[1], canvas[0]] * np.tile(picture.size, 2)
    shown = (scores >= score) & (boxes[:, 2:] - boxes[:, :2] > record["min_side"]).all(1)
    pixels = np.array(picture, np.float32)
    kept = list(enumerate(np.flatnonzero(shown)))
    colours = [tuple(int(255 * v) for v in colorsys.hsv_to_rgb(0.618 * k % 1, 0.9, 1)) for k, _ in kept]
    for k, index in kept[::-1]:  # the best is drawn last
        inside = paste(masks[index], boxes[index], *pixels.shape[:2])
        pixels[inside] = (pixels[inside] + colours[k]) / 2
    picture = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for k, index in kept[::-1]:
        name, box = f"{record['category_names'][labels[index]]} {scores[index]:.2f}", boxes[index].round(1).tolist()
        pen.rectangle(box, outline=colours[k])
        room = picture.width - pen.textlength(name) - 2
        corner = max(min(box[0] + 2, room), 2), max(box[1], 0)
        pen.text(corner, name, fill="white", stroke_width=1, stroke_fill="black")
        print(name, box)
    return picture
