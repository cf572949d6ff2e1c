"""One file in, one safetensors file out: the whole of `queryinst.convert`, and its report."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from queryinst.checkpoints.by_name import origin as origin_of
from queryinst.checkpoints.coco_names import COCO
from queryinst.checkpoints.convert import (
    DERIVED,
    PADDLE_POSTPROCESS,
    Translated,
    backbone_of,
    backbone_weights,
    complete,
    model_of,
    some,
    translate,
)
from queryinst.checkpoints.load import SAFE, Checkpoint, is_ours, load, save
from queryinst.checkpoints.read import read, read_safetensors, write_safetensors
from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.models.queryinst import QueryInst
from queryinst.zoo import in_zoo


def convert(
    source: Path,
    destination: Path,
    annotations: Path | None = None,
    aligned: bool = True,
    allow: Sequence[str] = (),
) -> Iterator[str]:
    """Convert a file, and say line by line what was used.

    Args:
        source: a weight file of any known kind, or published weights by name.
        destination: the safetensors file to write.
        annotations: COCO file whose categories are the model's classes.
        aligned: whether the model was trained with RoIAlign shifted by half a pixel.
        allow: modules of the user's own that may be imported for the parts that a checkpoint of ours names.

    Raises:
        UserError: the source is unknown, unsafe or not complete, or the destination exists or cannot be written.
    """
    if destination.suffix != SAFE:
        raise UserError(f"the result is a safetensors file: name it {destination}{SAFE}")
    if destination.exists():
        raise UserError(f"{destination} exists already; delete it, or give another name")
    if in_zoo(source):
        yield from _from_zoo(source, destination, annotations, aligned)
        return
    content: Any
    if source.suffix == SAFE:
        content, record = read_safetensors(source)
        if record:
            raise UserError(f"{source} is what convert writes: use it as it is")
    else:
        content = read(source)
    origin = {"file": source.name, "sha256": _checksum(source)}
    if is_ours(content):
        _only_for_others(annotations, aligned)
        checkpoint = load(source, allow)
        checkpoint.build()  # proves that every tensor is there
        save(checkpoint, destination, origin | {"label": "queryinst"})
        yield f"source        {source}: our own checkpoint"
        yield from _describe(checkpoint)
    else:
        translated = translate(content, str(source))
        origin["label"] = translated.origin.label
        yield f"source        {source}: {translated.origin.label}"
        if translated.origin.whole:
            checkpoint = _whole(content, translated, source, annotations, aligned)
            save(checkpoint, destination, origin)
            yield from _describe(checkpoint)
        else:
            _only_for_others(annotations, aligned)
            name = backbone_of(translated.weights).name
            weights = backbone_weights(translated, name, str(source))
            write_safetensors(destination, weights, {"kind": "backbone", "name": name, "source": origin})
            yield f"architecture  backbone {name}; use it with backbone={name} backbone.weights={destination}"
        yield f"used          {len(translated.weights)} tensors under our names, none left over, none missing"
        if translated.ignored:
            yield f"ignored       {some(translated.ignored)}: follow from the architecture, or are no weights"
    yield _written(destination, origin["sha256"])


def _from_zoo(name: Path, destination: Path, annotations: Path | None, aligned: bool) -> Iterator[str]:
    """Published weights, which are fetched and converted once, with other classes or RoIAlign where that is asked."""
    checkpoint = load(name)
    config = checkpoint.config
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, aligned=aligned))
    if annotations:
        classes = _classes({}, len(checkpoint.category_ids), annotations)
        checkpoint = dataclasses.replace(checkpoint, category_ids=list(classes), category_names=list(classes.values()))
    source = origin_of(checkpoint.path)
    save(dataclasses.replace(checkpoint, config=config), destination, source)
    yield f"source        {name}: {source['label']}"
    yield from _describe(checkpoint)
    yield _written(destination, source["sha256"])


def _written(destination: Path, sha256: str) -> str:
    return f"written       {destination} ({destination.stat().st_size / 1e6:.1f} MB); sha256 of the source {sha256}"


def _only_for_others(annotations: Path | None, aligned: bool) -> None:
    if annotations or not aligned:
        raise UserError("--annotations and --unaligned are for whole models of other projects; this file is none")


def _whole(content: Any, translated: Translated, source: Path, annotations: Path | None, aligned: bool) -> Checkpoint:
    """A QueryInst of another project as a checkpoint of ours. Raises UserError."""
    model, number = model_of(translated.weights)
    model = dataclasses.replace(model, aligned=aligned)
    backbone = backbone_of(
        {
            name.removeprefix("backbone."): value
            for name, value in translated.weights.items()
            if name.startswith("backbone.")
        }
    )
    if translated.origin.label == "PaddleDetection":
        model = dataclasses.replace(model, postprocess=PADDLE_POSTPROCESS)
    weights = complete(translated.weights, QueryInst(model, backbone, number), str(source))
    classes = _classes(content, number, annotations)
    name = re.sub(r"[^\w.+-]", "-", source.stem).lstrip(".+-") or "converted"
    config = TrainConfig(name=name, model=model, backbone=backbone)
    return Checkpoint(source, config, list(classes), list(classes.values()), weights)


def _classes(content: Any, number: int, annotations: Path | None) -> dict[int, str]:
    """Category ids and names in the order of the labels: of a COCO file, COCO's own, or what the file itself names."""
    if annotations:
        try:
            categories = json.loads(annotations.read_text())["categories"]
            found = {
                int(entry["id"]): str(entry["name"]) for entry in sorted(categories, key=lambda entry: entry["id"])
            }
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"--annotations {annotations} cannot be read as a COCO file ({error!r})") from None
        if len(found) != number:
            raise UserError(f"the weights are for {number} classes, but {annotations} has {len(found)} categories")
        return found
    meta = content.get("meta") if isinstance(content, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    inner = meta.get("dataset_meta")  # MMDetection 3.x
    named: Any = next(
        (of[key] for of in (inner, meta) if isinstance(of, dict) for key in ("CLASSES", "classes") if of.get(key)), None
    )
    usable = isinstance(named, list | tuple) and len(named) == number and all(isinstance(name, str) for name in named)
    names = list(named) if usable else None
    if number == len(COCO) and names in (None, list(COCO.values())):
        return COCO
    return dict(enumerate(names or [f"class {k}" for k in range(1, number + 1)], 1))


def _describe(checkpoint: Checkpoint) -> Iterator[str]:
    model, names = checkpoint.config.model, checkpoint.category_names
    yield (
        f"architecture  {checkpoint.config.backbone.name}, {model.num_proposals} queries, {model.num_stages} stages, "
        f"width {model.width}; "
        f"{sum(value.numel() for name, value in checkpoint.weights.items() if _trains(name)) / 1e6:.1f} M parameters"
    )
    yield f"classes       {len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def _trains(name: str) -> bool:
    return not name.endswith((*DERIVED, "running_mean", "running_var"))


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
