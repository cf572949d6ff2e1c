"""What is said of a data set before it is trained or evaluated on."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, Run

from queryinst.data.coco import CocoFile
from queryinst.data.notes import notes

RLE = {"size": [40, 50], "counts": [500, 20, 1480]}


def source(folder: Path, count: int = 1, crowd: str = "regions", **changes: Any) -> CocoFile:
    annotation = {"image_id": 5, "category_id": 9, "bbox": [12, 20, 1, 20], "iscrowd": 0, "segmentation": RLE}
    annotations = [{**annotation, "id": number, **(changes if number == 1 else {})} for number in range(1, count + 1)]
    images = [{"id": 5, "file_name": "a.png", "height": 40, "width": 50}]
    path = folder / "x.json"
    path.write_text(json.dumps({"images": images, "categories": [{"id": 9, "name": "a"}], "annotations": annotations}))
    return CocoFile(path, folder, crowd=crowd)


def test_nothing_is_said_of_what_is_usual(tmp_path: Path):
    assert notes(source(tmp_path, 100), 100, 100) == []
    assert notes(source(tmp_path, 10, iscrowd=1), 100, 100) == [], "one in ten, as in COCO or a little more"


def test_many_crowd_regions(tmp_path: Path):
    (note,) = notes(source(tmp_path, 9, iscrowd=1), 100)
    assert note.startswith("1 of the 9 annotations of ")
    assert "neither learned nor counted" in note
    assert "data.crowd=objects" in note
    assert notes(source(tmp_path, 9, "objects", iscrowd=1), 100) == []


def test_objects_without_masks(tmp_path: Path):
    (note,) = notes(source(tmp_path, 3, segmentation=[]), 100)
    assert note.startswith("1 of the 3 objects of ")
    assert note.endswith("have a box and no mask: their boxes count, their masks do not")
    (note,) = notes(source(tmp_path, 1, segmentation=[]), 100)
    assert note.endswith("nothing here teaches or judges masks")


@pytest.mark.parametrize(("proposals", "judged", "said"), [(101, 101, 0), (100, 101, 1), (101, 100, 1), (100, 100, 2)])
def test_more_objects_than_count(tmp_path: Path, proposals: int, judged: int, said: int):
    found = notes(source(tmp_path, 101), proposals, judged)
    assert len(found) == said
    assert any("the model finds 100 at most (model.num_proposals)" in note for note in found) == (proposals == 100)
    assert any("evaluate max_detections=101" in note for note in found) == (judged == 100)


def test_a_run_on_boxes_and_crowds_says_so(workplace: Path, run: Run):
    for split in ("train", "val"):
        path = workplace / "data" / "shapes_tiny" / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            annotation["segmentation"], annotation["iscrowd"] = [], int(annotation["id"] % 3 == 0)
        path.write_text(json.dumps(content))
    settings = [*TINY, "data.shapes=null", "schedule.epochs=1"]
    code, said = run("train", *settings)
    assert code == 0, said
    assert said.count("crowd regions (iscrowd: 1)") == 2
    assert said.count("nothing here teaches or judges masks") == 2
    (checkpoint,) = Path("outputs").glob("*/best.ckpt")
    code, said = run("evaluate", f"checkpoint={checkpoint}", "max_detections=300", "crowd=objects", "accelerator=cpu")
    assert code == 0, said
    assert "AR300" in said
    assert "crowd regions" not in said
    assert said.count("nothing here teaches or judges masks") == 1
