"""What a finished run leaves for people and for `compare`: result.json."""

import dataclasses
import importlib.metadata
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from queryinst import __version__
from queryinst.config import TrainConfig
from queryinst.errors import UserError, room
from queryinst.studies.files import write_whole
from queryinst.studies.revision import git, is_tracked

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "numpy", "pycocotools")


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, all or nothing; NaN becomes null."""
    with room(path):
        write_whole(path, json.dumps(_plain(content), indent=2) + "\n")


def require_writable(file: Path, setting: str, example: str) -> None:
    """Before the work, not after it. Makes the folder. Raises UserError, naming the setting."""
    try:
        if file.is_dir() or not file.name:
            raise UserError(f"{setting}={file} is a folder; give a file, such as {file / example}")
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a"):
            pass
        if not file.stat().st_size:
            file.unlink()
    except OSError as error:
        raise UserError(f"{setting}={file} cannot be written ({error.strerror}); give another file") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def describe(config: TrainConfig, identity: dict[str, Any], run_id: str) -> dict[str, Any]:
    """Everything about a run that is known before it trains."""
    return {
        "name": config.name,
        "id": run_id,
        "identity": identity,
        "config": dataclasses.asdict(config),
        "versions": versions(),
        "git": git_state(),
        "hardware": hardware(),
    }


def versions() -> dict[str, str]:
    """Of this package, of Python, and of the packages that results depend on."""
    packages = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {"queryinst": __version__, "python": platform.python_version(), **packages}


def git_state() -> dict[str, Any] | None:
    """Revision of this source tree and whether it was changed since; None outside a git checkout of its own."""
    head = git("rev-parse", "--verify", "HEAD") if is_tracked() else ""
    return {"revision": head, "dirty": bool(git("status", "--porcelain"))} if head else None


def hardware() -> dict[str, Any]:
    """What the run had to work with."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
