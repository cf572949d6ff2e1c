"""Reading weight files of any origin without executing anything in them: tensors, arrays and plain values only."""

import codecs
import collections
import contextlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from queryinst.errors import UserError

TORCH = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # how torch.save's two formats begin
RECORD = "queryinst"  # the key of our record in a safetensors file's metadata
FRAMEWORKS = ("mmengine.", "mmcv.", "mmdet.")  # objects of theirs may lie beside the weights; nobody needs them

# What arrays, numbers and byte strings are pickled as, under numpy's old and new names.
_NUMPY = {
    "multiarray._reconstruct": np.zeros(1).__reduce__()[0],
    "multiarray.scalar": np.float64(0).__reduce__()[0],
    "numeric._frombuffer": np.zeros(1).__reduce_ex__(5)[0],
}
ADMITTED: dict[str, Any] = {
    **{f"numpy.{core}.{name}": value for core in ("core", "_core") for name, value in _NUMPY.items()},
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": codecs.encode,
    "builtins.tuple": tuple,
}


class _Restricted(pickle.Unpickler):
    """A plain unpickler that knows numpy's arrays and nothing else: PaddlePaddle's files need no more."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if full not in ADMITTED:
            raise pickle.UnpicklingError(f"it would call {full}")
        return ADMITTED[full]


class _Inert:
    """Stands for an object of another framework: takes what it is given and does nothing."""

    def __setstate__(self, state: Any) -> None:
        pass


def read(path: str | Path) -> Any:
    """The content of a file that torch or PaddlePaddle wrote.

    Raises:
        UserError: there is no such file, it is damaged, or reading it would execute code.
    """
    path = Path(path)
    require_file(path)
    try:
        with path.open("rb") as file:
            if file.read(16).startswith(TORCH):
                return _read_torch(path)
            file.seek(0)
            return _Restricted(file).load()
    except Exception as error:  # both raise a dozen kinds for damaged and for unsafe files
        called = re.search(r"(?:would call|GLOBAL) ([\w.]+)", str(error))
        reason = f"it would call {called[1]}" if called else type(error).__name__
        raise UserError(
            f"{path} cannot be read as a checkpoint ({reason}): it is damaged, or holds more than weights"
        ) from None


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file of `write_safetensors`, and its record; an empty record where somebody else wrote it.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    require_file(path)
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get(RECORD, "{}"))
        return safetensors.torch.load_file(path), record
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: it is damaged ({error})") from None


def write_safetensors(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors and a JSON record of what they are; the file appears whole or not at all. Raises UserError."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {name: value.contiguous() for name, value in tensors.items()}
        safetensors.torch.save_file(whole, partial, {"format": "pt", RECORD: json.dumps(record)})
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise UserError(f"{path} cannot be written ({error}); give another file") from None


def _read_torch(path: Path) -> Any:
    """By torch's own restricted unpickler, with arrays admitted and inert stand-ins for what frameworks left there."""
    dtypes = [type(np.dtype(kind)) for kind in (bool, np.int32, np.int64, np.float32, np.float64)]
    admitted: list[Any] = [(value, name) for name, value in ADMITTED.items()] + dtypes
    with torch.serialization.safe_globals(admitted):
        unknown = []
        with contextlib.suppress(ValueError):  # the older format cannot be looked through beforehand
            unknown = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        foreign = next((name for name in unknown if not name.startswith(FRAMEWORKS)), None)
        if foreign:
            raise pickle.UnpicklingError(f"it would call {foreign}")
        stand_ins: list[Any] = [(type("Inert", (_Inert,), {}), name) for name in unknown]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)


def require_file(path: Path) -> None:
    """Raise UserError, with what lies beside it, unless the file exists."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give a file in it")
    if not path.is_file():
        kinds = (".ckpt", ".safetensors")
        beside = sorted(str(p) for p in path.parent.glob("*") if p.suffix in kinds) if path.parent.is_dir() else []
        raise UserError(
            f"{path} does not exist; expected a checkpoint there"
            + (f"; its folder has {', '.join(beside)}" if beside else "")
        )
