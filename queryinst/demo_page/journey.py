"""What a stage found, as HTML: the masks, the boxes on their way from stage to stage, and every step as a still."""

import base64
import itertools
from collections.abc import Sequence
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from queryinst.visualize.draw import Picture, at_most, colour

SIDE = 640  # pixels of the picture behind the boxes; the SVG scales it
MARGIN = 0.04  # round a picture, of its longer side: boxes are not clipped to it
HOLD, MOVE, LAST = 0.6, 0.7, 1.6  # seconds


def journey(picture: Picture, masks: Picture, trail: NDArray[np.float32], captions: Sequence[str]) -> str:
    """HTML of three things: the masks, moving boxes beside them, and a strip of stills below.

    Args:
        picture: (H, W, 3) uint8 RGB.
        masks: the picture with masks drawn on it, of any size.
        trail: (stages + 1, D, 4) xyxy in pixels of the picture: the proposals, then each stage.
        captions: D of them, for the pointer.
    """
    height, width = picture.shape[:2]
    margin = MARGIN * max(height, width)
    frame = f'viewBox="{-margin:.1f} {-margin:.1f} {width + 2 * margin:.1f} {height + 2 * margin:.1f}"'
    image = f'<image id="film-picture" width="{width}" height="{height}" href="{_data(_light(picture))}"/>'
    names = ["proposals", *(f"stage {number}" for number in range(1, len(trail)))]
    order = range(len(captions))[::-1]  # the best lies on top: a query may have been found with several classes
    moving = "".join(_moving(trail[:, index], colour(index), captions[index]) for index in order)
    stills = "".join(
        f'<figure><svg {frame} role="img" aria-label="boxes: {name}"><use href="#film-picture"/>'
        f"{''.join(_rectangle(boxes[index], colour(index)) for index in order)}</svg>"
        f"<figcaption>{name}</figcaption></figure>"
        for name, boxes in zip(names, trail, strict=True)
    )
    padding = 100 * margin / (width + 2 * margin)
    return f'''<div class="film">
<figure><img src="{_data(masks)}" style="padding: {padding:.2f}%" alt="masks of {names[-1]}">
<figcaption>masks of {names[-1]}</figcaption></figure>
<figure><svg class="moving" {frame} role="img" aria-label="boxes on their way to {names[-1]}">{image}{moving}</svg>
<figcaption>{_clock(names)}</figcaption></figure></div>
<div class="film stills">{stills}</div>'''


def _light(picture: Picture) -> Picture:
    """Small, and so light that boxes stand out."""
    return (at_most(picture, SIDE) // 2 + 110).astype(np.uint8)


def _data(picture: Picture) -> str:
    """A picture as a data URI: nothing is written anywhere."""
    _, code = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return f"data:image/jpeg;base64,{base64.b64encode(code.tobytes()).decode()}"


def _sides(box: NDArray[np.float32]) -> dict[str, float]:
    """A box xyxy as SVG has it; one that is inside out is nothing."""
    left, top, right, bottom = map(float, box)
    return {"x": left, "y": top, "width": max(0.0, right - left), "height": max(0.0, bottom - top)}


def _rectangle(box: NDArray[np.float32], paint: tuple[int, int, int], inside: str = "") -> str:
    sides = " ".join(f'{name}="{value:.1f}"' for name, value in _sides(box).items())
    return f'<rect {sides} stroke="rgb{paint}">{inside}</rect>'


def _moving(boxes: NDArray[np.float32], paint: tuple[int, int, int], caption: str) -> str:
    """One box that holds still at every stage, moves on to the next, and begins again."""
    times, seconds = _times(len(boxes))
    each = [_sides(box) for box in boxes]
    animations = "".join(
        f'<animate attributeName="{name}" values="{";".join(f"{s[name]:.1f};{s[name]:.1f}" for s in each)}" '
        f'keyTimes="{times}" dur="{seconds:.1f}s" repeatCount="indefinite"/>'
        for name in each[0]
    )
    return _rectangle(boxes[-1], paint, f"<title>{escape(caption)}</title>{animations}")


def _times(frames: int) -> tuple[str, float]:
    """SVG's keyTimes: begin and end of every frame's stillness as shares of the whole, and the whole in seconds."""
    spans = list(itertools.chain.from_iterable((HOLD, MOVE) for _ in range(frames - 1)))
    moments = list(itertools.accumulate([*spans, LAST], initial=0.0))
    return ";".join(f"{moment / moments[-1]:.4f}" for moment in moments), moments[-1]


def _clock(names: Sequence[str]) -> str:
    """The names of the frames, of which the present one is dark, in step with the boxes."""
    _, seconds = _times(len(names))
    words = []
    for index, name in enumerate(names):
        begin = max(0.0, index * (HOLD + MOVE) - MOVE / 2) / seconds
        end = 1.0 if index == len(names) - 1 else (index * (HOLD + MOVE) + HOLD + MOVE / 2) / seconds
        values, times = ("0.3;1;0.3", f"0;{begin:.4f};{end:.4f}") if index else ("1;0.3", f"0;{end:.4f}")
        words.append(
            f'<text x="{50 + 90 * index}" y="14">{name}<animate attributeName="opacity" calcMode="discrete" '
            f'values="{values}" keyTimes="{times}" dur="{seconds:.1f}s" repeatCount="indefinite"/></text>'
        )
    return f'<svg class="clock" viewBox="0 0 {90 * len(names) + 10} 20">{"".join(words)}</svg>'
