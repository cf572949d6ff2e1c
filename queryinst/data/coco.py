"""COCO data: the annotation file, checked and indexed, and the data set that reads images and makes samples of them.

Nobody above this file knows category ids: labels are 0..K-1 in the order of ascending category id.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset

from queryinst.data import validation
from queryinst.data.colours import distort
from queryinst.data.transforms import Geometry, Instance
from queryinst.errors import UserError
from queryinst.ops import masks as mask_ops
from queryinst.structures import Targets

GeometryOf = Callable[
    [int, int, np.random.Generator], Geometry
]  # height, width, randomness to what happens to an image


@dataclass(frozen=True)
class ImageFile:
    """One entry of `images`."""

    id: int
    path: Path
    height: int
    width: int
    upright: bool = False  # turn the pixels as the camera's EXIF note says; COCO's files mean them as they are stored


@dataclass(frozen=True)
class Categories:
    """The classes of a data set: label k is category `ids[k]`, called `names[k]`."""

    ids: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)


class CocoFile:
    """An annotation file: its categories, its images, and the instances of each image.

    Args:
        path: the JSON file.
        folder: where the images are.
        hint: what to do when one of the two is not there; ends the error's sentence.

    Raises:
        UserError: a file or folder is missing, the JSON is malformed or not COCO, or an annotation names an unknown
            image or category or has no usable box or mask.
    """

    def __init__(self, path: Path, folder: Path, hint: str = "") -> None:
        self.path, self.folder = path, folder
        self.content = read_json(path, hint)
        require_folder(folder, path, hint)
        validation.check_content(self.content, path)
        categories = sorted(self.content["categories"], key=lambda category: category["id"])
        self.categories = Categories(tuple(c["id"] for c in categories), tuple(str(c["name"]) for c in categories))
        self.images = [
            ImageFile(i["id"], folder / i["file_name"], i["height"], i["width"]) for i in self.content["images"]
        ]
        self._annotations: dict[int, list[dict[str, Any]]] = {image.id: [] for image in self.images}
        for annotation in self.content["annotations"]:
            self._annotations[annotation["image_id"]].append(annotation)
        self._labels = {key: label for label, key in enumerate(self.categories.ids)}

    def annotations(self, image: ImageFile) -> list[dict[str, Any]]:
        """The raw annotations of an image, crowd regions among them."""
        return self._annotations[image.id]

    def learnable(self, image: ImageFile) -> list[dict[str, Any]]:
        """The annotations that are objects to learn: no crowd regions, nothing ignored, nothing below a pixel."""
        return [a for a in self._annotations[image.id] if is_learnable(a, image.height, image.width)]

    def instances(self, image: ImageFile) -> list[Instance]:
        """What there is to learn in an image."""
        found = []
        for annotation in self.learnable(image):
            x, y, width, height = annotation["bbox"]
            box = np.array([x, y, x + width, y + height], np.float64)
            label = self._labels[annotation["category_id"]]
            found.append(Instance(box, label, outline_of(annotation["segmentation"])))
        return found


def is_learnable(annotation: dict[str, Any], height: int, width: int) -> bool:
    """Whether an annotation of an image of this size is an object to learn."""
    x, y, w, h = annotation["bbox"]
    inside = min(x + w, width) - max(x, 0), min(y + h, height) - max(y, 0)
    object_to_learn = not annotation.get("iscrowd") and not annotation.get("ignore")
    return bool(object_to_learn and annotation.get("area", 1) > 0 and min(w, h) >= 1 and min(inside) > 0)


def require_folder(folder: Path, path: Path, hint: str = "") -> None:
    """Raise UserError unless the folder of the images of the file `path` is there."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected the images of {path} there{hint}")


def read_json(path: Path, hint: str = "") -> Any:
    """Parse a JSON file, with a sentence where that fails."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        beside = sorted(p.name for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
        found = f"; its folder has {', '.join(beside[:5])}" if beside else ""
        raise UserError(f"{path} does not exist; expected a COCO annotation file there{found}{hint}") from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(
            f"{path} cannot be read as JSON: {error}; it may be cut short: copy or download it again"
        ) from None


def outline_of(segmentation: Any) -> mask_ops.Polygons | mask_ops.LocalMask:
    """A COCO segmentation as polygons, or as the bitmap of its own box where it is an RLE."""
    if isinstance(segmentation, list):
        return [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in segmentation]
    return mask_ops.decode(segmentation)


def image_file(path: Path, image_id: int) -> ImageFile:
    """An image that is in no annotation file; its size is read from its header. Raises UserError."""
    try:
        with Image.open(path) as picture:
            lying = picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            width, height = picture.size[::-1] if lying else picture.size
            return ImageFile(image_id, path, height, width, upright=True)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from None


def check_header(image: ImageFile) -> None:
    """Raise UserError unless the file begins as an image of the annotated size. Says nothing about its end."""
    try:
        with Image.open(image.path) as picture:
            width, height = picture.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"image {image.id} ({image.path}) cannot be read: {error}") from None
    _require_size(image, height, width)


def _require_size(image: ImageFile, height: int, width: int) -> None:
    if (height, width) != (image.height, image.width):
        raise UserError(
            f"image {image.id} ({image.path}) is {width}x{height}, but its annotations say "
            f"{image.width}x{image.height}: correct one of them (a photo may lie on its side: see its EXIF orientation)"
        )


def read_image(image: ImageFile) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB.

    Raises:
        UserError: the file is missing or damaged, or its size is not what the annotations say.
    """
    try:
        with Image.open(image.path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise UserError(
                    f"image {image.id} ({image.path}) has {picture.mode} pixels; convert it to 8 bits a channel"
                )
            if image.upright:
                ImageOps.exif_transpose(picture, in_place=True)
            pixels = np.asarray(picture.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"image {image.id} ({image.path}) does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow's ways to say damaged
        raise UserError(f"image {image.id} ({image.path}) cannot be read: {error}") from None
    _require_size(image, *pixels.shape[:2])
    return pixels


def nothing(image: ImageFile) -> list[Instance]:
    """No instances. A function with a name, so that every way to start a loader process can send it."""
    return []


@dataclass(frozen=True)
class Sample:
    """One image ready to be batched."""

    image: Tensor  # (3, h, w) uint8 RGB
    original_size: tuple[int, int]
    image_id: int
    targets: Targets
    problems: tuple[str, ...]  # images that could not be read on the way to this one


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
        substitute: serve the next image in place of one that cannot be read; otherwise a blank one with the id -1.
    """

    def __init__(
        self,
        images: Sequence[ImageFile],
        geometry: GeometryOf,
        instances: Callable[[ImageFile], list[Instance]] = nothing,
        mask_size: int = 8,
        seed: int = 0,
        photometric: float = 0.0,
        substitute: bool = False,
    ) -> None:
        self.images, self.geometry, self.instances = images, geometry, instances
        self.mask_size, self.seed, self.photometric = mask_size, seed, photometric
        self.tries = min(len(images), 20) if substitute else 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample, with the problems met on the way to it."""
        epoch, position = key
        problems: list[str] = []
        for step in range(self.tries):
            image = self.images[(position + step) % len(self)]
            try:
                pixels, instances = read_image(image), self.instances(image)
            except UserError as error:
                problems.append(str(error))
                continue
            return self._sample(
                image, pixels, instances, np.random.default_rng([self.seed, epoch, position]), tuple(problems)
            )
        return Sample(
            torch.zeros(3, 32, 32, dtype=torch.uint8), (32, 32), -1, self._targets([], 32, 32), tuple(problems)
        )

    def _sample(
        self,
        image: ImageFile,
        pixels: NDArray[np.uint8],
        instances: list[Instance],
        rng: np.random.Generator,
        problems: tuple[str, ...],
    ) -> Sample:
        geometry = self.geometry(image.height, image.width, rng)
        moved = [geometry.instance(instance) for instance in instances]
        pixels = geometry.image(pixels)
        if self.photometric and rng.random() < self.photometric:
            pixels = distort(pixels, rng)
        return Sample(
            image=torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
            original_size=(image.height, image.width),
            image_id=image.id,
            targets=self._targets(
                [instance for instance in moved if instance is not None], geometry.height, geometry.width
            ),
            problems=problems,
        )

    def _targets(self, instances: list[Instance], height: int, width: int) -> Targets:
        size = self.mask_size
        masks = np.zeros((len(instances), size, size), np.uint8)
        regions = np.zeros((len(instances), 4), np.float32)
        for index, instance in enumerate(instances):
            regions[index] = instance.region(height, width, size)
            masks[index] = instance.draw(regions[index], size)
        return Targets(
            boxes=torch.as_tensor(np.array([instance.box for instance in instances], np.float32).reshape(-1, 4)),
            labels=torch.tensor([instance.label for instance in instances], dtype=torch.int64),
            masks=torch.from_numpy(masks),
            mask_boxes=torch.from_numpy(regions),
            counts=[len(instances)],
        )
