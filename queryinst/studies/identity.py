"""Which run is this? A hash of everything that defines its result, and the folder named after it."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from queryinst.config import TrainConfig
from queryinst.data.embedded import fingerprint
from queryinst.errors import UserError
from queryinst.slots import sources


def identity(config: TrainConfig) -> dict[str, Any]:
    """The values that define the result of a run: not workers, paths, loggers or devices, but what the paths hold.

    Raises:
        UserError: a file that counts by its content does not exist.
    """
    values = dict(_counting(config))
    for key in ("weights", "backbone.weights"):
        if values[key] and values[key] != "imagenet":
            values[key] = _digest(Path(values[key]), key)
    if parts := sources(config):
        values["parts"] = parts
    made = fingerprint(config.data)
    if made:
        values["data"] = made
    else:
        root = Path(config.data.root)
        for split, name in (("train", config.data.train_annotations), ("val", config.data.val_annotations)):
            values[f"data.{split}"] = (
                _digest(root / name, f"data.{split}_annotations") if (root / name).is_file() else "missing"
            )
    return values


def _counting(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every setting that defines the result of a run."""
    for entry in dataclasses.fields(config):
        key, value = f"{prefix}{entry.name}", getattr(config, entry.name)
        counts = entry.metadata.get("identity", True)
        default = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
        if not counts or (counts == "set" and value == default):
            continue
        if dataclasses.is_dataclass(value):
            yield from _counting(value, f"{key}.")
        else:
            yield key, value


def run_id(values: dict[str, Any]) -> str:
    """Eight hexadecimal digits of an identity."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def run_folder(config: TrainConfig, values: dict[str, Any]) -> Path:
    """Where everything of a run lies."""
    return Path(config.output) / f"{config.name}-{run_id(values)}"


def _digest(path: Path, key: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(f"{key}={path} cannot be read: {error.strerror}") from None
