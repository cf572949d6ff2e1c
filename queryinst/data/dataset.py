"""Samples of images and their objects: what a data loader reads, moves, draws and batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from queryinst.data.colours import distort
from queryinst.data.copy_paste import CopyPaste
from queryinst.data.images import ImageFile, read_image
from queryinst.data.transforms import GeometryOf, Instances
from queryinst.errors import UserError
from queryinst.parts import AugmentationStep
from queryinst.structures import Targets


def nothing(image: ImageFile) -> Instances:
    """No instances. A function with a name, so that every way to start a loader process can send it."""
    return Instances.none()


def planes(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) to (3, H, W), in a tenth of a transpose's time."""
    planes = np.empty((3, *pixels.shape[:2]), np.uint8)
    cv2.split(pixels, list(planes))
    return planes


@dataclass(frozen=True)
class Sample:
    """One image ready to be batched."""

    image: Tensor  # (3, h, w) uint8 RGB
    original_size: tuple[int, int]
    image_id: int
    targets: Targets
    problems: tuple[str, ...] = ()  # images that could not be read on the way to this one


class CocoDataset(Dataset[Sample]):
    """Images, and what a transform makes of them and of their instances.

    A sample depends on (seed, epoch, position) only: not on which worker loads it, nor on what was loaded before. So
    the keys are pairs (epoch, position).

    Args:
        images: those to serve, by position.
        geometry: draws what happens to an image.
        instances: what there is to learn in an image; nothing by default, as for evaluation.
        mask_size: R of the stored masks.
        seed: of the augmentation.
        photometric: probability of random colours.
        steps: of the user's own, after all others.
        copy_paste: probability of pasting objects of another image; of images without tracks.
        substitute: serve the next image in place of one that cannot be read; otherwise a blank one with the id -1.
    """

    def __init__(
        self,
        images: Sequence[ImageFile],
        geometry: GeometryOf,
        instances: Callable[[ImageFile], Instances] = nothing,
        mask_size: int = 8,
        seed: int = 0,
        photometric: float = 0.0,
        substitute: bool = False,
        steps: AugmentationStep | None = None,
        copy_paste: float = 0.0,
    ) -> None:
        self.images, self.geometry, self.instances = images, geometry, instances
        self.mask_size, self.seed, self.photometric, self.steps = mask_size, seed, photometric, steps
        self.copy_paste = CopyPaste(copy_paste, images, geometry, instances) if copy_paste else None
        self.tries = min(len(images), 20) if substitute else 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample, with the problems met on the way to it."""
        return self.together(key, lambda image: [image])[0]

    def together(self, key: tuple[int, int], companions: Callable[[ImageFile], list[ImageFile]]) -> list[Sample]:
        """Samples of the images, of one size, that belong with the image of a key: the same happens to all of them."""
        epoch, position = key
        problems: list[str] = []
        for step in range(self.tries):
            images = companions(self.images[(position + step) % len(self)])
            try:
                read = [(image, read_image(image), self.instances(image)) for image in images]
            except UserError as error:
                problems.append(str(error))
                continue
            # Each from the same beginning of the same random numbers. Problems are said once.
            samples = [self._sample(*each, np.random.default_rng([self.seed, epoch, position])) for each in read]
            return [replace(samples[0], problems=tuple(problems)), *samples[1:]]
        blank, nothing_there = torch.zeros(3, 32, 32, dtype=torch.uint8), self._targets(Instances.none(), 32, 32)
        return [Sample(blank, (32, 32), -1, nothing_there, tuple(problems)) for _ in images]

    def _sample(
        self, image: ImageFile, pixels: NDArray[np.uint8], instances: Instances, rng: np.random.Generator
    ) -> Sample:
        geometry = self.geometry(image.height, image.width, rng)
        pixels = geometry.image(pixels)
        instances = geometry.instances(instances)
        if self.copy_paste:  # with numbers of its own, so that all else is drawn as without it
            pixels, instances = self.copy_paste(image, pixels, instances, rng.spawn(1)[0])
        if self.photometric and rng.random() < self.photometric:
            pixels = distort(pixels, rng)
        if self.steps:
            pixels, instances = self.steps(pixels, instances, rng)
        return Sample(
            image=torch.from_numpy(planes(pixels)),
            original_size=(image.height, image.width),
            image_id=image.id,
            targets=self._targets(instances, *pixels.shape[:2]),
        )

    def _targets(self, instances: Instances, height: int, width: int) -> Targets:
        regions = instances.regions(height, width, self.mask_size)
        return Targets(
            boxes=torch.from_numpy(instances.boxes.astype(np.float32)),
            labels=torch.from_numpy(instances.labels),
            masks=torch.from_numpy(instances.draw(regions, self.mask_size, height, width)),
            mask_boxes=torch.from_numpy(regions),
            counts=[len(instances)],
            tracks=None if instances.tracks is None else torch.from_numpy(instances.tracks),
        )
