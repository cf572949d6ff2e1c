"""The doctor examines what a reader of one's own makes of a data set."""

from pathlib import Path

import pytest

from queryinst.config import DataConfig
from queryinst.data.doctor import examine
from queryinst.errors import UserError
from queryinst.part_config import PartConfig

READER = """
class Boxes:
    def __init__(self, width: float = 4.0):
        self.width = width
    def __call__(self, path):
        if path.read_text() != "boxes":
            raise ValueError("no boxes")
        box = [2, 2, self.width, 8]
        one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 8 * self.width, "iscrowd": 0,
               "segmentation": [[2, 2, 2 + self.width, 2, 2 + self.width, 10, 2, 10]]}
        images = [{"id": 1, "file_name": f"{path.stem}.png", "height": 32, "width": 32}]
        return {"images": images, "annotations": [one], "categories": [{"id": 1, "name": "box"}]}
"""


def data(folder: Path, monkeypatch: pytest.MonkeyPatch, content: str = "boxes", **arguments: float) -> DataConfig:
    (folder / "reader_of_boxes.py").write_text(READER)
    for name in ("train", "val"):
        (folder / f"{name}.txt").write_text(content)
    monkeypatch.syspath_prepend(folder)
    places = {"train_images": ".", "val_images": ".", "train_annotations": "train.txt", "val_annotations": "val.txt"}
    return DataConfig(root=str(folder), reader=PartConfig("reader_of_boxes:Boxes", arguments), **places)


def test_what_it_reads_is_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    report = examine(data(tmp_path, monkeypatch), images="none")
    assert report.clean
    assert [survey.annotations for survey in report.surveys.values()] == [1, 1]
    wrong = examine(data(tmp_path, monkeypatch, width=-4.0), images="none")
    assert {(finding.split, finding.code) for finding in wrong.findings} >= {
        ("train", "box-negative"),
        ("val", "box-negative"),
    }


def test_one_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"reader_of_boxes:Boxes \(data.reader\) cannot read .*ValueError: no boxes"):
        examine(data(tmp_path, monkeypatch, content="circles"), images="none")
