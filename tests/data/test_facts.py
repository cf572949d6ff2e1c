from pathlib import Path
from typing import Any

import pytest
from conftest import coco_folder

from queryinst.config import DataConfig
from queryinst.data.facts import Facts, facts
from queryinst.errors import UserError


def entry(number: int, image: int, side: float, **more: Any) -> dict[str, Any]:
    box = [1.0, 1.0, side, side]
    corners = [1, 1, 1 + side, 1, 1 + side, 1 + side, 1, 1 + side]
    return {"id": number, "image_id": image, "category_id": 1, "bbox": box, "segmentation": [corners], **more}


def write(root: Path, split: str, sizes: list[tuple[int, int]], annotations: list[dict[str, Any]]) -> None:
    images = [
        {"id": number, "file_name": f"{number}.jpg", "height": height, "width": width}
        for number, (height, width) in enumerate(sizes)
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "one"}]}
    coco_folder(root, content, split)
    (root / split).mkdir(exist_ok=True)


def data(root: Path) -> DataConfig:
    folders = {f"{split}_images": split for split in ("train", "val")}
    files = {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
    return DataConfig(root=str(root), **folders, **files)


def test_what_is_seen(tmp_path: Path):
    sizes = [(100, 300), (200, 400), (600, 500), (80, 80)]  # the last one has nothing to learn
    small = [entry(number, 0, 4) for number in range(2)]
    large = [entry(2 + number, 1, 40) for number in range(7)]
    crowd = [entry(50, 2, 2, iscrowd=1), entry(51, 2, 40)]
    write(tmp_path, "train", sizes, [*small, *large, *crowd])
    write(tmp_path, "val", [(90, 90)], [entry(number, 0, 9) for number in range(9)])
    found = facts(data(tmp_path))
    assert found == Facts(images=3, short=200, long=400, objects=pytest.approx(10 / 3), most=9, small=pytest.approx(4))


def test_nothing_to_learn(tmp_path: Path):
    for split in ("train", "val"):
        write(tmp_path, split, [(100, 100)], [])
    with pytest.raises(UserError, match=r"instances_train\.json has no image to train on"):
        facts(data(tmp_path))
