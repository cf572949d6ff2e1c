"""Masks to COCO run-length codes: traced, against pasting into the image and encoding that."""

import itertools
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from queryinst.benchmarks.frame import Results, table
from queryinst.benchmarks.rounds import alternate
from queryinst.ops.codes import encode_all
from queryinst.ops.masks import Rle

PIXELS = 200_000_000  # of all masks that the plain way pastes at a time: some 3 GB


class MaskTimes(NamedTuple):
    """Median seconds for all masks, and the pixels in which the two differ."""

    ours: float
    plain: float
    different: int


def measure(count: int, height: int, width: int, rounds: int, seed: int = 0) -> MaskTimes:
    """Time both ways on the same random masks and boxes."""
    size = (height, width)
    probabilities, boxes = predictions(count, height, width, seed)
    together = max(1, PIXELS // (height * width))

    def ours() -> list[Rle]:
        return encode_all(probabilities, boxes, size)

    def plain() -> list[Rle]:
        parts = zip(
            torch.from_numpy(probabilities).split(together), torch.from_numpy(boxes).split(together), strict=True
        )
        pasted = itertools.chain.from_iterable(paste_whole(*part, size).numpy() for part in parts)
        return [coco_mask.encode(np.asfortranarray(mask)) for mask in pasted]

    our_seconds, plain_seconds = alternate(rounds, ours, plain)
    different = sum(
        int((coco_mask.decode(a) != coco_mask.decode(b)).sum()) for a, b in zip(ours(), plain(), strict=True)
    )
    return MaskTimes(our_seconds, plain_seconds, different)


def paste_whole(masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The published way (reference, 1.11): (N, H, W) uint8 of masks (N, s, s) sampled at every pixel of the image."""
    y = (torch.arange(size[0], device=boxes.device) + 0.5 - boxes[:, 1:2]) / (boxes[:, 3:4] - boxes[:, 1:2]) * 2 - 1
    x = (torch.arange(size[1], device=boxes.device) + 0.5 - boxes[:, 0:1]) / (boxes[:, 2:3] - boxes[:, 0:1]) * 2 - 1
    where = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3)
    return (F.grid_sample(masks[:, None], where, align_corners=False)[:, 0] >= 0.5).to(torch.uint8)


def predictions(count: int, height: int, width: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Blobs (N, 28, 28) as a mask head draws them, and boxes (N, 4) of 16 pixels up to the image's short side."""
    rng = np.random.default_rng(seed)
    grid = (np.arange(28, dtype=np.float32) + 0.5) / 14 - 1
    radius = np.hypot(grid[:, None], grid[None, :]) + 0.3 * rng.standard_normal((count, 1, 1))
    probabilities = 1 / (1 + np.exp(6 * (radius - 0.8) + rng.standard_normal((count, 28, 28))))
    side = np.exp(rng.uniform(np.log(16), np.log(min(height, width)), (count, 2)))
    centre = rng.uniform([0, 0], [width, height], (count, 2))
    boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
    return probabilities.astype(np.float32), boxes.clip(0, [width, height, width, height]).astype(np.float32)


def run(arguments: Any) -> Results:
    """Measure with as many masks, in an image as large, as the command line says."""
    height, width = arguments.height, arguments.width
    times = [{"masks": n, **measure(n, height, width, arguments.rounds)._asdict()} for n in arguments.masks]
    return {"height": height, "width": width, "times": times}


def markdown(results: Results) -> str:
    """Both times, their ratio, and the pixels in which the two differ."""
    height, width = results["height"], results["width"]
    rows = [
        (
            str(found["masks"]),
            *(f"{found[way] * 1000:.1f} ms" for way in ("ours", "plain")),
            f"{found['plain'] / found['ours']:.1f}x",
            f"{found['different']} of {found['masks'] * height * width}",
        )
        for found in results["times"]
    ]
    said = f"Masks to COCO RLE at {height}x{width}, one thread, medians"
    return f"{said}\n\n{table(['masks', 'traced', 'paste and encode', 'ratio', 'pixels that differ'], rows)}"
