"""The tables of names against complete lists, one made from each framework's code for every tensor of a model."""

import csv
import gzip
from pathlib import Path

import pytest
import torch

from queryinst.checkpoints.keymap import MMDET, PADDLE, TORCHVISION_BACKBONE
from queryinst.config import BackboneConfig, ModelConfig
from queryinst.models.queryinst import QueryInst

GOLDEN = Path(__file__).parents[1] / "golden"


def rows(name: str) -> list[dict[str, str]]:
    with gzip.open(GOLDEN / f"keymap_{name}.tsv.gz", "rt") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@pytest.mark.parametrize(
    ("name", "backbone", "proposals"), [("r50_100", "resnet50", 100), ("r101_300", "resnet101", 300)]
)
def test_every_tensor_of_a_published_model(name: str, backbone: str, proposals: int):
    with torch.device("meta"):
        model = QueryInst(ModelConfig(num_proposals=proposals), BackboneConfig(name=backbone), num_classes=80)
    shapes = {key: "x".join(map(str, value.shape)) or "scalar" for key, value in model.state_dict().items()}
    found = {}
    for row in rows(name):
        ours, transposed = MMDET.translate(row["mmdet_2x_3x_and_hustvl"]) or ("", False)
        assert (ours, transposed) == (row["neutral"], False)
        if row["paddle"] != "-":
            assert PADDLE.translate(row["paddle"]) == (row["neutral"], row["paddle_transform"] == "T")
        if "ONLY in hustvl" not in row["note"]:
            found[row["neutral"]] = row["torch_shape"]
    assert found == shapes


def test_names_of_nobody():
    for name in ("backbone.layer1.0.conv4.weight", "roi_head.bbox_head.0.fc_box.weight", "", "backbone"):
        assert MMDET.translate(name) is None
    assert TORCHVISION_BACKBONE.translate("fc.weight") is None
