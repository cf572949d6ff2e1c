"""Networks of timm and torchvision as a user has them: train two steps, evaluate, predict, export. No download."""

import json
from pathlib import Path

import pytest
from conftest import SHORT, SMALL, Run

from queryinst.checkpoints import exported
from queryinst.checkpoints.load import Checkpoint, load, save
from queryinst.config import BackboneConfig, DataConfig, ModelConfig, TrainConfig
from queryinst.errors import UserError
from queryinst.models.exportable import Exportable
from queryinst.models.queryinst import QueryInst

DINO = [f"+backbone.args.{setting}" for setting in ("depth=4", "embed_dim=32", "num_heads=2")]
KINDS = {
    "mobilenet": ["backbone=torchvision", "backbone.name=torchvision:mobilenet_v2", "backbone.weights=null"],
    "convnext": ["backbone=timm", "backbone.name=timm:test_convnext", "backbone.drop_path=0.2"],
    "efficientnet": ["backbone=timm", "backbone.name=timm:test_efficientnet", "backbone.norm=batch"],
    "vit": ["backbone=timm", "backbone.name=timm:test_vit", "backbone.checkpointing=true"],
    "dinov3": ["backbone=timm", "backbone.name=timm:vit_small_patch16_dinov3", *DINO],
}
SETTINGS = [
    "model.num_stages=1",
    "trainer.max_val_batches=1",
    "trainer.max_train_batches=2",
    "optimizer.layer_decay=0.8",
]


ONNX = ("vit", "dinov3", "efficientnet")  # of the others below
SLOW = ("efficientnet", "dinov3")  # half a minute each, for what the others show of timm's networks


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else []) for kind in KINDS]
)
def test_train_evaluate_predict_export(kind: str, workplace: Path, run: Run):
    command = ["train", *SHORT, *SETTINGS, "optimizer.undecayed_vectors=true", *KINDS[kind]]
    code, text = run(*command)
    assert code == 0, text
    (folder,) = (workplace / "outputs").iterdir()
    record, best = json.loads((folder / "result.json").read_text()), folder / "best.ckpt"
    assert record["steps"] == 2
    assert "this run is finished" in run(*command)[1]

    before, after = load(best).build().state_dict(), load(best).weights
    assert before.keys() == after.keys()
    assert {"backbone.scale", "backbone.shift"} <= after.keys(), "a checkpoint holds what its images are changed by"

    code, text = run("evaluate", f"checkpoint={best}", "output=again.json")
    assert code == 0, text
    assert json.loads((workplace / "again.json").read_text())["metrics"] == record["metrics"]

    for precision in ("fp32", "bf16") if kind == "vit" else ("fp32",):
        asked = [f"checkpoint={best}", "source=data/shapes_tiny/images/val", "score=0", f"precision={precision}"]
        code, text = run("predict", *asked, f"output={precision}")
        assert code == 0, text
        assert json.loads((workplace / precision / "predictions.json").read_text())

    file = "model.onnx" if kind in ONNX else "model.pt2"
    code, text = run("export", str(best), file, "--max-detections", "5")
    assert code == 0, text
    assert "agreement " in text, "at two sizes and two numbers of images other than those it was made with"
    assert (workplace / file).exists()


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "timm:test_convnext"])
def test_untrained_it_becomes_onnx_too(name: str, tmp_path: Path, run: Run):
    code, text = run(
        "export", str(checkpoint_of(name, tmp_path)), str(tmp_path / "model.onnx"), "--max-detections", "5"
    )
    assert code == 0, text
    assert "agreement " in text


def checkpoint_of(name: str, folder: Path) -> Path:
    config = TrainConfig(
        model=ModelConfig(**SMALL), backbone=BackboneConfig(name=name, frozen_stages=-1), data=DataConfig()
    )
    path = folder / "model.safetensors"
    weights = QueryInst(config.model, config.backbone, 1).state_dict()
    save(Checkpoint(path, config, [1], ["one"], weights), path, {})
    return path


def test_a_network_that_cannot_be_exported_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run):
    """Swins are known for it; of others torch says it, in many lines."""

    def trace(exportable: Exportable) -> None:
        raise RuntimeError("\n\n  Constraints violated (height)!\n  - a guard\n")

    monkeypatch.setattr(exported, "trace", trace)
    for name, reason in (
        ("swin_t", "how a Swin cuts its windows"),
        ("mobilenet_v2", "(Constraints violated (height)!)"),
    ):
        path = checkpoint_of(f"torchvision:{name}", tmp_path)
        code, text = run("export", str(path), str(tmp_path / "model.pt2"))
        assert code == 2
        assert text.splitlines()[-1].startswith(
            f"error: {path} has the backbone torchvision:{name}, which cannot be exp"
        )
        assert reason in text.splitlines()[-1]
        assert not (tmp_path / "model.pt2").exists()


def test_a_head_of_ones_own_that_cannot_be_exported_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def trace(exportable: Exportable) -> None:
        raise RuntimeError("data-dependent\nmore")

    monkeypatch.setattr(exported, "trace", trace)
    config = TrainConfig()
    checkpoint = Checkpoint(tmp_path / "a.ckpt", config, [1], ["one"], {})
    with pytest.raises(RuntimeError):  # a fault of ours
        exported._traced(None, checkpoint)
    config.model.mask_head.name = "my_heads:Mask"
    with pytest.raises(UserError, match=r"has the mask head my_heads:Mask, which cannot be exported .*\(data-dep"):
        exported._traced(None, checkpoint)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["backbone.name=timm:hf-hub:timm/resnet18"], "takes a network of timm by its name"),
        (["backbone.name=timm:local-dir:weights"], "takes a network of timm by its name"),
        (["backbone.name=torchvision:../x"], "takes a network of torchvision by its name"),
        (["backbone.name=timm:test_vit", "+backbone.args.pretrained=true"], "backbone.args.pretrained is no setting"),
        (["backbone.name=timm:test_vit", "+backbone.args.depth=x/y"], "backbone.args.depth takes numbers and words"),
        (["backbone.name=timm:test_vi"], "timm has no network 'test_vi'; did you mean 'test_vit"),
        (["backbone.name=timm:test_vit", "trainer.sync_batchnorm=true"], "trainer.sync_batchnorm"),
    ],
)
def test_mistakes_leave_nothing_behind(settings: list[str], sentence: str, workplace: Path, run: Run):
    code, text = run("train", *SHORT, "backbone=timm", *settings)
    assert code == 2
    assert text.count("\n") == 1
    assert sentence in text
    assert not (workplace / "outputs").exists() or not list((workplace / "outputs").iterdir())
