"""Which data a model is evaluated on, and who reads it."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from queryinst.command_config import EvaluateConfig
from queryinst.config import DataConfig, TrainConfig
from queryinst.data.coco import CocoFile
from queryinst.data.own import ReadFile
from queryinst.errors import UserError
from queryinst.evaluate import _source
from queryinst.part_config import PartConfig

READER = (
    "import json\nclass Lines:\n    def __call__(self, path): return json.loads(path.read_text().split('\\n')[1])\n"
)
COCO = {"images": [{"id": 1, "file_name": "a.png", "height": 8, "width": 8}], "annotations": []}
COCO["categories"] = [{"id": 1, "name": "a"}]


def config(folder: Path, text: str, *allow: str) -> EvaluateConfig:
    (folder / "own.txt").write_text(text)
    return EvaluateConfig(checkpoint="x.ckpt", images=".", annotations="own.txt", allow=list(allow))


def test_other_data_is_read_as_the_run_read_its_own_where_that_is_allowed(
    write: Callable[[str, str], Path], tmp_path: Path
):
    write("my_lines.py", READER)
    trained = TrainConfig(data=DataConfig(reader=PartConfig("my_lines:Lines")))
    checkpoint = SimpleNamespace(config=trained)
    lines = f"first\n{json.dumps(COCO)}"
    source = _source(config(Path.cwd(), lines, "my_lines"), checkpoint)
    assert isinstance(source, ReadFile)
    assert source.categories.names == ("a",)
    with pytest.raises(UserError, match="cannot be read as JSON"):  # it is COCO's then
        _source(config(Path.cwd(), lines), checkpoint)
    assert type(_source(config(Path.cwd(), json.dumps(COCO)), checkpoint)) is CocoFile
