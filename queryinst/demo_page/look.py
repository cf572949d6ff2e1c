"""One image seen by every stage: the network runs once, and settings only choose among what it said."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from queryinst.config import AugmentationConfig, PostprocessConfig
from queryinst.data.collate import pad
from queryinst.data.dataset import planes
from queryinst.data.transforms import EvaluationGeometry
from queryinst.inference.pictures import Picture
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.ops import boxes as box_ops
from queryinst.structures import Detections, Output
from queryinst.visualize.draw import at_most

LONGEST = 1280  # pixels of the side of what is shown: more than a page has, and masks are pasted quickly
REMEMBERED = 8  # numbers of proposals whose outputs an image keeps


@dataclass(frozen=True)
class Shown:
    """What one stage says of an image."""

    detections: Detections  # in pixels of the picture, best first
    trail: NDArray[np.float32]  # (stages + 1, D, 4) xyxy: the boxes of their queries, from the proposal to this stage


class Look:
    """An image and what a network says of it at every stage.

    The pyramid is made once, the stage loop once for each number of proposals that is asked for, the masks of a stage
    when they are first asked for.

    Args:
        model: in evaluation mode.
        augmentation: how images are resized at test.
        postprocess: how detections are made; its `min_side` counts pixels of the picture.
        pixels: (H, W, 3) uint8 RGB.
    """

    def __init__(
        self, model: QueryInst, augmentation: AugmentationConfig, postprocess: PostprocessConfig, pixels: Picture
    ) -> None:
        begin = time.perf_counter()
        self.model, self.postprocess, self.picture = model, postprocess, at_most(pixels, LONGEST)
        device = model.mean.device
        height, width = pixels.shape[:2]
        resized = EvaluationGeometry(augmentation)(height, width, np.random.default_rng(0)).image(pixels)
        image, self.sizes = (part.to(device) for part in pad([torch.from_numpy(planes(resized))]))
        self.shown_sizes = torch.tensor([self.picture.shape[:2]], device=device)
        with torch.inference_mode():
            self.pyramid = model.pyramid(model.normalise(image, self.sizes))
        self._outputs: dict[int, Output] = {}
        self._detections: dict[tuple[int, int], Detections] = {}
        self.outputs(self.proposals).stages[-1].boxes.cpu()  # waits for the device
        self.seconds = time.perf_counter() - begin  # all of the network but the masks

    @property
    def stages(self) -> int:
        """How many there are (S)."""
        return len(self.model.stages)

    @property
    def proposals(self) -> int:
        """How many there are (N)."""
        return self.model.queries.number

    @torch.inference_mode()
    def outputs(self, proposals: int) -> Output:
        """All stages, where so many queries go on after the first."""
        if proposals not in self._outputs:
            _forget(self._outputs, REMEMBERED)
            self._outputs[proposals] = self.model.query(self.pyramid, self.sizes, proposals=proposals)
        return self._outputs[proposals]

    @torch.inference_mode()
    def detections(self, stages: int, proposals: int) -> Detections:
        """All detections of the last of so many stages, in pixels of `picture`."""
        key = stages, proposals
        if key not in self._detections:
            _forget(self._detections, REMEMBERED * self.stages)
            output = self.outputs(proposals)
            found = detect(self.model, output, self.sizes, self.shown_sizes, self.postprocess, stages - 1)
            self._detections[key] = found[0].cpu()
        return self._detections[key]

    @torch.inference_mode()
    def show(self, score: float, stages: int, proposals: int) -> Shown:
        """What the network says with so many stages, and so many queries that go on after the first.

        Args:
            score: lowest of a detection.
            stages: 1..S.
            proposals: 1..N.
        """
        found = self.detections(stages, proposals).above(score)
        assert found.queries is not None, "detect says which query"
        queries = found.queries.to(self.sizes.device)
        start, _, _ = self.model.propose(self.pyramid, self.sizes)
        boxes = [start[0][queries]]
        for stage in self.outputs(proposals).stages[:stages]:
            places = queries if stage.chosen is None else (queries[:, None] == stage.chosen[0]).int().argmax(1)
            boxes.append(stage.boxes[0][places])
        return Shown(found, self._in_picture(torch.stack(boxes)))

    def _in_picture(self, boxes: Tensor) -> NDArray[np.float32]:
        scale = box_ops.extent(self.shown_sizes) / box_ops.extent(self.sizes)
        return (boxes.float() * scale).cpu().numpy()


def _forget(kept: dict[Any, Any], limit: int) -> None:
    """Drop the oldest entry of a dictionary that is full."""
    if len(kept) >= limit:
        del kept[next(iter(kept))]
