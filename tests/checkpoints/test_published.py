"""What a conversion says and writes, line by line and value by value, and every mistake as the user reads it."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_convert import TINY
from test_load import saved

from queryinst.checkpoints import published as module
from queryinst.checkpoints.coco_names import COCO
from queryinst.checkpoints.convert import ORIGINS, Origin, Translated
from queryinst.checkpoints.load import Checkpoint, load
from queryinst.checkpoints.published import convert
from queryinst.checkpoints.read import read_safetensors
from queryinst.config import BackboneConfig, PostprocessConfig, TrainConfig
from queryinst.errors import UserError

BLOCKS = [f"body.layer{layer}.{block}.conv1.weight" for layer in range(1, 5) for block in range(2)]
PADDLE, MMDETECTION = ORIGINS[0], ORIGINS[2]


def said(source: Path, destination: Path, *arguments: Any) -> str:
    """The report, or the mistake."""
    destination.unlink(missing_ok=True)
    try:
        return "\n".join(convert(source, destination, *arguments))
    except UserError as error:
        return f"error: {error}"


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def written(path: Path, source: Path) -> str:
    size = path.stat().st_size / 1e6
    return f"written       {path} ({size:.1f} MB); sha256 of the source {digest(source)}"


def a_file(monkeypatch: pytest.MonkeyPatch, path: Path, origin: Origin, ignored: list[str]) -> Translated:
    """A file whose content is translated into two tensors of that origin."""
    torch.save({"content": 1}, path)
    translated = Translated(origin, {"a": torch.ones(2), "b": torch.ones(1)}, ignored)
    monkeypatch.setattr(
        module, "translate", lambda *arguments: translated if arguments == ({"content": 1}, str(path)) else None
    )
    return translated


@pytest.mark.parametrize("ignored", [[], ["x", "y"]])
def test_a_whole_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, untrained: Path, ignored: list[str]):
    source, destination, annotations = tmp_path / "a (2).pth", tmp_path / "o.safetensors", tmp_path / "c.json"
    translated, made = a_file(monkeypatch, source, MMDETECTION, ignored), load(untrained)
    asked = []
    monkeypatch.setattr(module, "_whole", lambda *arguments: asked.append(arguments) or made)
    lines = said(source, destination, annotations, False).splitlines()
    parameters = sum(value.numel() for value in made.build().parameters()) / 1e6
    assert lines == [
        f"source        {source}: MMDetection",
        f"architecture  tiny, 6 queries, 2 stages, width 16; {parameters:.1f} M parameters",
        "classes       3: cat, dog, traffic light",
        "used          2 tensors under our names, none left over, none missing",
        *(["ignored       x, y: follow from the architecture, or are no weights"] if ignored else []),
        written(destination, source),
    ]
    assert asked == [({"content": 1}, translated, source, annotations, False)]
    assert read_safetensors(destination)[1] == {
        "kind": "model",
        "config": dataclasses.asdict(made.config),
        "category_ids": [4, 7, 90],
        "category_names": ["cat", "dog", "traffic light"],
        "source": {"file": "a (2).pth", "sha256": digest(source), "label": "MMDetection"},
    }


@pytest.mark.parametrize(
    ("names", "line"),
    [
        ("abcde", "classes       5: a, b, c, d, e"),
        ("abcdef", "classes       6: a, b, c, d, e, ..."),
    ],
)
def test_a_model_is_described(names: str, line: str):
    weights = {
        "w": torch.zeros(300, 500),
        "b.running_mean": torch.zeros(90_000),
        "b.running_var": torch.zeros(90_000),
        "b.num_batches_tracked": torch.zeros(90_000),
        "c.relative_position_index": torch.zeros(90_000),
    }
    config = TrainConfig(model=dataclasses.replace(TINY, num_stages=3), backbone=BackboneConfig(name="resnet34"))
    checkpoint = Checkpoint(Path("x"), config, list(range(len(names))), list(names), weights)
    assert list(module._describe(checkpoint)) == [
        "architecture  resnet34, 4 queries, 3 stages, width 16; 0.1 M parameters",
        line,
    ]


def test_our_own_checkpoint(tmp_path: Path):
    source, destination = saved(tmp_path / "best.ckpt"), tmp_path / "o.safetensors"
    model = load(source).build()
    parameters = sum(value.numel() for value in model.parameters()) / 1e6
    assert said(source, destination).splitlines() == [
        f"source        {source}: our own checkpoint",
        f"architecture  tiny, 6 queries, 2 stages, width 16; {parameters:.1f} M parameters",
        "classes       3: class 0, class 1, class 2",
        written(destination, source),
    ]
    assert read_safetensors(destination)[1]["source"] == {
        "file": "best.ckpt",
        "sha256": digest(source),
        "label": "queryinst",
    }
    only = "error: --annotations and --unaligned are for whole models of other projects; this file is none"
    assert said(source, destination, tmp_path / "x.json") == only
    assert said(source, destination, None, False) == only
    content = torch.load(source, weights_only=True)
    del content["state_dict"]["model.queries.boxes"]
    torch.save(content, source)
    assert said(source, destination) == f"error: {source} lacks 1 of {len(model.state_dict())} tensors: queries.boxes"
    assert not destination.exists()


def test_a_backbone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    source, destination = tmp_path / "a.pth", tmp_path / "o.safetensors"
    translated = a_file(monkeypatch, source, ORIGINS[5], [])
    state = {"body.w": torch.arange(3.0)}
    monkeypatch.setattr(module, "backbone_of", lambda weights: BackboneConfig(name="resnet34" if weights else "tiny"))
    asked = []
    monkeypatch.setattr(module, "backbone_weights", lambda *arguments: asked.append(arguments) or state)
    assert said(source, destination).splitlines() == [
        f"source        {source}: a ResNet of torchvision",
        f"architecture  backbone resnet34; use it with backbone=resnet34 backbone.weights={destination}",
        "used          2 tensors under our names, none left over, none missing",
        written(destination, source),
    ]
    assert asked == [(translated, "resnet34", str(source))]
    tensors, record = read_safetensors(destination)
    origin = {"file": "a.pth", "sha256": digest(source), "label": "a ResNet of torchvision"}
    assert record == {"kind": "backbone", "name": "resnet34", "source": origin}
    assert {name: value.tolist() for name, value in tensors.items()} == {"body.w": [0, 1, 2]}
    again = tmp_path / "again.safetensors"
    assert said(destination, again) == f"error: {destination} is what convert writes: use it as it is"
    only = "error: --annotations and --unaligned are for whole models of other projects; this file is none"
    assert said(source, destination, tmp_path / "x.json") == only
    assert said(source, destination, None, False) == only


def test_a_safetensors_file_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    source = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(2)}, source)
    asked = []

    def refuse(content: Any, where: str) -> None:
        asked.append(({name: value.tolist() for name, value in content.items()}, where))
        raise UserError("it was asked")

    monkeypatch.setattr(module, "translate", refuse)
    assert said(source, tmp_path / "o.safetensors") == "error: it was asked"
    assert asked == [({"w": [1, 1]}, str(source))]


def test_the_destination(tmp_path: Path):
    source, there = tmp_path / "a.pth", tmp_path / "b.safetensors"
    for destination, sentence in (
        (tmp_path / "b.pth", f"the result is a safetensors file: name it {tmp_path / 'b.pth.safetensors'}"),
        (there, f"{there} exists already; delete it, or give another name"),
    ):
        there.touch()
        with pytest.raises(UserError) as caught:
            list(convert(source, destination))
        assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("stem", "name"),
    [("r50", "r50"), ("a.b-c_d+é", "a.b-c_d+é"), (".-+x.-+", "x.-+"), ("((", "converted"), ("a b", "a-b")],
)
@pytest.mark.parametrize("origin", [PADDLE, MMDETECTION])
def test_a_whole_model_s_checkpoint(monkeypatch: pytest.MonkeyPatch, stem: str, name: str, origin: Origin):
    """Its architecture is that of the weights, its choice of detections that of the project, its name the file's."""
    weights = {f"backbone.{key}": torch.zeros(1) for key in BLOCKS} | {"x.backbone.body": torch.ones(1)}
    built, proved = [], []
    monkeypatch.setattr(module, "model_of", lambda state: (TINY, 3) if state is weights else None)
    monkeypatch.setattr(module, "QueryInst", lambda *arguments: built.append(arguments) or "network")
    monkeypatch.setattr(module, "complete", lambda *arguments: proved.append(arguments) or {"w": 1})
    source = Path("in") / f"{stem}.pth"
    checkpoint = module._whole({"meta": {"CLASSES": "xyz"}}, Translated(origin, weights, []), source, None, False)
    postprocess = PostprocessConfig(100, True, 1.0) if origin is PADDLE else TINY.postprocess
    model, backbone = dataclasses.replace(TINY, aligned=False, postprocess=postprocess), BackboneConfig(name="resnet18")
    assert built == [(model, backbone, 3)]
    assert proved == [(weights, "network", str(source))]
    config = TrainConfig(name=name, model=model, backbone=backbone)
    assert checkpoint == Checkpoint(source, config, [1, 2, 3], ["class 1", "class 2", "class 3"], {"w": 1})


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"CLASSES": ["a", "b", "c"], "classes": ["d", "e", "f"]}, "abc"),
        ({"CLASSES": ("a", "b", "c")}, "abc"),
        ({"classes": ["d", "e", "f"]}, "def"),
        ({"CLASSES": ["a", "b", "c"], "dataset_meta": {"classes": ["d", "e", "f"]}}, "def"),
        ({"CLASSES": ["a", "b", "c"], "dataset_meta": {"CLASSES": []}}, "abc"),
        ({"CLASSES": ["a", "b", "c"], "dataset_meta": 5}, "abc"),
        ({"CLASSES": ["a", "b"]}, None),
        ({"CLASSES": ["a", "b", 3]}, None),
        ({"CLASSES": "abc"}, None),
        ({}, None),
        (5, None),
    ],
)
def test_names_that_the_file_itself_has(meta: Any, names: str | None):
    expected = list(names) if names else ["class 1", "class 2", "class 3"]
    found = module._classes({"meta": meta}, 3, None)
    assert list(found.items()) == list(enumerate(expected, 1))
    assert module._classes({}, 2, None) == module._classes([], 2, None) == {1: "class 1", 2: "class 2"}


def test_names_of_a_coco_file(tmp_path: Path):
    path = tmp_path / "c.json"
    entries = [{"id": 9, "name": "z"}, {"id": 2, "name": 5}, {"id": 5.0, "name": "y"}]
    path.write_text(json.dumps({"categories": entries}))
    found = module._classes({"meta": {"CLASSES": ["a", "b", "c"]}}, 3, path)
    assert list(found.items()) == [(2, "5"), (5, "y"), (9, "z")]
    unreadable = f"--annotations {path} cannot be read as a COCO file "
    for content, sentence in (
        ({"categories": entries[:2]}, f"the weights are for 3 classes, but {path} has 2 categories"),
        ({}, f"{unreadable}(KeyError('categories'))"),
        ({"categories": 5}, f"{unreadable}(TypeError(\"'int' object is not iterable\"))"),
        (
            {"categories": [{"id": "x", "name": "y"}]},
            f"{unreadable}(ValueError(\"invalid literal for int() with base 10: 'x'\"))",
        ),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(UserError) as caught:
            module._classes({}, 3, path)
        assert str(caught.value) == sentence
    with pytest.raises(UserError) as caught:
        module._classes({}, 3, tmp_path / "none.json")
    assert "cannot be read as a COCO file (FileNotFoundError(" in str(caught.value)


def test_eighty_classes_are_coco_s_unless_the_file_says_otherwise():
    own = [f"thing {k}" for k in range(80)]
    assert module._classes({}, 80, None) == COCO
    assert module._classes({"meta": {"CLASSES": list(COCO.values())}}, 80, None) == COCO
    assert module._classes({"meta": {"CLASSES": own}}, 80, None) == dict(enumerate(own, 1))
    assert module._classes({}, 79, None) == {k: f"class {k}" for k in range(1, 80)}
    assert (len(COCO), COCO[1], COCO[13], COCO[67], COCO[90]) == (
        80,
        "person",
        "stop sign",
        "dining table",
        "toothbrush",
    )
