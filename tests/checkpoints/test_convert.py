"""Converting whole models and backbones: everything used, nothing left over, and what the result is good for."""

import dataclasses
import json
import pickle
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, Run
from conftest import TINY as TINY_RUN
from test_load import saved

from queryinst.checkpoints.convert import backbone_weights, translate
from queryinst.checkpoints.load import load, start_backbone, start_from
from queryinst.checkpoints.published import convert
from queryinst.checkpoints.read import read
from queryinst.config import BackboneConfig, ModelConfig
from queryinst.errors import UserError
from queryinst.models.backbone import build_backbone
from queryinst.models.queryinst import QueryInst

sys.path.append(str(ROOT / "tests" / "golden"))
from weights import mmdet_state, write

TINY = ModelConfig(num_proposals=4, num_stages=2, width=16, dynamic_width=4, ffn_width=8)
State = dict[str, Any]


def shapes(num_classes: int = 5, model: ModelConfig = TINY) -> dict[str, tuple[int, ...]]:
    state = QueryInst(model, BackboneConfig(name="resnet18"), num_classes).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


def published(path: Path, num_classes: int = 5, meta: Any = None, **changes: Any) -> Path:
    """A file of MMDetection, with some tensors changed, added, or (None) taken away."""
    state = {name: torch.from_numpy(value) for name, value in mmdet_state(shapes(num_classes)).items()} | changes
    state = {name: value for name, value in state.items() if value is not None}
    torch.save({"meta": meta or {}, "state_dict": state}, path)
    return path


@pytest.mark.parametrize(
    ("origin", "label"), [("mmdet", "MMDetection"), ("authors", "hustvl/QueryInst"), ("paddle", "PaddleDetection")]
)
def test_every_origin_gives_the_same_model(tmp_path: Path, origin: str, label: str):
    model = ModelConfig(num_proposals=10, num_stages=3, width=64, dynamic_width=16, ffn_width=128)
    report = list(convert(write(tmp_path / "in", origin, shapes(5, model)), tmp_path / "out.safetensors"))
    assert report[0].endswith(f"in: {label}")
    assert "resnet18, 10 queries, 3 stages, width 64" in report[1]
    assert "none left over, none missing" in report[3]
    checkpoint = load(tmp_path / "out.safetensors")
    found = checkpoint.config.model
    assert (found.dynamic_width, found.ffn_width, found.mask_convs) == (16, 128, 4)
    assert (found.classification_layers, found.regression_layers, found.box_resolution) == (1, 3, 7)
    assert found.postprocess.clip_boxes == (origin == "paddle")
    expected = mmdet_state(shapes(5, model))
    weights = checkpoint.build().state_dict()
    assert weights["stages.2.box.dyn.proj.weight"].equal(
        torch.from_numpy(expected["roi_head.bbox_head.2.instance_interactive_conv.fc_layer.weight"])
    )
    mean = torch.from_numpy(expected["roi_head.mask_head.1.convs.3.bn.running_mean"])
    torch.testing.assert_close(weights["stages.1.mask.convs.3.bn.running_mean"], mean, rtol=0, atol=1e-6)


def test_keys_left_over_or_missing_are_named(tmp_path: Path):
    mean = "roi_head.mask_head.1.convs.0.bn.running_mean"
    for changes, message in (
        ({mean: None}, r"lacks 1 of \d+ tensors: stages\.1\.mask\.convs\.0\.bn\.running_mean"),
        ({"rpn_head.extra.weight": torch.zeros(2)}, r"1 of its \d+ tensors have no place .*: rpn_head\.extra\.weight"),
        ({"backbone.layer1.0.conv3.weight": torch.zeros(2)}, "the file's backbone has stages of"),
        ({"roi_head.bbox_head.1.fc_reg.bias": torch.zeros(5)}, r"another shape.*stages\.1\.box\.reg\.bias"),
        ({"roi_head.bbox_head.0.instance_interactive_conv.fc_layer.weight": None}, "is missing"),
        ({"rpn_head.init_proposal_features.weight": torch.zeros(16)}, "shapes that no QueryInst has"),
        ({"rpn_head.init_proposal_features.weight": torch.zeros(4, 0)}, "shapes that no QueryInst has"),
        ({"rpn_head.init_proposal_features.weight": torch.zeros(4, 20)}, "8 heads do not divide width 20"),
        ({"rpn_head.init_proposal_features.weight": torch.zeros(1).expand(9**9, 16)}, r"not an array of numbers"),
        ({mean: torch.zeros(16, dtype=torch.int32)}, rf"{mean} is torch\.int32"),
        ({mean: torch.full((16,), torch.nan)}, f"{mean} has NaN"),
    ):
        with pytest.raises(UserError, match=message):
            list(convert(published(tmp_path / "a.pth", **changes), tmp_path / "out.safetensors"))
    assert not (tmp_path / "out.safetensors").exists()


def test_what_is_no_checkpoint(tmp_path: Path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"holds no weights that queryinst knows .*first x\).*PaddleDetection"):
        list(convert(tmp_path / "a.pth", tmp_path / "out.safetensors"))
    with pytest.raises(UserError, match=r"name it .*out\.pth\.safetensors"):
        list(convert(tmp_path / "a.pth", tmp_path / "out.pth"))
    (tmp_path / "out.safetensors").touch()
    with pytest.raises(UserError, match="exists already"):
        list(convert(tmp_path / "a.pth", tmp_path / "out.safetensors"))
    with pytest.raises(UserError, match=r"come with python -m queryinst\.convert"):
        load(published(tmp_path / "b.pth"))


def test_odd_but_honest_files(tmp_path: Path):
    """A wrapper's prefix, shared and transposed storage, half precision, a second averaged copy, a browser's name."""
    state = {name: torch.from_numpy(value) for name, value in mmdet_state(shapes(80)).items()}
    norm = "roi_head.bbox_head.0.attention_norm."
    state[f"{norm}bias"] = state[f"{norm}weight"]
    fc = "roi_head.bbox_head.0.fc_reg.weight"
    state[fc] = state[fc].half().T.contiguous().T
    ema = {f"ema_{name.replace('.', '_')}": value for name, value in state.items()}
    names = [f"thing {k}" for k in range(80)]
    path = tmp_path / "model (1).pth"
    wrapped = {f"module.{name}": value for name, value in state.items()} | {f"module.{k}": v for k, v in ema.items()}
    torch.save({"state_dict": wrapped, "meta": {"CLASSES": names}}, path)
    report = list(convert(path, tmp_path / "a.safetensors", aligned=False))
    assert any(line.startswith("ignored") and "more" in line for line in report)
    checkpoint = load(tmp_path / "a.safetensors")
    assert (checkpoint.config.name, checkpoint.config.model.aligned) == ("model--1-", False)
    assert checkpoint.category_names == names
    assert checkpoint.weights["stages.0.box.reg.weight"].equal(state[fc].float())
    assert checkpoint.weights["stages.0.box.attn_norm.bias"].equal(state[f"{norm}weight"])
    with pytest.raises(UserError, match="is what convert writes"):
        list(convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors"))


def test_two_names_of_one_tensor_are_refused(tmp_path: Path):
    backbone_file(tmp_path / "weights", "paddle", "resnet50")
    state = pickle.loads((tmp_path / "weights").read_bytes())
    state["res4.res4b1.branch2a.conv.weight"] = state["res4.res4b.branch2a.conv.weight"]
    (tmp_path / "weights").write_bytes(pickle.dumps(state))
    with pytest.raises(UserError, match=r"res4\.res4b1\.branch2a\.conv\.weight and another tensor that are both"):
        list(convert(tmp_path / "weights", tmp_path / "b.safetensors"))


def test_paddles_bfloat16(tmp_path: Path):
    """PaddlePaddle writes the bits of bfloat16 as whole numbers, for numpy has none."""
    ours = backbone_file(tmp_path / "weights", "paddle", "resnet50")
    state = pickle.loads((tmp_path / "weights").read_bytes())
    name = "conv1.conv1.conv.weight"
    state[name] = torch.from_numpy(state[name]).bfloat16().view(torch.uint16).numpy()
    (tmp_path / "weights").write_bytes(pickle.dumps(state))
    weights = backbone_weights(translate(read(tmp_path / "weights"), "weights"), "resnet50", "weights")
    assert weights["body.conv1.weight"].equal(ours["body.conv1.weight"].bfloat16().float())


def test_options_for_others_are_refused_for_ours(tmp_path: Path):
    with pytest.raises(UserError, match="are for whole models of other projects"):
        list(convert(saved(tmp_path / "best.ckpt"), tmp_path / "a.safetensors", tmp_path / "none.json"))


def test_class_names(tmp_path: Path):
    """COCO's for eighty classes, else the file's own or those of a COCO file; never invented where they are known."""

    def names(**meta: Any) -> tuple[list[int], list[str]]:
        destination = tmp_path / "out.safetensors"
        destination.unlink(missing_ok=True)
        list(convert(published(tmp_path / "a.pth", 3, meta), destination))
        checkpoint = load(destination)
        return checkpoint.category_ids, checkpoint.category_names

    assert names(CLASSES=("a", "b", "c")) == ([1, 2, 3], ["a", "b", "c"])
    assert names(dataset_meta={"classes": ["d", "e", "f"]}) == ([1, 2, 3], ["d", "e", "f"])
    assert names(CLASSES=("a", "b")) == ([1, 2, 3], ["class 1", "class 2", "class 3"])
    annotations = tmp_path / "instances.json"
    categories = [{"id": 9, "name": "z"}, {"id": 2, "name": "x"}, {"id": 5, "name": "y"}]
    annotations.write_text(json.dumps({"categories": categories}))
    list(convert(tmp_path / "a.pth", tmp_path / "named.safetensors", annotations))
    assert load(tmp_path / "named.safetensors").category_ids == [2, 5, 9]
    annotations.write_text(json.dumps({"categories": categories[:2]}))
    with pytest.raises(UserError, match="for 3 classes, but .* has 2 categories"):
        list(convert(tmp_path / "a.pth", tmp_path / "other.safetensors", annotations))
    report = list(convert(published(tmp_path / "coco.pth", 80), tmp_path / "coco.safetensors"))
    assert "80: person, bicycle, car, motorcycle, airplane, ..." in report[2]
    checkpoint = load(tmp_path / "coco.safetensors")
    assert (checkpoint.category_ids[-1], checkpoint.category_names[-1]) == (90, "toothbrush")


def test_fine_tuning_with_other_classes(tmp_path: Path):
    list(convert(published(tmp_path / "a.pth", 80), tmp_path / "a.safetensors"))
    model = QueryInst(TINY, BackboneConfig(name="resnet18"), num_classes=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = start_from(model, TINY, str(tmp_path / "a.safetensors"), ["a", "b", "c"])
    assert "4 class layers start fresh (80 classes there, 3 here)" in report  # two heads, two stages
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert not any(".box.cls." in name or ".mask.logits." in name for name in changed)
    assert {"queries.features", "stages.1.mask.up.weight", "backbone.body.conv1.weight"} <= changed


def test_our_own_checkpoint(tmp_path: Path):
    path = saved(tmp_path / "best.ckpt")
    report = list(convert(path, tmp_path / "mine.safetensors"))
    assert "our own checkpoint" in report[0]
    content, found = torch.load(path, weights_only=True), load(tmp_path / "mine.safetensors")
    assert dataclasses.asdict(found.config) == content["queryinst"]["config"]
    assert (found.category_ids, found.category_names) == ([0, 1, 2], ["class 0", "class 1", "class 2"])
    assert {f"model.{name}" for name in found.weights} == set(content["state_dict"])
    assert all(value.equal(found.weights[name.removeprefix("model.")]) for name, value in content["state_dict"].items())


def backbone_file(path: Path, kind: str, name: str) -> dict[str, torch.Tensor]:
    """A weight file of a backbone as `kind` publishes it; returns our names and values."""
    torch.manual_seed(1)
    model = build_backbone(BackboneConfig(name=name, frozen_stages=-1))
    ours = {key: value for key, value in model.state_dict().items() if not key.startswith("out_norms")}
    plain = {key.removeprefix("body."): value for key, value in ours.items()}
    if kind == "torchvision":
        torch.save(plain | {"fc.weight" if name.startswith("resnet") else "head.weight": torch.zeros(3)}, path)
    elif kind == "microsoft":
        theirs = {microsoft_name(key): value for key, value in plain.items()}
        torch.save(
            {"model": theirs | {"head.bias": torch.zeros(3), "layers.0.blocks.1.attn_mask": torch.zeros(1)}}, path
        )
    else:
        theirs = {paddle_name(key): value.numpy() for key, value in plain.items() if "num_batches" not in key}
        path.write_bytes(pickle.dumps(theirs | {"StructuredToParameterName@@": {}}))
    return ours


def microsoft_name(name: str) -> str:
    """torchvision's name of a Swin parameter in Microsoft's code."""
    first, index, *rest = name.split(".")
    assert first == "features"
    if index == "0":
        return ".".join(["patch_embed", {"0": "proj", "2": "norm"}[rest[0]], *rest[1:]])
    if int(index) % 2 == 0:
        return ".".join(["layers", str(int(index) // 2 - 1), "downsample", *rest])
    block, *rest = ".".join(rest).replace("mlp.0", "mlp.fc1").replace("mlp.3", "mlp.fc2").split(".")
    return ".".join(["layers", str(int(index) // 2), "blocks", block, *rest])


def paddle_name(name: str) -> str:
    """torchvision's name of a ResNet parameter in PaddleDetection."""
    leaf = name.rpartition(".")[2].replace("running_mean", "_mean").replace("running_var", "_variance")
    if not name.startswith("layer"):
        return f"conv1.conv1.{'norm' if name.startswith('bn') else 'conv'}.{leaf}"
    layer, block, what, *rest = name.split(".")
    place = f"res{int(layer[5:]) + 1}.res{int(layer[5:]) + 1}{'abcdefghij'[int(block)]}"
    if what == "downsample":
        return f"{place}.short.{'conv' if rest[0] == '0' else 'norm'}.{leaf}"
    return f"{place}.branch2{'abc'[int(what[-1]) - 1]}.{'norm' if what.startswith('bn') else 'conv'}.{leaf}"


@pytest.fixture(scope="module")
def another() -> torch.nn.Module:
    return build_backbone(BackboneConfig(name="resnet34"))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("torchvision", "resnet18"), ("paddle", "resnet50"), ("torchvision", "swin_t"), ("microsoft", "swin_t")],
)
def test_backbones(tmp_path: Path, another: torch.nn.Module, kind: str, name: str):
    """Straight from the file, and through the converter."""
    ours = backbone_file(tmp_path / "weights", kind, name)
    report = list(convert(tmp_path / "weights", tmp_path / "b.safetensors"))
    assert f"backbone {name}" in report[1]
    backbone = build_backbone(BackboneConfig(name=name))
    for file in ("weights", "b.safetensors"):
        state = backbone.state_dict()  # the very tensors
        for value in state.values():
            value.zero_()
        assert "tensors from" in start_backbone(backbone, name, str(tmp_path / file))
        assert all(value.equal(state[key]) for key, value in ours.items() if "num_batches" not in key)
    for file in ("weights", "b.safetensors"):
        with pytest.raises(UserError, match=rf"{name}.*resnet34"):
            start_backbone(another, "resnet34", str(tmp_path / file))


def test_a_whole_model_is_no_backbone(tmp_path: Path):
    with pytest.raises(UserError, match="whole model of MMDetection, not a backbone"):
        backbone_weights(translate(torch.load(published(tmp_path / "a.pth")), "a.pth"), "resnet18", "a.pth")


def test_the_command_and_what_its_result_is_good_for(workplace: Path, run: Run):
    """A model for the classes of `shapes_tiny`, in MMDetection's file, is evaluated, predicts, and is fine-tuned."""
    val, few = workplace / "val.json", workplace / "few"  # two images, for they are resized as COCO's
    content = json.loads((workplace / "data/shapes_tiny/annotations/instances_val.json").read_text())
    content["images"] = content["images"][:2]
    kept = {image["id"]: image["file_name"] for image in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    val.write_text(json.dumps(content))
    few.mkdir()
    for name in kept.values():
        shutil.copy(workplace / "data/shapes_tiny/images/val" / name, few)
    published(workplace / "a.pth", 8)
    arguments = ("convert", "a.pth", "a.safetensors", "--annotations", str(val))
    code, out = run(*arguments)
    assert code == 0, out
    assert "8: circle, square, triangle, star, ring, ..." in out
    code, out = run(*arguments)
    assert (code, out.count("\n")) == (2, 1)
    assert out.startswith("error: a.safetensors exists already")
    of_val = (f"images={few}", f"annotations={val}", "num_workers=0")
    code, out = run("evaluate", "checkpoint=a.safetensors", *of_val)
    assert code == 0, out
    assert "mask AP by class" in out
    code, out = run("predict", "checkpoint=a.safetensors", f"source={few}", "score=0")
    assert code == 0, out
    found = json.loads(Path("predictions/predictions.json").read_text())
    assert {entry["category_id"] for entry in found} <= {3, 7, 8, 15, 22, 40, 41, 90}
    assert len(found) == 2 * 4
    model = [
        "model.num_proposals=4",
        "model.num_stages=2",
        "model.width=16",
        "model.dynamic_width=4",
        "model.ffn_width=8",
    ]
    model += ["model.num_heads=8", "model.regression_layers=3", "model.mask_convs=4", "trainer.max_train_batches=1"]
    code, out = run("train", *TINY_RUN, *model, "backbone=resnet18", "backbone.weights=null", "weights=a.safetensors")
    assert code == 0, out
    assert re.search(r"weights +\d+ of \d+ tensors from a\.safetensors\n", out)
