"""A metric: by how many the objects of an image are miscounted, on average."""

from typing import Any

from queryinst.ops.ranks import of_all_ranks
from queryinst.structures import Detections


class Counting:
    def __init__(self, content: dict[str, Any], score: float = 0.5) -> None:
        self.score = score
        self.objects = {image["id"]: 0 for image in content["images"]}
        for annotation in content["annotations"]:
            self.objects[annotation["image_id"]] += not annotation.get("iscrowd", 0)
        self.reset()

    def reset(self) -> None:
        self.off: dict[int, int] = {}

    def update(self, image_ids: list[int], found: list[Detections]) -> None:
        for image_id, detections in zip(image_ids, found, strict=True):
            self.off[image_id] = abs(len(detections.above(self.score).scores) - self.objects[image_id])

    def compute(self) -> dict[str, float]:
        off = of_all_ranks(self.off)
        return {"error": sum(off.values()) / max(len(off), 1)}
