"""Reading files of others: what is data is read, what is code is refused by name and not run."""

import os
import pickle
import sys
import types
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


@pytest.mark.parametrize("kind", ["torch", "torch of old", "pickle"])
def test_code_is_refused(tmp_path: Path, kind: str):
    """In a pickle beside the weights, before them, and in both formats of torch."""
    path, victim = tmp_path / "weights", tmp_path / "victim"
    content = {"state_dict": {"a": torch.zeros(1)}, "meta": Malicious(victim)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"a": np.zeros(1), "b": Malicious(victim)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    with pytest.raises(UserError, match=r"weights cannot be read as a checkpoint \(it would call \w+\.mkdir\)"):
        read(path)
    assert not victim.exists()


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


def test_objects_of_frameworks_beside_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """MMDetection 3.x leaves log buffers and numpy numbers in a checkpoint: read, and their classes never called."""
    module = types.ModuleType("mmengine.logging")
    buffer = type("Buffer", (), {"__module__": module.__name__, "__qualname__": "Buffer"})
    module.Buffer = buffer  # type: ignore[attr-defined]
    for name in ("mmengine", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    log = buffer()
    log.history = np.arange(3.0)  # type: ignore[attr-defined]
    torch.save({"state_dict": {"a": torch.ones(2)}, "log": log, "meta": {"lr": np.float64(0.1)}}, tmp_path / "a.pth")
    monkeypatch.delitem(sys.modules, module.__name__)
    found = read(tmp_path / "a.pth")
    assert found["state_dict"]["a"].tolist() == [1, 1]
    assert found["meta"]["lr"] == 0.1
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
