"""torchvision's Mask R-CNN on the same photographs: the same backbone, weights, sizes and minutes, judged alike.

    python experiments/real_photos/mask_rcnn.py FACADE WEIGHTS --minutes 30 --lr 0.01 --seed 0 --to mask_rcnn.json

FACADE has train/ and valid/ with `_annotations.coco.json` beside the images. WEIGHTS are those of torchvision's
MobileNetV2 `features`, or `none`. Prints mask and box AP, and writes them with everything that was asked for.
"""

import argparse
import contextlib
import io
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops import FrozenBatchNorm2d
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

FILE = "_annotations.coco.json"
TAPS = {"3": "0", "6": "1", "13": "2", "18": "3"}  # of MobileNetV2's features: strides 4, 8, 16, 32


class Photos(torch.utils.data.Dataset[tuple[Tensor, dict[str, Any]]]):
    """Images and their objects as Mask R-CNN wants them: masks as whole bitmaps, labels from 1."""

    def __init__(self, folder: Path, train: bool) -> None:
        self.folder, self.train = folder, train
        with contextlib.redirect_stdout(io.StringIO()):
            self.coco = COCO(str(folder / FILE))
        self.classes = sorted(self.coco.getCatIds())
        self.ids = sorted(self.coco.getImgIds())
        self.colours = v2.RandomPhotometricDistort(p=0.5)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        entry = self.coco.loadImgs(self.ids[index])[0]
        image = torchvision.io.decode_image(str(self.folder / entry["file_name"]), "RGB")
        found = [a for a in self.coco.loadAnns(self.coco.getAnnIds(entry["id"])) if not a["iscrowd"]]
        masks = (
            np.stack([self.coco.annToMask(a) for a in found]) if found else np.zeros((0, *image.shape[1:]), np.uint8)
        )
        boxes = torch.tensor([a["bbox"] for a in found], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([1 + self.classes.index(a["category_id"]) for a in found], dtype=torch.int64)
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        target = {
            "boxes": boxes[kept],
            "labels": labels[kept],
            "masks": torch.from_numpy(masks)[kept],
            "id": entry["id"],
        }
        if self.train:
            image = self.colours(image)
            if torch.rand(()) < 0.5:
                image, target["masks"] = functional.horizontal_flip(image), target["masks"].flip(-1)
                target["boxes"] = target["boxes"].clone()
                target["boxes"][:, [0, 2]] = image.shape[2] - target["boxes"][:, [2, 0]]
        return image.float() / 255, target


def network(weights: str, classes: int, side: int, detections: int) -> MaskRCNN:
    """Mask R-CNN with MobileNetV2 and a pyramid on four of its maps; BatchNorm and its first maps are frozen."""
    pretrained = weights != "none"
    norm: Any = FrozenBatchNorm2d if pretrained else nn.BatchNorm2d
    body = torchvision.models.mobilenet_v2(norm_layer=norm).features
    if pretrained:
        state = torch.load(weights, map_location="cpu", weights_only=True)
        missing, _ = body.load_state_dict(
            {name.removeprefix("features."): value for name, value in state.items()}, strict=False
        )
        if missing:
            raise SystemExit(f"{weights} lacks {missing[0]}: give weights of torchvision's MobileNetV2")
        for unit in list(body)[:4]:
            unit.requires_grad_(False)
    sides = [round(side * factor / 32) * 32 for factor in (0.75, 0.875, 1.125, 1.25, 1)]  # the last one is evaluation's
    backbone = BackboneWithFPN(body, dict(TAPS), [24, 32, 96, 1280], 256)
    return MaskRCNN(backbone, classes + 1, min_size=sides, max_size=side * 2, box_detections_per_img=detections)


def in_bfloat16(module: nn.Module) -> None:
    """Convolve and multiply in bfloat16, its sums handed on in float32: boxes in bfloat16 would be two pixels apart."""
    forward = module.forward

    def cast(*inputs: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            return tree_map(lambda output: output.float(), forward(*inputs))

    module.forward = cast


def train(
    model: MaskRCNN, photos: Photos, batch: int, lr: float, seconds: float, most: int | None, pauses: int
) -> Iterator[int]:
    """SGD with momentum for so many seconds, or steps: a warm-up over the first twentieth, then a cosine to zero.

    Gives the number of steps so far at so many pauses, the last at the end; the clock stands still during a pause.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=1e-4)
    loader = torch.utils.data.DataLoader(
        photos, batch, shuffle=True, drop_last=True, collate_fn=lambda all: tuple(zip(*all, strict=True))
    )
    began, steps, paused = time.monotonic(), 0, 0
    while True:
        for images, targets in loader:
            share = steps / most if most else (time.monotonic() - began) / seconds
            if share >= (paused + 1) / pauses:
                stopped, paused = time.monotonic(), paused + 1
                yield steps
                model.train()
                began += time.monotonic() - stopped
            if paused == pauses:
                return
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1, share * 20 + 0.01) * (1 + math.cos(math.pi * share)) / 2
            wanted = [{key: target[key] for key in ("boxes", "labels", "masks")} for target in targets]
            losses = model(list(images), wanted)
            loss = sum(losses.values())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()
            steps += 1
            if steps % 20 == 1:
                print(f"{share:4.0%} step {steps} loss {loss.item():.3f}", flush=True)


@torch.inference_mode()
def evaluate(model: MaskRCNN, photos: Photos) -> tuple[dict[str, float], float, list[dict[str, Any]]]:
    """COCO's metrics of masks and boxes, seconds an image from pixels to codes, and what was found."""
    model.eval()
    found, seconds = [], 0.0
    for image, target in (photos[index] for index in range(len(photos))):
        began = time.monotonic()
        result = model([image])[0]
        codes = [rle.encode(np.asfortranarray(mask[0] > 0.5)) for mask in result["masks"].numpy()]
        seconds += time.monotonic() - began
        for box, label, score, code in zip(
            result["boxes"].tolist(), result["labels"], result["scores"], codes, strict=True
        ):
            x0, y0, x1, y1 = box
            entry = {"image_id": target["id"], "category_id": photos.classes[int(label) - 1], "score": float(score)}
            found.append(entry | {"bbox": [x0, y0, x1 - x0, y1 - y0], "segmentation": code})
    metrics = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for kind in ("segm", "bbox"):
            judge = COCOeval(photos.coco, photos.coco.loadRes(found), kind)
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
            metrics |= {f"{kind}_AP": judge.stats[0], f"{kind}_AP50": judge.stats[1], f"{kind}_AP75": judge.stats[2]}
    for entry in found:
        entry["segmentation"]["counts"] = entry["segmentation"]["counts"].decode()
    return metrics, seconds / len(photos), found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--steps", type=int, help="so many, however long they take: as many as those minutes had alone")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--evaluations", type=int, default=3, help="not counted in the minutes")
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16", help="bf16 where there is AMX")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--results", type=Path, help="a COCO results file of all that was found")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    photos, judged = Photos(given.folder / "train", True), Photos(given.folder / "valid", False)
    model = network(given.weights, len(photos.classes), given.side, 100)
    if given.precision == "bf16":
        model.to(memory_format=torch.channels_last)
        heads = model.roi_heads
        boxes, masks = (heads.box_head, heads.box_predictor), (heads.mask_head, heads.mask_predictor)
        for part in (model.backbone, model.rpn.head, *boxes, *masks):
            in_bfloat16(part)
    curve = []
    length = (given.minutes * 60, given.steps)
    for steps in train(model, photos, given.batch, given.lr, *length, given.evaluations):
        metrics, seconds, found = evaluate(model, judged)
        minutes = given.minutes * (len(curve) + 1) / given.evaluations
        curve.append({"minutes": minutes, "steps": steps} | metrics)
        print(curve[-1], flush=True)
    asked = {key: value for key, value in vars(given).items() if key not in ("folder", "weights", "to", "results")}
    seen = {"pretrained": given.weights != "none", "images": len(photos), "seconds_per_image": seconds}
    result = asked | seen | {"steps": steps, **metrics, "curve": curve}
    if given.results:
        given.results.write_text(json.dumps(found))
    given.to.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
