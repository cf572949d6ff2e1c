"""Masks, contours, classes, scores and tracks on an image; images in a grid."""

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from queryinst.ops.masks import LocalMask, paste
from queryinst.structures import Detections

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
FONT = cv2.FONT_HERSHEY_SIMPLEX
READABLE = 400  # pixels of the longer side
GOLDEN = 0.618034  # of a turn round the colour circle: neighbours in number are far apart in colour


class Layer(NamedTuple):
    """Some objects of an image, the first on top."""

    masks: Sequence[LocalMask]
    labels: Sequence[int]
    captions: Sequence[str]
    numbers: Sequence[int] | None = None  # what decides on their colours: in video their tracks, else their places


def write(picture: Picture, path: Path) -> None:
    """Write a picture as PNG, and make its folder. `cv2.imwrite` says nothing where the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())


def colour(number: int) -> tuple[int, int, int]:
    """The colour of the n-th thing, RGB."""
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN % 1, 0.85 - 0.25 * (number % 2), 1.0)
    return int(red * 255), int(green * 255), int(blue * 255)


def overlay(
    picture: Picture,
    masks: Sequence[LocalMask],
    captions: Sequence[str],
    opacity: float = 0.45,
    numbers: Sequence[int] | None = None,
) -> Picture:
    """Draw masks, their contours and captions over a copy of an image; the first lies on top.

    `numbers` decide on the colours; by default each mask has its own. An empty mask is left out. Line width and letters
    grow with the image; an image too small for letters is drawn a whole number of times as large.
    """
    zoom = max(1, READABLE // max(picture.shape[:2]))
    canvas = _enlarge(picture, zoom)
    masks = [LocalMask(_enlarge(mask.bitmap, zoom), mask.left * zoom, mask.top * zoom) for mask in masks]
    unit = max(1, round(max(canvas.shape[:2]) / 500))
    paints = [colour(number) for number in (range(len(masks)) if numbers is None else numbers)]
    for paint, mask in reversed(list(zip(paints, masks, strict=True))):
        if not mask.bitmap.any():
            continue
        height, width = mask.bitmap.shape
        part = canvas[mask.top : mask.top + height, mask.left : mask.left + width]
        blended = np.arange(256)[:, None] * (1 - opacity) + np.array(paint) * opacity  # of byte, channel
        cv2.copyTo(cv2.LUT(part, blended.astype(np.uint8)[None]), mask.bitmap, part)
        contours, _ = cv2.findContours(mask.bitmap, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, contours, -1, paint, unit, offset=(mask.left, mask.top))
    for paint, mask, caption in reversed(list(zip(paints, masks, captions, strict=True))):
        if mask.bitmap.any():
            _caption(canvas, caption, mask.left, mask.top, paint, unit)
    return canvas


def _enlarge(picture: Picture, zoom: int) -> Picture:
    if zoom == 1 or not picture.size:
        return picture.copy()
    return np.asarray(cv2.resize(picture, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _caption(canvas: Picture, text: str, left: int, top: int, paint: tuple[int, int, int], unit: int) -> None:
    size = 0.32 + 0.1 * unit
    (width, height), below = cv2.getTextSize(text, FONT, size, unit)
    x = max(0, min(left, canvas.shape[1] - width))
    y = max(height + below, min(top, canvas.shape[0] - 1))
    cv2.rectangle(canvas, (x, y - height - below), (x + width, y), tuple(v // 3 for v in paint), -1)
    cv2.putText(canvas, text, (x, y - below + 1), FONT, size, (255, 255, 255), unit, cv2.LINE_AA)


def predictions(picture: Picture, detections: Detections, names: Sequence[str]) -> Picture:
    """An image with what was found in it: mask, contour, class and score."""
    return overlay_layer(picture, detected(detections, names))


def overlay_layer(picture: Picture, layer: Layer) -> Picture:
    """`overlay` of all that a layer says."""
    return overlay(picture, layer.masks, layer.captions, numbers=layer.numbers)


def detected(detections: Detections, names: Sequence[str]) -> Layer:
    """What was found in an image, best first; see `captions`."""
    found = detections.cpu()
    masks = [paste(mask, box, found.size) for mask, box in zip(found.masks.numpy(), found.boxes.numpy(), strict=True)]
    return Layer(masks, found.labels.tolist(), captions(found, names), tracks_of(found))


def tracks_of(detections: Detections) -> list[int] | None:
    """The tracks of detections, which decide on their colours; None where there are none."""
    return None if detections.tracks is None else detections.tracks.tolist()


def captions(detections: Detections, names: Sequence[str]) -> list[str]:
    """Track, where there are any, class and score of each."""
    rows = zip(detections.labels.tolist(), detections.scores.tolist(), strict=True)
    said = [f"{names[label]} {score:.2f}" for label, score in rows]
    tracks = tracks_of(detections)
    return said if tracks is None else [f"{track} {one}" for track, one in zip(tracks, said, strict=True)]


def grid(rows: Sequence[Sequence[Picture]], headings: Sequence[str], side: int = 320) -> Picture:
    """Pictures in rows and columns, each scaled into a square of `side` pixels, under a line of headings."""
    bar = np.full((28, side * len(headings), 3), 24, np.uint8)
    for column, heading in enumerate(headings):
        cv2.putText(bar, heading, (column * side + 8, 19), FONT, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    lines = [np.hstack([_in_square(picture, side) for picture in row]) for row in rows]
    return np.vstack([bar, *lines])


def at_most(picture: Picture, longest: int) -> Picture:
    """The picture, made smaller if its longer side has more pixels than `longest`."""
    return picture if max(picture.shape[:2]) <= longest else _scaled(picture, longest)


def _scaled(picture: Picture, longest: int) -> Picture:
    """The longer side has `longest` pixels; of a thin picture the shorter one keeps 1."""
    factor = longest / max(picture.shape[:2])
    height, width = (max(1, round(side * factor)) for side in picture.shape[:2])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, (width, height), interpolation=how), np.uint8)


def _in_square(picture: Picture, side: int) -> Picture:
    square = np.full((side, side, 3), 24, np.uint8)
    small = _scaled(picture, side - 4)
    square[2 : 2 + small.shape[0], 2 : 2 + small.shape[1]] = small
    return square
