"""Exported files: they find what the network finds, say what they are, and run without this package."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, Run
from PIL import Image
from test_load import saved

from queryinst.benchmarks.inference import build
from queryinst.checkpoints import exported
from queryinst.checkpoints.agreement import Difference, Runner
from queryinst.checkpoints.exported import export
from queryinst.checkpoints.load import Checkpoint, load, save
from queryinst.config import BackboneConfig, ModelConfig, TrainConfig
from queryinst.data.transforms import Geometry, fit
from queryinst.errors import UserError
from queryinst.models.deploy import deploy
from queryinst.models.exportable import Exportable
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.ops.masks import paste
from queryinst.video_config import AssociationConfig

SCRIPTS = ROOT / "experiments" / "export"
sys.path.append(str(ROOT / "tests" / "golden"))
sys.path.append(str(SCRIPTS))
import overlay  # noqa: E402
from weights import fill, mmdet_name  # noqa: E402


def weights(model: QueryInst) -> dict[str, torch.Tensor]:
    """Weights with which scores are far apart."""
    return {
        name: torch.from_numpy(fill(mmdet_name(name), tuple(value.shape))) for name, value in model.state_dict().items()
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = saved(tmp_path_factory.mktemp("run") / "best.ckpt")
    content = torch.load(path, weights_only=True)
    content["state_dict"] = {f"model.{name}": value for name, value in weights(load(path).build()).items()}
    content["queryinst"]["config"]["augmentation"].update(test_short_side=96, long_side=150)
    torch.save(content, path)
    return load(path)


@pytest.fixture(scope="module")
def files(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, str]]:
    """An ONNX and a .pt2 file, traced once, and what was said of each."""
    folder = tmp_path_factory.mktemp("exported")
    made, program = {}, exported.trace(Exportable(checkpoint.build(), checkpoint.config.model.postprocess))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exported, "trace", lambda _: program)
        for kind in ("onnx", "pt2"):
            lines = export(checkpoint.path, folder / f"model.{kind}", None, "9.9")
            made[kind] = folder / f"model.{kind}", "\n".join(lines)
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "model.pt2"}
    return made


RUNNERS = {"onnx": exported.onnx_runner, "pt2": exported.pt2_runner}


@pytest.fixture(scope="module")
def runners(files: dict[str, tuple[Path, str]]) -> dict[str, Runner]:
    """The files, ready to run."""
    return {kind: RUNNERS[kind](path) for kind, (path, _) in files.items()}


def record_of(path: Path) -> dict[str, Any]:
    if path.suffix == ".onnx":
        import onnx

        (entry,) = (entry for entry in onnx.load(path).metadata_props if entry.key == "queryinst")
        return json.loads(entry.value)
    extra: dict[str, Any] = {"queryinst": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["queryinst"])


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_the_file_says_what_it_is(files: dict[str, tuple[Path, str]], checkpoint: Checkpoint, kind: str):
    path, said = files[kind]
    record = record_of(path)
    assert record["category_names"] == ["class 0", "class 1", "class 2"]
    assert record["category_ids"] == [0, 1, 2]
    assert (record["short_side"], record["long_side"], record["num_proposals"]) == (96, 150, 6)
    assert (record["max_detections"], record["version"], record["min_side"]) == (6, "9.9", 0.0)
    assert record["sha256"] == exported.digest(checkpoint.path)
    assert "sigmoid" in record["scores"]
    assert "agreement     320x256 and 236x300, 1 and 2 images: scores" in said
    assert "network       tiny, 6 proposals, 3 classes; 6 detections an image" in said


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
@pytest.mark.parametrize("shape", [(1, 3, 33, 150), (4, 3, 224, 448)], ids=str)
def test_any_number_and_any_size_of_images(
    runners: dict[str, Runner], checkpoint: Checkpoint, kind: str, shape: tuple[int, ...]
):
    """448 and 224 pixels are the very sides where boxes go from one pyramid level to the next."""
    images = torch.randint(256, shape, dtype=torch.uint8)
    sizes = torch.tensor([shape[2:]]).repeat(shape[0], 1)
    found = runners[kind](images, torch.zeros_like(sizes))
    model = checkpoint.build()
    canvas = torch.zeros(*shape[:2], *(max(64, -(-side // 32) * 32) for side in shape[2:]), dtype=torch.uint8)
    canvas[..., : shape[2], : shape[3]] = images
    with torch.no_grad():
        output = model(canvas, sizes)
    for i, ours in enumerate(detect(model, output, sizes, sizes, checkpoint.config.model.postprocess)):
        for one, other, atol in zip(
            found, (ours.boxes, ours.scores, ours.labels, ours.masks), (1e-2, 1e-4, 0, 1e-4), strict=True
        ):
            torch.testing.assert_close(one[i], other, rtol=0, atol=atol)


@pytest.mark.parametrize("kind", ["onnx", pytest.param("pt2", marks=pytest.mark.slow)])  # torch takes its time to load
def test_a_script_runs_it_without_this_package(files: dict[str, tuple[Path, str]], tmp_path: Path, kind: str):
    (tmp_path / "queryinst.py").write_text("raise ImportError('the package is not to be used')")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 200, 3), np.uint8)).save(tmp_path / "a.png")
    call = [sys.executable, SCRIPTS / f"run_{kind}.py", files[kind][0], "a.png", "drawn.png", "--score", "0"]
    done = subprocess.run(call, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 6
    assert done.stdout.startswith("class ")
    with Image.open(tmp_path / "drawn.png") as drawn:
        assert drawn.size == (200, 90)


def test_the_scripts_resize_and_paste_as_we_do():
    pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    for short, long in ((75, 1000), (300, 400), (120, 200)):
        height, width = fit(120, 200, short, long)
        found = overlay.prepare(Image.fromarray(pixels), short, long)
        expected = Geometry.identity(120, 200).resize(height, width).image(pixels)
        assert found.shape == (1, 3, height, width)
        assert np.abs(found[0].transpose(1, 2, 0).astype(int) - expected).max() <= 1
    mask = np.random.default_rng(1).random((28, 28), np.float32)
    for box in ([20.3, 5.1, 90.7, 60.2], [-15, -3.5, 300, 130], [50, 50, 50.4, 50.4]):
        ours = paste(mask, np.float32(box), (120, 200)).paste_into(np.zeros((120, 200), np.uint8))
        assert np.mean(ours != overlay.paste(mask, box, 120, 200)) < 1e-4


def test_a_file_that_differs_is_not_kept(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, made in (("trace", None), ("pt2_runner", None), ("compare", Difference(0.0, 0.0, 2e-4))):
        monkeypatch.setattr(exported, name, lambda *_, made=made: made)
    monkeypatch.setattr(exported, "_write_pt2", lambda _, path, record: path.write_text(record))
    with pytest.raises(UserError, match=r"does not find what the network finds .*masks 2.0e-04"):
        list(export(checkpoint.path, tmp_path / "model.pt2", 3, "9.9"))
    assert not list(tmp_path.iterdir())


def test_mistakes_are_one_sentence(run: Run, checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, there = str(checkpoint.path), tmp_path / "there.onnx"
    there.touch()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    for arguments, sentence in (
        ((source, "model.pth"), "name model.pth with .onnx or .pt2"),
        ((source, str(there)), "exists already"),
        ((source, "model.pt2", "--max-detections", "0"), "--max-detections must be at least 1, got 0"),
        ((source, "model.onnx"), "onnxscript, which an ONNX file needs, cannot be found: pip install 'queryinst[ex"),
        ((str(tmp_path / "none.ckpt"), "model.pt2"), "none.ckpt does not exist"),
    ):
        code, said = run("export", *arguments)
        assert (code, said.count("\n")) == (2, 1), said
        assert sentence in said


def test_of_a_model_for_video_it_is_the_detector(tmp_path: Path):
    path = saved(tmp_path / "video.ckpt", association=AssociationConfig(width=8))
    said = next(export(path, tmp_path / "a.onnx", None, "9.9"))
    assert said.endswith("6 detections an image; its detector alone, without what links instances over frames")


def test_a_swin_is_refused(tmp_path: Path):
    """Its graph would hold for the size it was traced at alone."""
    config = TrainConfig(backbone=BackboneConfig(name="swin_t"))
    save(Checkpoint(tmp_path, config, [1], ["one"], {}), tmp_path / "a.safetensors", {})
    with pytest.raises(UserError, match=r"has the backbone swin_t, which cannot be exported for all sizes"):
        list(export(tmp_path / "a.safetensors", tmp_path / "a.pt2", None, "9.9"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_resnet50_with_300_proposals(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]):
    """It is exported, which it is only where it agrees; and how long an image takes."""
    config = TrainConfig(model=ModelConfig(num_proposals=300), backbone=BackboneConfig(name="resnet50"))
    model = build("resnet50", 300, "cpu")
    path, destination = tmp_path / "r50.safetensors", tmp_path / f"r50.{kind}"
    save(Checkpoint(path, config, list(range(80)), [f"class {k}" for k in range(80)], model.state_dict()), path, {})
    with capsys.disabled():
        print()
        for line in export(path, destination, None, "9.9"):
            print(line, flush=True)
    runner = RUNNERS[kind](destination)
    images, sizes = torch.randint(256, (1, 3, 256, 320), dtype=torch.uint8), torch.tensor([[256, 320]])
    boxes, _, _, masks = runner(images, sizes)
    assert (boxes.shape, masks.shape) == ((1, 300, 4), (1, 300, 28, 28))
    ways = {"exported": runner} | {
        name: lambda *x, model=model: detect(model, model(*x), sizes, sizes, config.model.postprocess)
        for name, model in (("network", model), ("deployed", deploy(model)))
    }
    spent = {way: [] for way in ways}
    with torch.inference_mode():
        for _ in range(3):  # the first one warms up
            for way, run in ways.items():
                begin = time.process_time()  # of one thread; other programs may run too
                run(images, sizes)
                spent[way].append(time.process_time() - begin)
    with capsys.disabled():
        print("320x256      ", ", ".join(f"{way} {min(times[1:]):.2f} s of CPU" for way, times in spent.items()))
