"""Images a second and bytes of targets: the data set of this package against v2 transforms on full bitmaps."""

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as v2

from queryinst.benchmarks import opening, scenes
from queryinst.benchmarks.frame import Results, table
from queryinst.benchmarks.rounds import alternate
from queryinst.config import AugmentationConfig
from queryinst.data.coco import CocoFile
from queryinst.data.dataset import CocoDataset
from queryinst.data.transforms import TrainGeometry, fit

MS_CROP = AugmentationConfig(short_sides=list(range(480, 801, 32)), crop=0.5)  # conf/augmentation/ms_crop.yaml


class DataTimes(NamedTuple):
    """Images a second, and bytes of the targets of an image, of both ways."""

    ours: float
    plain: float
    our_bytes: float
    plain_bytes: float


class BitmapDataset:
    """The plain way: every object is a bitmap of the image, and v2 transforms flip, resize and crop image and bitmaps.

    It draws the same random numbers as `CocoDataset`, so that both make images of the same sizes.

    Args:
        annotations: the COCO file, parsed once.
        config: of the augmentation.
        seed: of the augmentation.
    """

    def __init__(self, annotations: Path, config: AugmentationConfig, seed: int = 0) -> None:
        content = json.loads(annotations.read_bytes())
        self.folder, self.images, self.config, self.seed = annotations.parent, content["images"], config, seed
        self.annotations: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in self.images}
        for annotation in content["annotations"]:
            self.annotations[annotation["image_id"]].append(annotation)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Image (3, h, w) uint8, boxes (N, 4), labels (N,), masks (N, h, w) uint8."""
        image = self.images[key[1]]
        found = self.annotations[image["id"]]
        size = (image["height"], image["width"])
        sample = {
            "image": v2.to_image(Image.open(self.folder / image["file_name"]).convert("RGB")),
            "boxes": tv_tensors.BoundingBoxes(
                torch.tensor([a["bbox"] for a in found]), format="XYWH", canvas_size=size
            ),
            "masks": tv_tensors.Mask(torch.stack([_bitmap(a["segmentation"], *size) for a in found])),
        }
        sample = self._augment(sample, *size, np.random.default_rng([self.seed, *key]))
        boxes = v2.convert_bounding_box_format(sample["boxes"], new_format="XYXY")
        kept = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        labels = torch.tensor([a["category_id"] for a in found])
        return {"image": sample["image"], "boxes": boxes[kept], "labels": labels[kept], "masks": sample["masks"][kept]}

    def _augment(self, sample: dict[str, Any], height: int, width: int, rng: np.random.Generator) -> dict[str, Any]:
        config = self.config
        if rng.random() < config.flip:
            sample = {name: v2.horizontal_flip(value) for name, value in sample.items()}
        if rng.random() < config.crop:
            height, width = fit(height, width, rng.choice(config.crop_short_sides), config.long_side)
            sample = {name: v2.resize(value, [height, width]) for name, value in sample.items()}
            smallest, largest = config.crop_sides
            high = int(rng.integers(min(height, smallest), min(height, largest), endpoint=True))
            wide = int(rng.integers(min(width, smallest), min(width, largest), endpoint=True))
            top = int(rng.integers(0, height - high, endpoint=True))
            left = int(rng.integers(0, width - wide, endpoint=True))
            sample = {name: v2.crop(value, top, left, high, wide) for name, value in sample.items()}
            height, width = high, wide
        height, width = fit(height, width, int(rng.choice(config.short_sides)), config.long_side)
        return {name: v2.resize(value, [height, width]) for name, value in sample.items()}


def _bitmap(segmentation: Any, height: int, width: int) -> torch.Tensor:
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return torch.from_numpy(coco_mask.decode(segmentation))


def measure(folder: Path, images: int, instances: int, rounds: int) -> DataTimes:
    """Make images with `instances` objects each in `folder` and serve them both ways, in turn, in this process."""
    path = scenes.make(folder, images, instances)
    source = CocoFile(path, folder)
    ours = CocoDataset(source.images, TrainGeometry(MS_CROP), source.instances, mask_size=112)
    plain = BitmapDataset(path, MS_CROP)
    epochs = [itertools.count(), itertools.count()]  # so that both meet the same random draws

    def serve(dataset: CocoDataset | BitmapDataset, epoch: int) -> None:
        for position in range(images):
            _ = dataset[epoch, position]

    seconds = alternate(rounds, lambda: serve(ours, next(epochs[0])), lambda: serve(plain, next(epochs[1])))
    our_bytes = plain_bytes = 0
    for position in range(images):
        targets, bitmaps = ours[0, position].targets, plain[0, position]
        our_bytes += _bytes(targets.boxes, targets.labels, targets.masks, targets.mask_boxes)
        plain_bytes += _bytes(bitmaps["boxes"], bitmaps["labels"], bitmaps["masks"])
    return DataTimes(images / seconds[0], images / seconds[1], our_bytes / images, plain_bytes / images)


def _bytes(*tensors: torch.Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def run(arguments: Any) -> Results:
    """Measure with each number of objects; with `--open`, also opening a large file."""
    with tempfile.TemporaryDirectory() as folder:
        times = {
            count: measure(Path(folder) / str(count), arguments.images, count, arguments.rounds)
            for count in arguments.instances
        }
        results: Results = {"rows": [{"objects": count, **of_count._asdict()} for count, of_count in times.items()]}
        if arguments.open:
            path = Path(folder) / "instances.json"
            results["opening"] = opening.measure(path, arguments.open_images, arguments.open_annotations)
    return results


def markdown(results: Results) -> str:
    """Images a second and bytes of targets, a line for each number of objects."""
    columns = ["objects", "images/s", "plain", "ratio", "target kB", "plain kB", "ratio"]
    rows = [
        (
            *(row["objects"], f"{row['ours']:.1f}", f"{row['plain']:.1f}", f"{row['ours'] / row['plain']:.1f}x"),
            *(f"{row['our_bytes'] / 1000:.1f}", f"{row['plain_bytes'] / 1000:.0f}"),
            f"{row['plain_bytes'] / row['our_bytes']:.1f}x",
        )
        for row in results["rows"]
    ]
    said = "ms_crop on 640x480 images, one process, one thread, medians: ours against v2 transforms on full bitmaps"
    told = [said, table(columns, rows)]
    return "\n\n".join([*told, opening.markdown(results["opening"])] if "opening" in results else told)
