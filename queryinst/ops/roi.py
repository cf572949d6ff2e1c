"""Reading regions out of a feature pyramid: RoIAlign with the level chosen by box size."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

STRIDES = (4, 8, 16, 32)  # of P2..P5
FINEST_SIDE = 56  # sides below 2 * 56 pixels read P2; every doubling goes one level up
SAMPLES = 2  # sampling points a side in each cell of the result
OUTSIDE = -1e4  # pixels: more than a pixel outside the map, on every level


class FeaturePyramid:
    """P2..P5, each (B, C, H / stride, W / stride), and how regions are read from them.

    `aligned`: shift by half a pixel, as published; without it a box also has a side of at least one pixel of its level.

    RoIAlign, sampling ratio 2, averaged (reference, 1.5). On a CPU every cell of the result is a weighted sum
    of 16 pixels, which is what an embedding bag computes: all levels in one call, several times faster than
    torchvision's kernel forward and backward on small images. Elsewhere torchvision's kernel does it, level by level.
    The two agree to rounding.
    """

    def __init__(self, maps: list[Tensor], aligned: bool = True) -> None:
        self.maps, self.aligned = maps, aligned
        # What is made of the maps once, for all regions that are read.
        self._table: Tensor | None = None
        self._wide: list[Tensor] = []

    def align(self, boxes: Tensor, image: Tensor, size: int) -> Tensor:
        """Pool each box from the level of its size.

        Args:
            boxes: (M, 4) xyxy pixels. No gradient flows into them.
            image: (M,) the image of the batch that each box belongs to.
            size: side of the result.

        Returns:
            (M, C, size, size)
        """
        boxes = boxes.detach()
        return self._gather(boxes, image, size) if boxes.device.type == "cpu" else self._pool(boxes, image, size)

    def _pool(self, boxes: Tensor, image: Tensor, size: int) -> Tensor:
        """By torchvision's kernel, a call a level.

        Each call takes all boxes, those of other levels moved out of the map, where the kernel reads nothing and gives
        0: to pick a level's own boxes, the host would have to wait for the device to count them.
        """
        level = pyramid_level(boxes)[:, None]
        # Boxes stay float32 under mixed precision: half precision would move them by pixels.
        wide = torch.promote_types(self.maps[0].dtype, torch.float32)
        self._wide = self._wide or [features.to(wide) for features in self.maps]
        pooled = []
        for index, (features, stride) in enumerate(zip(self._wide, STRIDES, strict=True)):
            rois = torch.cat([image[:, None], torch.where(level == index, boxes, OUTSIDE)], dim=1).to(wide)
            pooled.append(roi_align(features, rois, size, 1 / stride, SAMPLES, self.aligned))
        return functools.reduce(torch.add, pooled).to(self.maps[0].dtype)

    def _gather(self, boxes: Tensor, image: Tensor, size: int) -> Tensor:
        """By an embedding bag over a table with a row for every pixel of every level of every image."""
        if self._table is None:
            self._table = torch.cat([features.permute(0, 2, 3, 1).flatten(0, 2) for features in self.maps])
        level = pyramid_level(boxes)
        extents = torch.tensor([features.shape[-2:] for features in self.maps])  # height, width
        pixels = extents.prod(dim=1) * len(self.maps[0])
        first = pixels.cumsum(0) - pixels  # row of the first pixel of each level
        height, width = extents[level].unbind(-1)
        low, high = (boxes / torch.tensor(STRIDES)[level, None] - 0.5 * self.aligned).split(2, dim=1)
        if not self.aligned:
            high = torch.maximum(high, low + 1)
        row, row_weight = _taps(low[:, 1], high[:, 1], height, size)
        column, column_weight = _taps(low[:, 0], high[:, 0], width, size)
        start = first[level] + image * height * width
        index = (
            start.view(-1, 1, 1, 1, 1)
            + row[:, :, None, :, None] * width.view(-1, 1, 1, 1, 1)
            + column[:, None, :, None, :]
        )
        weight = row_weight[:, :, None, :, None] * column_weight[:, None, :, None, :]
        taps = (2 * SAMPLES) ** 2
        cells = F.embedding_bag(
            index.view(-1, taps),
            self._table,
            per_sample_weights=weight.view(-1, taps).to(self._table.dtype),
            mode="sum",
        )
        return cells.view(len(boxes), size, size, cells.shape[1]).permute(0, 3, 1, 2)


def pyramid_level(boxes: Tensor) -> Tensor:
    """(M, 4) xyxy to (M,) int64 in 0..3: the level each box reads, floor(log2(side / 56)).

    An empty, inside-out or NaN box reads P2, where MMDetection's expression would be NaN (reference, 1.5).
    """
    width, height = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).unbind(-1)
    level = torch.log2((width * height).nan_to_num(0).sqrt() / FINEST_SIDE + 1e-6).floor()
    return level.clamp(0, len(STRIDES) - 1).to(torch.int64)


def _taps(low: Tensor, high: Tensor, limit: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis, which pixels each cell reads and with what weight.

    Args:
        low, high: (M,) ends of the boxes in pixels of their level, the first pixel's centre at 0.
        limit: (M,) pixels of the level.
        size: cells.

    Returns:
        (M, size, 2 * SAMPLES) positions and weights: two neighbours for every sampling point. A point more than a pixel
        outside weighs nothing; one just outside reads the border.
    """
    cell = (high - low)[:, None, None] / size
    inner = (torch.arange(SAMPLES) + 0.5) * cell / SAMPLES
    point = low[:, None, None] + torch.arange(size)[:, None] * cell + inner  # (M, size, SAMPLES)
    limit = limit[:, None, None]
    inside = (point >= -1) & (point <= limit)
    point = point.clamp(min=0)
    before = torch.minimum(point.nan_to_num(0).floor(), limit - 1)
    share = torch.where(before >= limit - 1, 0.0, point - before)
    position = torch.stack([before, torch.minimum(before + 1, limit - 1)], dim=-1).to(torch.int64)
    weight = torch.stack([1 - share, share], dim=-1) * inside[..., None] / SAMPLES
    return position.flatten(2), weight.nan_to_num(0).flatten(2)
