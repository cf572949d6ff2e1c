"""The tables of names against complete lists, one made from each framework's code for every tensor of a model."""

import csv
import gzip
from pathlib import Path

import pytest
import torch

from queryinst.checkpoints.keymap import MMDET, PADDLE, RESNET, TORCHVISION_BACKBONE, Names, _queryinst
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


TABLE = """
ours         mmdet      paddle
a.{k}.       b.{3k}.    c.{k+2}.             T
d.{l}.{b}.   -          e{l+1}{letter_b}.
f            g          h                    T
"""


def test_a_table_is_read_line_by_line_with_every_number_in_its_fields():
    names = Names((TABLE, "mmdet", "ours.", "theirs."), (RESNET, "torchvision", "", ""))
    for theirs, ours in (
        ("theirs.b.0.weight", "ours.a.0.weight"),
        ("theirs.b.57._mean", "ours.a.19.running_mean"),
        ("theirs.g", "ours.f"),
        ("layer4.2.bn1._variance", "body.layer4.2.bn1.running_var"),
        ("theirs.b.60.weight", None),
        ("theirs.b.2.weight", None),
        ("b.0.weight", None),
        ("theirs.-", None),
        ("ours.a.0.weight", None),
    ):
        assert names.translate(theirs) == (ours and (ours, False))


def test_of_paddle_a_line_with_t_has_its_weight_turned():
    names = Names((TABLE, "paddle", "", ""))
    for theirs, expected in (
        ("c.2.weight", ("a.0.weight", True)),
        ("c.21.bias", ("a.19.bias", False)),
        ("e2a.weight", ("d.1.0.weight", False)),
        ("e5z.weight", ("d.4.25.weight", False)),
        ("hweight", ("fweight", True)),
        ("h", ("f", False)),
        ("e6a.weight", None),
    ):
        assert names.translate(theirs) == expected


def test_a_whole_model_is_trunk_heads_and_backbone():
    names = _queryinst("mmdet", "B{s}.", "M{s}.", (RESNET, "torchvision"))
    for theirs, ours in (
        ("neck.fpn_convs.0.conv.weight", "neck.output.0.weight"),
        ("B3.fc_cls.weight", "stages.3.box.cls.weight"),
        ("M19.upsample.bias", "stages.19.mask.up.bias"),
        ("backbone.conv1.weight", "backbone.body.conv1.weight"),
        ("backbone.patch_embed.proj.weight", None),
    ):
        assert names.translate(theirs) == (ours and (ours, False))
