"""One checkpoint in, one ONNX or torch.export file out, compared with the network itself: all of `queryinst.export`."""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from queryinst.checkpoints.agreement import BATCHES, CANVASES, LIMIT, Runner, compare
from queryinst.checkpoints.load import Checkpoint, load
from queryinst.config import PostprocessConfig
from queryinst.errors import UserError
from queryinst.models.backbone import SWINS
from queryinst.models.exportable import Exportable
from queryinst.part_config import used
from queryinst.slots import NETWORK, is_ours

ONNX = ".onnx"
RECORD = "queryinst"  # the key of our record in the metadata of an ONNX file, and an extra file's name in a .pt2
INPUTS, OUTPUTS = ("images", "sizes"), ("boxes", "scores", "labels", "masks")
EXAMPLE = (3, 352, 416)  # images, height, width that the graph is traced with


def export(
    source: Path, destination: Path, max_detections: int | None, version: str, allow: Sequence[str] = ()
) -> Iterator[str]:
    """Export a checkpoint, and say line by line what the file is. It appears only if it agrees with the network.

    Of a model for video it is the detector: instances are linked over frames by code, not by a graph.

    Args:
        source: a checkpoint of a training run or of `queryinst.convert`.
        destination: the file to write, `.onnx` or `.pt2`.
        max_detections: detections an image; by default as many as the checkpoint's own evaluation keeps.
        version: of this package, for the record.
        allow: modules of the user's own that may be imported.

    Raises:
        UserError: the checkpoint or the destination does not do, the backbone cannot be exported, or the
            file gives other detections than the network.
    """
    checkpoint = load(source, allow)
    postprocess = checkpoint.config.model.postprocess
    postprocess = dataclasses.replace(postprocess, max_detections=max_detections or postprocess.max_detections)
    if "swin" in checkpoint.config.backbone.name.partition(":")[2] or checkpoint.config.backbone.name in SWINS:
        raise UserError(
            f"{source} has the backbone {checkpoint.config.backbone.name}, which cannot be exported for all sizes: "
            f"torch.export cannot follow how a Swin cuts its windows; export a model with a ResNet, or tiny"
        )
    model = checkpoint.build().requires_grad_(False)
    exportable = Exportable(model, postprocess)
    yield (
        f"network       {checkpoint.config.backbone.name}, {checkpoint.config.model.num_proposals} proposals, "
        f"{len(checkpoint.category_ids)} classes; {exportable.kept} detections an image"
        + ("; its detector alone, without what links instances over frames" if model.associates else "")
    )
    begin = time.perf_counter()
    program = _traced(exportable, checkpoint)
    record = json.dumps(describe(checkpoint, postprocess, exportable.kept, version))
    partial = destination.with_name(f"{destination.stem}.partial{destination.suffix}")
    write, reader = (_write_onnx, onnx_runner) if destination.suffix == ONNX else (_write_pt2, pt2_runner)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        write(program, partial, record)
        yield f"exported      in {time.perf_counter() - begin:.0f} s"
        difference = compare(model, postprocess, reader(partial))
        if not difference.small:
            raise UserError(
                f"the exported file does not find what the network finds (differences: {difference}; at most {LIMIT} "
                f"is right), so it was not kept: check that the checkpoint evaluates well, and try the other format"
            )
        canvases = " and ".join(f"{width}x{height}" for height, width in CANVASES)
        yield f"agreement     {canvases}, {' and '.join(map(str, BATCHES))} images: {difference}"
        partial.replace(destination)
    except OSError as error:
        raise UserError(f"{destination} cannot be written ({error}); give another file") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    yield f"written       {destination} ({destination.stat().st_size / 1e6:.1f} MB)"


def _traced(exportable: Exportable, checkpoint: Checkpoint) -> ExportedProgram:
    """`trace`; what goes wrong in parts of other people is one sentence."""
    theirs = [part for part in used(checkpoint.config) if part.slot in NETWORK and not is_ours(part)]
    try:
        return trace(exportable)
    except Exception as error:  # torch's many ways to say it
        if not theirs:
            raise
        named = " and ".join(f"the {part.word.replace('_', ' ')} {part.name}" for part in theirs)
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"{checkpoint.path} has {named}, which cannot be exported for all sizes: torch.export cannot follow that "
            f"({reason[:200]})"
        ) from error


def trace(exportable: Exportable) -> ExportedProgram:
    """The graph, with any number and any size of images."""
    batch, height, width = EXAMPLE
    images, sizes = torch.zeros(batch, 3, height, width, dtype=torch.uint8), torch.zeros(batch, 2, dtype=torch.int64)
    number = Dim("batch", min=1)
    shapes = {"images": {0: number, 2: Dim("height", min=1), 3: Dim("width", min=1)}, "sizes": {0: number}}
    return torch.export.export(exportable, (images, sizes), dynamic_shapes=shapes)


def describe(checkpoint: Checkpoint, postprocess: PostprocessConfig, kept: int, version: str) -> dict[str, Any]:
    """What a reader of the file has to know: the record in its metadata."""
    config, power = checkpoint.config, postprocess.mask_score
    return {
        "network": f"QueryInst, {config.backbone.name}, {config.model.num_stages} stages",
        "images": "uint8 (batch, 3, height, width) RGB, resized to short_side unless the other exceeds long_side, by "
        "bilinear interpolation without antialiasing; padded right and bottom; normalised inside",
        "sizes": "int64 (batch, 2) height, width of each image inside the canvas; 0, 0: all of it",
        "boxes": "float32 (batch, detections, 4) left, top, right, bottom in pixels of the canvas",
        "scores": "float32 (batch, detections) sigmoid of the class"
        + (f" x mean of the mask, where it is object, to the power {power:g}" if power else "")
        + ", of class and mask alike, highest first; no threshold is applied and no suppression is needed",
        "labels": "int64 (batch, detections) positions in category_names and category_ids",
        "masks": "float32 (batch, detections, rows, columns) probabilities inside the box; from 0.5 on it is object",
        "category_names": checkpoint.category_names,
        "category_ids": checkpoint.category_ids,
        "short_side": config.augmentation.test_short_side,
        "long_side": config.augmentation.long_side,
        "min_side": postprocess.min_side,  # pixels of the original image; smaller boxes are to be dropped
        "num_proposals": config.model.num_proposals,
        "max_detections": kept,
        "version": version,
        "checkpoint": checkpoint.path.name,
        "sha256": digest(checkpoint.path),
    }


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_onnx(program: ExportedProgram, path: Path, record: str) -> None:
    exported = torch.onnx.export(program, input_names=INPUTS, output_names=OUTPUTS, verbose=False)
    assert exported is not None
    exported.model.metadata_props[RECORD] = record
    exported.save(path)


def _write_pt2(program: ExportedProgram, path: Path, record: str) -> None:
    torch.export.save(program, path, extra_files={RECORD: record})


def onnx_runner(path: Path) -> Runner:
    """An ONNX file under onnxruntime, on as many threads as torch has."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor, sizes: Tensor) -> list[Tensor]:
        found = session.run(OUTPUTS, {"images": images.numpy(), "sizes": sizes.numpy()})
        return [torch.from_numpy(values) for values in found]

    return run


def pt2_runner(path: Path) -> Runner:
    """A `.pt2` file."""
    module = torch.export.load(path).module()
    return lambda images, sizes: list(module(images, sizes))
