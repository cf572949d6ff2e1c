"""Reading files of others: what is data is read, what is code is refused by name and not run."""

import fractions
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from queryinst.checkpoints.read import read, read_safetensors, write_safetensors
from queryinst.errors import UserError


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("lenient", [False, True], ids=["", "torch is told to run it"])
@pytest.mark.parametrize("kind", ["torch", "torch of old", "pickle"])
def test_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, lenient: bool):
    """In a pickle beside the weights, before them, and in both formats of torch."""
    if lenient:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    path, victim = tmp_path / "weights", tmp_path / "victim"
    content = {"state_dict": {"a": torch.zeros(1)}, "meta": Malicious(victim)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": np.zeros(1), "b": Malicious(victim)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(UserError, match=r"weights cannot be read as a checkpoint \(it would call \w+\.mkdir\)"):
        read(path)
    assert not victim.exists()


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = function, arguments

    def __reduce__(self) -> Any:
        return self.how


FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]
SUBARRAY = ("<", (np.dtype("f8"), (4096,)), None, None, -1, -1, 0)


class Lying:
    """Pickles as numpy's dtype of `text`, with a state that says something else of the memory."""

    def __init__(self, text: str, state: tuple[Any, ...]) -> None:
        self.text, self.state = text, (3, *state)

    def __reduce__(self) -> Any:
        return np.dtype, (self.text, False, True), self.state


@pytest.mark.parametrize("in_torch", [True, False])
@pytest.mark.parametrize(
    "dtype", [Lying("O", ("|", None, None, None, -1, -1, 0)), Lying("f8", SUBARRAY), Lying("O8", SUBARRAY)]
)
def test_an_array_cannot_lie_about_memory(tmp_path: Path, dtype: Lying, in_torch: bool):
    """numpy's own dtype would take bytes of the file for addresses, or read past their end."""
    content = {"a": Call(tuple, Call(FROM_BUFFER, b"AAAAAAAA", dtype, (-1,), "C"))}
    if in_torch:
        torch.save(content, tmp_path / "a")
    else:
        (tmp_path / "a").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r"it would call numpy\.dtype"):
        read(tmp_path / "a")


def test_a_compressed_archive_is_refused(tmp_path: Path):
    torch.save({"a": torch.zeros(10)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(UserError, match=r"b\.pth cannot be read as a checkpoint"):
        read(tmp_path / "b.pth")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(tmp_path: Path, protocol: int):
    path = tmp_path / "a.pdparams"
    content = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.int64(3), "t": ("name", np.ones(2))}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read(path)
    assert (found["w"] == content["w"]).all()
    assert found["w"].dtype == np.float32
    assert found["n"] == 3
    assert found["t"][0] == "name"


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_of_frameworks_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool):
    """MMDetection 3.x leaves log buffers and numpy numbers in a checkpoint: read, and their classes never called."""
    module = types.ModuleType("mmengine.logging")
    names = {"__module__": module.__name__, "__qualname__": "Buffer", "mean": classmethod(lambda cls: 0)}
    buffer = type("Buffer", (), names)
    module.Buffer = buffer  # type: ignore[attr-defined]
    for name in ("mmengine", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    log = buffer()
    log.history, log.how = np.arange(3.0), Call(getattr, buffer, "mean")  # type: ignore[attr-defined]
    meta = {"lr": np.float64(0.1), "palette": np.zeros((2, 3), np.uint8), "name": np.str_("x"), "at": Path("somewhere")}
    content = {"state_dict": {"a": torch.ones(2)}, "log": log, "meta": meta}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    monkeypatch.delitem(sys.modules, module.__name__)
    found = read(tmp_path / "a.pth")
    assert found["state_dict"]["a"].tolist() == [1, 1]
    assert found["meta"]["lr"] == 0.1
    assert found["meta"]["palette"].tolist() == [[0, 0, 0]] * 2
    assert not hasattr(found["log"], "history")


def test_safetensors_round_trip_and_damage(tmp_path: Path):
    path = tmp_path / "new" / "a.safetensors"
    write_safetensors(path, {"w": torch.arange(6).view(2, 3).T}, {"kind": "x", "names": ["ä"]})
    tensors, record = read_safetensors(path)
    assert tensors["w"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert record == {"kind": "x", "names": ["ä"]}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.safetensors"]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"a\.safetensors cannot be read as safetensors: it is damaged"):
        read_safetensors(path)
    with pytest.raises(UserError, match=r"gone\.safetensors does not exist.*its folder has .*a\.safetensors"):
        read_safetensors(path.with_name("gone.safetensors"))
    blocked = tmp_path / "file"
    blocked.touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_safetensors(blocked / "a.safetensors", {}, {})


def test_what_no_training_code_leaves_there_is_refused_though_it_would_do_no_harm(tmp_path: Path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": fractions.Fraction(1, 3)}, tmp_path / "weights")
    with pytest.raises(UserError, match=r"\(it would call fractions\.Fraction\)"):
        read(tmp_path / "weights")
