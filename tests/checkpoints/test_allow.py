"""A checkpoint names code and never runs it: nothing is imported that the user has not allowed by name."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Run, Write, shapes_config

import queryinst
from queryinst.checkpoints.exported import export
from queryinst.checkpoints.load import load, start_from
from queryinst.checkpoints.published import convert
from queryinst.config import BackboneConfig, ModelConfig, TrainConfig
from queryinst.errors import UserError
from queryinst.models.queryinst import QueryInst
from queryinst.part_config import PartConfig
from queryinst.slots import sources

HOSTILE = """
    import pathlib
    pathlib.Path("ran").touch()
    from queryinst.models.box_head import BoxHead
    from queryinst.models.mask_head import MaskHead
    from queryinst.models.backbone import TinyNet

    class Box(BoxHead):
        pass

    class Mask(MaskHead):
        pass

    class Net(TinyNet):
        pass

    class Metric:
        def __init__(self, content):
            pass

        def reset(self):
            pass

        def update(self, image_ids, found):
            pass

        def compute(self):
            return {"one": 1.0}

    class Reader:
        def __call__(self, path):
            import json
            return json.loads(path.read_text())
"""

SLOTS: dict[str, Callable[[TrainConfig], Any]] = {
    "backbone": lambda config: setattr(config.backbone, "name", "hostile:Net"),
    "model.box_head": lambda config: setattr(config.model.box_head, "name", "hostile:Box"),
    "model.mask_head": lambda config: setattr(config.model.mask_head, "name", "hostile:Mask"),
}
BESIDE: dict[str, Callable[[TrainConfig], Any]] = {
    "data.reader": lambda config: setattr(config.data.reader, "name", "hostile:Reader"),
    "metrics": lambda config: config.metrics.update(mine={"name": "hostile:Metric"}),
    "callbacks": lambda config: config.callbacks.extra.update(mine={"_target_": "hostile.Metric"}),
    "logger": lambda config: config.logger.extra.update(mine={"_target_": "hostile.Metric"}),
    "criterion.terms": lambda config: config.criterion.terms.update(mine={"name": "hostile:Metric"}),
    "criterion.costs": lambda config: config.criterion.costs.update(mine={"name": "hostile:Metric"}),
    "criterion.classification": lambda config: setattr(config.criterion.classification, "name", "hostile:Metric"),
    "augmentation.steps": lambda config: config.augmentation.steps.update(mine={"name": "hostile:Metric"}),
}
NAMES = {"backbone": "hostile:Net", "model.box_head": "hostile:Box", "model.mask_head": "hostile:Mask"}


def checkpoint(
    folder: Path,
    *changes: Callable[[TrainConfig], Any],
    parts: dict[str, str] | None = None,
    network: QueryInst | None = None,
) -> Path:
    """A checkpoint of a small network on the small data whose configuration was changed so."""
    torch.manual_seed(0)
    config = shapes_config(
        model=ModelConfig(**SMALL), backbone=BackboneConfig(name="tiny", frozen_stages=-1, norm="batch")
    )
    config.augmentation.test_short_side, config.augmentation.long_side = 64, 96
    weights = (network or QueryInst(config.model, config.backbone, 8)).state_dict()
    for change in changes:
        change(config)
    file = folder / "data/shapes_tiny/annotations/instances_val.json"
    named = [{"id": number, "name": f"class {number}"} for number in range(1, 9)]
    classes = json.loads(file.read_text())["categories"] if file.exists() else named
    record = {
        "config": dataclasses.asdict(config),
        "category_ids": [one["id"] for one in classes],
        "category_names": [one["name"] for one in classes],
        "parts": parts or {},
    }
    path = folder / "best.ckpt"
    torch.save({"state_dict": {f"model.{name}": value for name, value in weights.items()}, "queryinst": record}, path)
    return path


@pytest.fixture
def hostile(write: Write, tmp_path: Path) -> Path:
    write("hostile.py", HOSTILE)
    return tmp_path


def ran(folder: Path) -> bool:
    return (folder / "ran").exists() or "hostile" in sys.modules


def refusal(path: Path, key: str) -> str:
    return (
        f"{path} needs {NAMES[key]} ({key}), code that is not in the file: if you trust it, add allow=[hostile] to the "
        "command (--allow MODULE for export and convert)"
    )


@pytest.mark.parametrize("key", SLOTS)
def test_a_network_is_not_built_of_code_that_is_not_allowed(hostile: Path, key: str):
    path = checkpoint(hostile, SLOTS[key])
    with pytest.raises(UserError) as caught:
        queryinst.load(path)
    assert str(caught.value) == refusal(path, key)
    assert load(path).category_names[0] == "class 1"  # reading alone asks for nothing
    assert not ran(hostile)
    assert queryinst.load(path, device="cpu", allow=["hostile"]).model.num_classes == 8
    assert ran(hostile)


@pytest.mark.parametrize("allowed", ["hostile.py", "hostil", "queryinst", "*", "hostile:Net2", ""])
def test_what_allows_something_else_allows_nothing(hostile: Path, allowed: str):
    with pytest.raises(UserError, match="code that is not in the file"):
        queryinst.load(checkpoint(hostile, SLOTS["backbone"]), allow=[allowed])
    assert not ran(hostile)


@pytest.mark.parametrize("key", BESIDE)
def test_what_a_trained_network_does_not_need_is_neither_imported_nor_asked_for(hostile: Path, key: str):
    path = checkpoint(hostile, BESIDE[key])
    assert queryinst.load(path, device="cpu").model.num_classes == 8
    for line in convert(path, hostile / "again.safetensors", None, True):
        assert line
    assert not ran(hostile)


@pytest.mark.parametrize("name", ["os:system", "builtins:exec", "subprocess:run", "torch.nn:Identity", "hostile"])
def test_code_of_others_is_asked_for_as_well(hostile: Path, name: str):
    path = checkpoint(hostile, lambda config: setattr(config.model.box_head, "name", name))
    with pytest.raises(UserError, match=r"code that is not in the file|model.box_head.name takes one of dynamic"):
        queryinst.load(path)


def test_a_list_of_what_is_missing(hostile: Path):
    path = checkpoint(hostile, *SLOTS.values())
    with pytest.raises(UserError) as caught:
        queryinst.load(path)
    assert "needs hostile:Box (model.box_head) and hostile:Mask (model.mask_head) and hostile:Net (backbone)" in str(
        caught.value
    )


def test_export_and_convert(hostile: Path):
    path = checkpoint(hostile, SLOTS["model.mask_head"])
    with pytest.raises(UserError) as caught:
        list(export(path, hostile / "model.pt2", None, "0"))
    assert str(caught.value) == refusal(path, "model.mask_head")
    with pytest.raises(UserError) as caught:
        list(convert(path, hostile / "again.safetensors", None, True))
    assert str(caught.value) == refusal(path, "model.mask_head")
    assert not ran(hostile)
    assert not list(hostile.glob("again*")) + list(hostile.glob("model.pt2*"))
    list(convert(path, hostile / "again.safetensors", None, True, ["hostile"]))
    assert load(hostile / "again.safetensors").config == load(path).config


def test_fine_tuning_needs_no_code_of_the_checkpoint(hostile: Path):
    path = checkpoint(hostile, SLOTS["model.box_head"], *BESIDE.values())
    config = load(path).config
    ours = dataclasses.replace(config.model, box_head=ModelConfig().box_head)
    model = QueryInst(ours, config.backbone, 3)
    assert "class layers start fresh (8 classes there, 3 here)" in start_from(model, ours, str(path), ["a", "b", "c"])
    assert not ran(hostile)


def test_fine_tuning_on_other_classes_tells_how_to_call_the_layers_of_a_head(tmp_path: Path, write: Write):
    write(
        "my_heads.py",
        """
        from queryinst.models.box_head import BoxHead

        class Named(BoxHead):
            pass

        class Other(BoxHead):
            def __init__(self, config, num_classes):
                super().__init__(config, num_classes)
                self.scores = self.cls
                del self.cls
        """,
    )
    for name, fits in (("Named", True), ("Other", False)):
        model = dataclasses.replace(ModelConfig(**SMALL), box_head=PartConfig(f"my_heads:{name}"))
        backbone = BackboneConfig(name="tiny", frozen_stages=-1, norm="batch")
        there, here = (QueryInst(model, backbone, classes) for classes in (8, 3))
        path = checkpoint(tmp_path, lambda config, model=model: setattr(config, "model", model), network=there)
        if fits:
            assert "4 class layers start fresh" in start_from(here, model, str(path), ["a", "b", "c"])
            continue
        with pytest.raises(UserError) as caught:
            start_from(here, model, str(path), ["a", "b", "c"])
        assert str(caught.value).endswith(
            "the first parameter that differs is stages.0.box.scores.weight: set backbone and model to the same, and "
            "call the class layers of your own heads `cls` and `logits`"
        )


def test_evaluate_without_and_with_what_it_needs(workplace: Path, write: Write, run: Run):
    write("hostile.py", HOSTILE)
    path = checkpoint(workplace, SLOTS["backbone"], BESIDE["metrics"], BESIDE["data.reader"])
    given = ("evaluate", f"checkpoint={path}", "accelerator=cpu", "num_workers=0")
    code, said = run(*given)
    assert code == 2
    assert f"error: {path} needs hostile:Net (backbone) and hostile:Reader (data.reader), code that is not in" in said
    assert not ran(workplace)
    code, said = run(*given, "allow=[hostile]")
    assert code == 0, said
    assert "mine/one" in said


def test_evaluate_leaves_a_metric_out_that_is_not_allowed(workplace: Path, write: Write, run: Run):
    write("hostile.py", HOSTILE)
    path = checkpoint(workplace, BESIDE["metrics"], BESIDE["criterion.terms"], BESIDE["callbacks"])
    code, said = run("evaluate", f"checkpoint={path}", "accelerator=cpu", "num_workers=0")
    assert code == 0, said
    assert "left out: the run's own metric mine (hostile:Metric); allow=[hostile] computes it\n" in said
    assert not ran(workplace)


def test_predict_and_demo(workplace: Path, write: Write, run: Run, monkeypatch: pytest.MonkeyPatch):
    from queryinst import demo

    write("hostile.py", HOSTILE)
    monkeypatch.setattr(demo, "require_gradio", lambda: None)
    path = checkpoint(workplace, SLOTS["backbone"])
    for verb in ("predict source=data/shapes_tiny/images/val", "demo port=39131"):
        code, said = run(verb.split()[0], f"checkpoint={path}", "accelerator=cpu", verb.split()[1])
        assert code == 2
        assert f"error: {refusal(path, 'backbone')}\n" in said
    assert not ran(workplace)


def test_a_source_that_changed_since_is_said(hostile: Path, write: Write, capsys: pytest.CaptureFixture[str]):
    config = TrainConfig()
    SLOTS["backbone"](config)
    path = checkpoint(hostile, SLOTS["backbone"], parts=sources(config))
    queryinst.load(path, device="cpu", allow=["hostile"])
    assert capsys.readouterr().err == ""
    write("hostile.py", HOSTILE + "\n# changed\n")
    queryinst.load(path, device="cpu", allow=["hostile"])
    assert capsys.readouterr().err == f"note: the source of hostile:Net has changed since {path} was trained\n"


def test_a_module_that_is_allowed_and_not_there(tmp_path: Path):
    path = checkpoint(tmp_path, lambda config: setattr(config.backbone, "name", "gone_net:Net"))
    with pytest.raises(UserError, match=r"^backbone.name=gone_net:Net: there is no module 'gone_net'"):
        queryinst.load(path, allow=["gone_net"])
