"""Which run is this? A hash of everything that defines its result, and the folder named after it."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from queryinst.checkpoints.by_name import checksum_of
from queryinst.config import TrainConfig
from queryinst.data.embedded import fingerprint
from queryinst.data.fingerprint import content, everything, pictures
from queryinst.errors import UserError
from queryinst.library_names import DOWNLOADS
from queryinst.part_config import WEIGHTED, PartConfig, TermConfig, opened
from queryinst.slots import sources
from queryinst.zoo import in_zoo

OWN_DATA = ("annotations", "images")


def identity(config: TrainConfig) -> dict[str, Any]:
    """The values that define the result of a run: not workers, paths, loggers or devices, but what the paths hold.

    Raises:
        UserError: a file that counts by its content does not exist.
    """
    values = dict(_counting(config))
    # After `max_time` a run goes on: it is no part of what the run is.
    values["trainer.extra"] = {key: value for key, value in values["trainer.extra"].items() if key != "max_time"}
    for key in ("weights", "backbone.weights"):
        if values[key] and values[key] not in DOWNLOADS.values():
            values[key] = _weights(values[key], key)
    if parts := sources(config):
        values["parts"] = parts
    made = fingerprint(config.data)
    if made:
        return values | {"data": made}
    shown = {}
    for split in ("train", "val"):
        annotations, images = (Path(config.data.root, getattr(config.data, f"{split}_{what}")) for what in OWN_DATA)
        values[f"data.{split}"] = _data(annotations, f"data.{split}_annotations")
        if annotations.exists():  # or there is nothing to show
            shown[f"pictures.{split}"] = pictures(annotations, images)
    return values if _is_from_before(config, values, values | shown) else values | shown


def _data(annotations: Path, key: str) -> str:
    """A digest of an annotation file, or of the folder that a reader of the user's own reads."""
    if annotations.is_dir():
        return content(annotations, everything(annotations))
    return _digest(annotations, key) if annotations.is_file() else "missing"


def _is_from_before(config: TrainConfig, before: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether this run was begun when pictures did not count: it keeps its folder, if it was for the same folders."""
    folder = run_folder(config, before)
    if not (folder / "config.yaml").exists() or run_folder(config, now).exists():
        return False
    found = OmegaConf.select(OmegaConf.load(folder / "config.yaml"), "data", default={})
    return all(found.get(name) == getattr(config.data, name) for name in ("root", "train_images", "val_images"))


def _counting(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every setting that defines the result of a run."""
    for entry in dataclasses.fields(config):
        key, value = f"{prefix}{entry.name}", getattr(config, entry.name)
        counts = entry.metadata.get("identity", True)
        default = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
        if not counts or (counts == "set" and value == default):
            continue
        slot = entry.metadata.get("slot")
        if dataclasses.is_dataclass(value):
            yield from _counting(value, f"{key}.")
        elif slot:  # 1 and 1.0 are one weight, `_target_` and `name` one part; of steps the order counts
            schema = TermConfig if slot in WEIGHTED else PartConfig
            parts = {name: dataclasses.asdict(opened(f"{key}.{name}", node, schema)) for name, node in value.items()}
            ordered = {name: {**part, "place": place} for place, (name, part) in enumerate(parts.items())}
            yield key, ordered if slot == "augmentation" else parts
        else:
            yield key, value


def run_id(values: dict[str, Any]) -> str:
    """Eight hexadecimal digits of an identity."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def run_folder(config: TrainConfig, values: dict[str, Any]) -> Path:
    """Where everything of a run lies."""
    return Path(config.output) / f"{config.name}-{run_id(values)}"


def _weights(path: str, key: str) -> str:
    """What identifies a file of weights; of published ones, the published file and not what convert makes of it, which
    another version may do in another way.
    """
    return f"published {checksum_of(path)}" if key == "weights" and in_zoo(path) else _digest(Path(path), key)


def _digest(path: Path, key: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read: {error.strerror}") from None
