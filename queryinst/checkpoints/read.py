"""Reading weight files of any origin without executing anything in them: tensors, arrays and plain values only."""

import codecs
import collections
import contextlib
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from queryinst.errors import FULL, UserError

TORCH = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")  # how torch.save's two formats begin
RECORD = "queryinst"  # the key of our record in a safetensors file's metadata
# Objects of these may lie beside the weights. Nobody needs them, and none of their code is found or called.
FOREIGN = ("mmengine.", "mmcv.", "mmdet.", "pathlib.", "datetime.")


class NotWrittenError(UserError):
    """A file of ours cannot be written, whatever it was made of."""


class _Inert:
    """Stands for an object of another package: takes what it is given and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Dtype:
    """Stands for numpy.dtype, whose own __setstate__ would let a file lie about what memory holds."""

    def __init__(self, text: Any, *flags: Any) -> None:
        if not re.fullmatch(r"[fiubSU]\d{1,4}", str(text)):
            raise pickle.UnpicklingError(f"it would call numpy.dtype for {str(text)[:20]!r}")
        self.dtype = np.dtype(str(text))

    def __setstate__(self, state: Any) -> None:
        _, order, *structure = state
        if any(part is not None for part in structure[:3]) or order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("it would call numpy.dtype for records")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for numpy.ndarray until `_plain` takes the array out: made from bytes that are as long as it says."""

    def __init__(self, *args: Any) -> None:
        self.value = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content: Any, dtype: Any, shape: Any, order: str) -> "_Array":
        content = content.encode("latin1") if isinstance(content, str) else content
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray):
            raise pickle.UnpicklingError("it would call numpy for an array of objects")
        self.value = np.frombuffer(content, dtype.dtype).reshape(shape, order="F" if order == "F" else "C").copy()
        return self


def _attribute(*args: Any) -> _Inert:
    """Instead of `getattr`, with which mmengine's log buffers remember their own methods."""
    return _Inert()


def _reconstruct(*args: Any) -> _Array:
    return _Array()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: str) -> _Array:
    return _Array().fill(content, dtype, shape, order)


def _scalar(dtype: Any, content: Any) -> Any:
    return _Array().fill(content, dtype, (), "C").value[()]


def _no_bytes(*args: Any) -> bytes:
    """Instead of `bytes`, which protocols below 3 call for an empty string, as every array without elements has one."""
    if args:
        raise pickle.UnpicklingError("it would call builtins.bytes")
    return b""


# What arrays, numbers and byte strings are pickled as, under numpy's old and new names, and what is called instead.
_NUMPY = {"multiarray._reconstruct": _reconstruct, "multiarray.scalar": _scalar, "numeric._frombuffer": _frombuffer}
ADMITTED: dict[str, Any] = {
    **{f"numpy.{core}.{name}": value for core in ("core", "_core") for name, value in _NUMPY.items()},
    "numpy.ndarray": _Array,
    "numpy.dtype": _Dtype,
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": codecs.encode,
    "builtins.tuple": tuple,
    "builtins.bytes": _no_bytes,
    "builtins.getattr": _attribute,
}


class _Restricted(pickle.Unpickler):
    """A plain unpickler that knows arrays and nothing else: PaddlePaddle's files need no more."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module.replace('__builtin__', 'builtins')}.{name}"
        if full not in ADMITTED:
            raise pickle.UnpicklingError(f"it would call {full}")
        return ADMITTED[full]


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
                return _plain(_read_torch(path))
            file.seek(0)
            return _plain(_Restricted(file, encoding="latin1").load())
    except OSError as error:
        raise UserError(f"{path} cannot be opened ({error.strerror or error})") from None
    except Exception as error:  # both raise a dozen kinds for damaged and for unsafe files
        called = re.search(r"(?:would call|GLOBAL) ([\w.]+)", str(error))
        reason = f"it would call {called[1]}" if called else type(error).__name__
        raise UserError(
            f"{path} cannot be read as a checkpoint ({reason}): it is damaged, or holds more than weights"
        ) from None


def _plain(value: Any) -> Any:
    """The value with the arrays that stand-ins hold."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value] if isinstance(value, list) else tuple(_plain(item) for item in value)
    return value


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file of `write_safetensors`, and its record; an empty record where somebody else wrote it.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    require_file(path)
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get(RECORD, "{}"))
        return safetensors.torch.load_file(path), record if isinstance(record, dict) else {}
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors: it is damaged ({error})") from None


def write_safetensors(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write tensors and a JSON record of what they are; the file appears whole or not at all.

    Raises:
        NotWrittenError: a full disk, or another reason that it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {name: value.clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
        safetensors.torch.save_file(whole, partial, {"format": "pt", RECORD: json.dumps(record)})
        partial.replace(path)
    except (OSError, safetensors.SafetensorError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        number = re.search(r"os error (\d+)", str(error))  # safetensors says it in its text only
        full = FULL.get(int(number[1]) if number else getattr(error, "errno", 0))
        raise NotWrittenError(
            f"{path} cannot be written: {full}. Make room, and the same command goes on"
            if full
            else f"{path} cannot be written ({error}); give another file"
        ) from None


def _read_torch(path: Path) -> Any:
    """By torch's own restricted unpickler, with stand-ins for arrays and for what other packages left there."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise pickle.UnpicklingError("torch compresses nothing")  # and a small file could fill the memory
    stand_ins: dict[str, Any] = dict(ADMITTED)
    while True:
        try:
            with torch.serialization.safe_globals([(value, name) for name, value in stand_ins.items()]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            name = (re.search(r"GLOBAL ([\w.]+)", str(error)) or [""])[0].removeprefix("GLOBAL ")
            if not name.startswith(FOREIGN) or name in stand_ins:
                raise
            stand_ins[name] = type("Inert", (_Inert,), {})


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
