"""Exporting with the tracing taken out of it: what is said and written; and the two formats, of a network of a line."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from queryinst.checkpoints import exported
from queryinst.checkpoints.agreement import Difference
from queryinst.checkpoints.exported import describe, digest, export
from queryinst.checkpoints.load import Checkpoint, load, save
from queryinst.config import BackboneConfig, PostprocessConfig, TrainConfig
from queryinst.errors import UserError

DIGEST = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc"
RECORD = {
    "network": "QueryInst, tiny, 2 stages",
    "images": "uint8 (batch, 3, height, width) RGB, resized to short_side unless the other exceeds long_side, by "
    "bilinear interpolation without antialiasing; padded right and bottom; normalised inside",
    "sizes": "int64 (batch, 2) height, width of each image inside the canvas; 0, 0: all of it",
    "boxes": "float32 (batch, detections, 4) left, top, right, bottom in pixels of the canvas",
    "scores": "float32 (batch, detections) sigmoid of the class, of class and mask alike, highest first; no threshold "
    "is applied and no suppression is needed",
    "labels": "int64 (batch, detections) positions in category_names and category_ids",
    "masks": "float32 (batch, detections, rows, columns) probabilities inside the box; from 0.5 on it is object",
    "category_names": ["cat", "dog", "traffic light"],
    "category_ids": [4, 7, 90],
    "short_side": 64,
    "long_side": 96,
    "min_side": 2.5,
    "num_proposals": 6,
    "max_detections": 5,
    "version": "9.9",
}


def test_a_digest_is_sha256(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == DIGEST


def test_the_record_of_a_file(untrained: Path, tmp_path: Path):
    (tmp_path / "a.ckpt").write_bytes(b"abc")
    checkpoint = dataclasses.replace(load(untrained), path=tmp_path / "a.ckpt")
    record = describe(checkpoint, PostprocessConfig(max_detections=12, min_side=2.5), 5, "9.9")
    assert record == RECORD | {"checkpoint": "a.ckpt", "sha256": DIGEST}
    scores = describe(checkpoint, PostprocessConfig(mask_score=1.5), 5, "9.9")["scores"]
    assert "sigmoid of the class x mean of the mask, where it is object, to the power 1.5, of class" in scores


class Calls:
    """Stands for tracing, writing, reading and comparing: remembers what they were given."""

    difference = Difference(1e-6, 2e-5, 3e-5)
    kind = ""

    def trace(self, exportable: Any) -> str:
        self.exportable = exportable
        return "program"

    def write(self, kind: str) -> Callable[[str, Path, str], None]:
        def to_file(program: str, path: Path, record: str) -> None:
            self.kind, self.partial = kind, path
            path.write_text(f"{program} {record}".ljust(1_350_000))

        return to_file

    def read(self, kind: str) -> Callable[[Path], tuple[str, str]]:
        return lambda path: (kind, path.read_text().strip())

    def compare(self, model: Any, config: PostprocessConfig, runner: Any) -> Difference:
        self.compared = model, config, runner
        return self.difference


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made, times = Calls(), iter([100.0, 107.4])
    for name, value in (
        ("trace", made.trace),
        ("compare", made.compare),
        ("_write_onnx", made.write("onnx")),
        ("_write_pt2", made.write("pt2")),
        ("onnx_runner", made.read("onnx")),
        ("pt2_runner", made.read("pt2")),
    ):
        monkeypatch.setattr(exported, name, value)
    monkeypatch.setattr(exported.time, "perf_counter", lambda: next(times))
    return made


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
@pytest.mark.parametrize(("asked", "kept"), [(None, 6), (5, 5)])
def test_what_is_said_and_written(untrained: Path, tmp_path: Path, calls: Calls, kind: str, asked: int, kept: int):
    """A file is written beside its name, compared as it is there, and takes the name only then."""
    path = tmp_path / "new" / "er" / f"model.{kind}"
    lines = list(export(untrained, path, asked, "9.9"))
    assert lines == [
        f"network       tiny, 6 proposals, 3 classes; {kept} detections an image",
        "exported      in 7 s",
        "agreement     320x256 and 236x300, 1 and 2 images: scores 1.0e-06, boxes 2.0e-05 of the longer side, masks "
        "3.0e-05",
        f"written       {path} (1.4 MB)",
    ]
    assert (calls.kind, calls.partial) == (kind, tmp_path / "new" / "er" / f"model.partial.{kind}")
    assert list(path.parent.iterdir()) == [path]
    program, _, record = path.read_text().strip().partition(" ")
    checkpoint = load(untrained)
    postprocess = checkpoint.config.model.postprocess
    postprocess = dataclasses.replace(postprocess, max_detections=asked or postprocess.max_detections)
    assert (program, json.loads(record)) == ("program", describe(checkpoint, postprocess, kept, "9.9"))
    model, config, runner = calls.compared
    assert config == postprocess
    assert runner == (kind, f"program {record}")
    assert not any(p.requires_grad for p in (*model.parameters(), *calls.exportable.parameters()))
    assert all(torch.equal(value, checkpoint.weights[name]) for name, value in model.state_dict().items())
    assert (calls.exportable.kept, calls.exportable.clip_boxes) == (kept, postprocess.clip_boxes)


def test_of_a_model_for_video_it_says_so(untrained_video: Path, tmp_path: Path, calls: Calls):
    lines = list(export(untrained_video, tmp_path / "model.pt2", None, "9.9"))
    assert lines[0] == (
        "network       tiny, 6 proposals, 3 classes; 6 detections an image; its detector alone, without what links "
        "instances over frames"
    )


def mistake(*arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        list(export(*arguments, None, "9.9"))
    return str(caught.value)


def test_a_file_that_differs_is_not_kept(untrained: Path, tmp_path: Path, calls: Calls):
    calls.difference = Difference(0.0, 2e-4, 0.0)
    assert mistake(untrained, tmp_path / "model.onnx") == (
        "the exported file does not find what the network finds (differences: scores 0.0e+00, boxes 2.0e-04 of the "
        "longer side, masks 0.0e+00; at most 0.0001 is right), so it was not kept: check that the checkpoint evaluates "
        "well, and try the other format"
    )
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(untrained: Path, tmp_path: Path, calls: Calls):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "model.onnx"
    said = mistake(untrained, path)
    assert said.startswith(f"{path} cannot be written ([Errno ")
    assert said.endswith("); give another file")


def test_a_swin_is_refused(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save(Checkpoint(path, TrainConfig(backbone=BackboneConfig(name="swin_t")), [1], ["one"], {}), path, {})
    assert mistake(path, tmp_path / "a.pt2") == (
        f"{path} has the backbone swin_t, which cannot be exported for all sizes: torch.export cannot follow how a "
        "Swin cuts its windows; export a model with a ResNet, or tiny"
    )


SHAPES = ((1, 3, 5, 9), (4, 3, 33, 6))


class Line(nn.Module):
    """In place of the network: the four outputs are simple functions of images and sizes."""

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = images.float()
        return wide.amax((2, 3))[:, None], sizes.float() / 2, sizes + 1, wide[:, :1] / 4


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    return exported.trace(Line())  # type: ignore[arg-type]


def test_the_graph_is_for_any_number_and_size_of_images(program: ExportedProgram):
    images, sizes = program.example_inputs[0]
    assert (images.shape, images.dtype) == ((3, 3, 352, 416), torch.uint8)
    assert (sizes.shape, sizes.dtype) == ((3, 2), torch.int64)
    assert not images.any()
    assert not sizes.any()
    bounds = [(int(bound.lower), bound.upper > 10**9) for bound in program.range_constraints.values()]
    assert bounds == [(1, True)] * 3
    for shape in SHAPES:
        images, sizes = torch.randint(256, shape).to(torch.uint8), torch.randint(50, (shape[0], 2))
        for one, other in zip(program.module()(images, sizes), Line()(images, sizes), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_a_written_file_gives_what_the_network_gives(program: ExportedProgram, tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    write, reader = {
        "onnx": (exported._write_onnx, exported.onnx_runner),
        "pt2": (exported._write_pt2, exported.pt2_runner),
    }[kind]
    write(program, path, '{"it": 1}')
    run = reader(path)
    for shape in SHAPES:
        images, sizes = torch.randint(256, shape).to(torch.uint8), torch.randint(50, (shape[0], 2))
        found = run(images, sizes)
        assert type(found) is list
        for one, other in zip(found, Line()(images, sizes), strict=True):
            assert one.dtype == other.dtype
            assert torch.equal(one, other)
    if kind == "pt2":
        extra: dict[str, Any] = {"queryinst": ""}
        torch.export.load(path, extra_files=extra)
        assert extra["queryinst"] == '{"it": 1}'
        return
    import onnx

    model = onnx.load(path)
    assert ("queryinst", '{"it": 1}') in [(entry.key, entry.value) for entry in model.metadata_props]
    assert [value.name for value in model.graph.input] == ["images", "sizes"]
    assert [value.name for value in model.graph.output] == ["boxes", "scores", "labels", "masks"]
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim] for value in model.graph.input]
    batch, _, height, width = shapes[0]
    assert shapes == [[batch, 3, height, width], [batch, 2]]
    assert len({batch, height, width}) == 3, "names, not numbers that may be equal"
    assert all(isinstance(side, str) for side in (batch, height, width))
