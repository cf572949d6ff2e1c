"""A reader of annotations: a folder with a LabelMe file beside each image, as COCO has it."""

import json
from pathlib import Path
from typing import Any


class LabelMe:
    def __init__(self, classes: list[str]) -> None:
        self.classes = classes

    def __call__(self, path: Path) -> dict[str, Any]:
        images, annotations = [], []
        for number, file in enumerate(sorted(path.glob("*.json")), 1):
            content = json.loads(file.read_text())
            size = {"height": content["imageHeight"], "width": content["imageWidth"]}
            images.append({"id": number, "file_name": content["imagePath"], **size})
            for shape in content["shapes"]:
                xs, ys = zip(*shape["points"], strict=True)
                width, height = max(xs) - min(xs), max(ys) - min(ys)
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": self.classes.index(shape["label"]) + 1,
                        "bbox": [min(xs), min(ys), width, height],
                        "area": width * height,
                        "iscrowd": 0,
                        "segmentation": [[value for point in shape["points"] for value in point]],
                    }
                )
        categories = [{"id": number, "name": name} for number, name in enumerate(self.classes, 1)]
        return {"images": images, "annotations": annotations, "categories": categories}
