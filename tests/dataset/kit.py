"""What the tests of `python -m queryinst.dataset` share: images of noise, a run of the command, its result as read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Run
from PIL import Image

from queryinst.data.coco import CocoFile
from queryinst.ops import masks as mask_ops

WILD = next((folder for parent in ROOT.parents if (folder := parent / "shared" / "real" / "wild").is_dir()), None)
needs_wild = pytest.mark.skipif(WILD is None, reason="the folder shared/real, with files of real tools, is not there")


def picture(path: Path, width: int = 200, height: int = 100, seed: int = 0, **options: Any) -> Path:
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path, **options)
    return path


def put(path: Path, content: Any) -> Path:
    """Write a text, or anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


class Imported:
    """What `import` wrote, by split: content, objects by file name, and the data set's own reader of it."""

    def __init__(self, run: Run, source: Path, *arguments: str) -> None:
        self.root = source.parent / "imported"
        code, self.said = run("dataset", "import", str(source), "--to", str(self.root), *arguments)
        assert code == 0, self.said
        files = sorted((self.root / "annotations").iterdir())
        self.content = {path.stem: json.loads(path.read_text()) for path in files}

    def objects(self, split: str = "all") -> dict[str, list[dict[str, Any]]]:
        """The annotations of each file, with the name of their class."""
        content = self.content[split]
        names = {category["id"]: category["name"] for category in content["categories"]}
        files = {image["id"]: image["file_name"] for image in content["images"]}
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in files.values()}
        for annotation in content["annotations"]:
            found[files[annotation["image_id"]]].append({**annotation, "name": names[annotation["category_id"]]})
        return found

    def read(self, folder: Path, split: str = "all") -> CocoFile:
        """As training reads it, every image and outline included."""
        return read_all(self.root / "annotations" / f"{split}.json", folder)


def read_all(path: Path, folder: Path) -> CocoFile:
    """Read an annotation file as training does, with every image and outline; whatever is wrong is raised."""
    from queryinst.data.images import read_image

    file = CocoFile(path, folder)
    for image in file.images:
        read_image(image)
        file.instances(image)
    return file


def names_and_polygons(objects: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(thing["name"], thing["segmentation"]) for thing in objects]


def bitmap(segmentation: dict[str, Any]) -> np.ndarray:
    height, width = segmentation["size"]
    return mask_ops.decode(segmentation).paste_into(np.zeros((height, width), np.uint8))
