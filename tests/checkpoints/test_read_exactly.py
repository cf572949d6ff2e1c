"""Every sentence that reading says, and every value that arrays in a file have, also those of odd layout."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from test_read import FROM_BUFFER, Call, Lying

from queryinst.checkpoints.read import RECORD, read, read_safetensors, require_file, write_safetensors
from queryinst.errors import UserError


def mistake(call: Any, *arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments)
    return str(caught.value)


def pickled(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        np.zeros((0, 4), np.float16),
        np.array(7, np.uint8),
        np.array([True, False]),
        np.array([b"ab", b"c"]),
        np.array(["ä", "bcd"]),
    ],
    ids=lambda array: array.dtype.str,
)
def test_arrays_are_what_they_were(tmp_path: Path, array: np.ndarray, protocol: int):
    found = read(pickled(tmp_path / "a", {"w": array, "in": [(array, 1)]}, protocol))
    for one in (found["w"], found["in"][0][0]):
        assert (one.dtype, one.shape) == (array.dtype, array.shape)
        assert one.tolist() == array.tolist()
        assert one.flags.writeable
    assert isinstance(found["in"][0], tuple)


def test_numbers_and_keys_are_what_they_were(tmp_path: Path):
    content = {np.int64(3): np.float64(0.1), "t": (np.float32(2), [np.bool_(True)]), "b": b"\x00\xff", "n": b""}
    for protocol in range(6):
        found = read(pickled(tmp_path / "a", content, protocol))
        assert list(found) == [3, "t", "b", "n"]
        assert (found[3], found["t"], found["b"], found["n"]) == (0.1, (2, [True]), b"\x00\xff", b"")
        assert type(found["t"]) is tuple
        assert found[3].dtype == np.float64


UNREADABLE = "{} cannot be read as a checkpoint ({}): it is damaged, or holds more than weights"


def lying(text: str, *state: Any) -> Any:
    return Call(tuple, Call(FROM_BUFFER, b"AAAAAAAA", Lying(text, state), (-1,), "C"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (Call(os.getcwd), "it would call posix.getcwd"),
        (Call(print), "it would call builtins.print"),
        (Call(bytes, 9), "it would call builtins.bytes"),
        (Call(np.dtype, "O"), "it would call numpy.dtype"),
        (Call(np.dtype, "V8"), "it would call numpy.dtype"),
        (lying("f8", "<", None, (), None, -1, -1, 0), "it would call numpy.dtype"),
        (lying("f8", "<", (np.dtype("f8"), (9,)), None, None, -1, -1, 0), "it would call numpy.dtype"),
        (lying("f8", "<", None, None, {}, -1, -1, 0), "it would call numpy.dtype"),
        (lying("f8", "S", None, None, None, -1, -1, 0), "it would call numpy.dtype"),
        (Call(FROM_BUFFER, b"AAAAAAAA", "f8", (1,), "C"), "it would call numpy"),
        (Call(FROM_BUFFER, [1], np.dtype("f8"), (1,), "C"), "it would call numpy"),
        (Call(FROM_BUFFER, b"AAAAAAA", np.dtype("f8"), (1,), "C"), "ValueError"),
    ],
)
def test_what_is_refused_is_named(tmp_path: Path, content: Any, reason: str):
    path = pickled(tmp_path / "a", {"a": content})
    assert mistake(read, path) == UNREADABLE.format(path, reason)


@pytest.mark.parametrize(("order", "first"), [("<", 513), (">", 258), ("=", 513), ("|", 513)])
def test_the_order_of_bytes(tmp_path: Path, order: str, first: int):
    dtype = Lying("i2", (order, None, None, None, -1, -1, 0))
    content = Call(FROM_BUFFER, b"\x01\x02\x00\x00", dtype, (2,), "C")
    assert read(pickled(tmp_path / "a", content)).tolist() == [first, 0]


def test_a_python_2_name_is_the_same_name(tmp_path: Path):
    path = tmp_path / "a"
    path.write_bytes(b"c__builtin__\neval\n(S'1'\ntR.")
    assert mistake(read, path) == UNREADABLE.format(path, "it would call builtins.eval")
    path.write_bytes(b"c__builtin__\ntuple\n((lp0\nI7\natR.")
    assert read(path) == (7,)


def test_an_array_as_python_2_wrote_it(tmp_path: Path):
    """Its bytes are text there; and one that was never filled is empty."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    path = tmp_path / "a"
    path.write_bytes(b"\x80\x02" + array + b"(K\x01K\x02\x85" + dtype + b"\x89U\x02\x07\xfftb.")
    assert read(path).tolist() == [7, 255]
    path.write_bytes(b"\x80\x02" + array + b".")
    assert read(path).shape == (0,)


def test_damaged_files_are_named(tmp_path: Path):
    path = tmp_path / "a"
    for content, reason in (
        (b"", "EOFError"),
        (b"\x80\x04.", "UnpicklingError"),
        (b"PK\x03\x04 no zip", "RuntimeError"),
    ):
        path.write_bytes(content)
        assert mistake(read, str(path)) == UNREADABLE.format(path, reason)


def test_a_file_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").touch()

    for error, reason in ((PermissionError(13, "Permission denied"), "Permission denied"), (OSError("gone"), "gone")):

        def refuse(*_: Any, error: OSError = error) -> None:
            raise error

        monkeypatch.setattr(Path, "open", refuse)
        assert mistake(read, tmp_path / "a") == f"{tmp_path / 'a'} cannot be opened ({reason})"


def test_torch_s_own_files(tmp_path: Path):
    """With what torch puts there, in both formats: tensors, an ordered dictionary, plain values."""
    weights = torch.nn.Linear(2, 3).state_dict()
    for zipped in (True, False):
        content = {
            "w": weights,
            "t": (1, "x"),
            "a": np.arange(3.0),
            "none": np.zeros(0),
            "half": torch.ones(2, dtype=torch.bfloat16),
        }
        torch.save(content, tmp_path / "a", _use_new_zipfile_serialization=zipped)
        found = read(tmp_path / "a")
        assert list(found) == list(content)
        assert all(torch.equal(found["w"][name], value) for name, value in weights.items())
        assert (found["t"], found["a"].tolist(), found["half"].dtype) == ((1, "x"), [0, 1, 2], torch.bfloat16)
        assert (found["none"].shape, found["none"].dtype) == ((0,), np.float64)


def test_what_lies_beside_a_file_that_is_not_there(tmp_path: Path):
    path = tmp_path / "x" / "no.ckpt"
    missing = f"{path} does not exist; expected a checkpoint there"
    assert mistake(require_file, path) == missing
    path.parent.mkdir()
    (path.parent / "c.txt").touch()
    assert mistake(require_file, path) == missing
    for name in ("b.safetensors", "a.ckpt"):
        (path.parent / name).touch()
    beside = f"{path.parent / 'a.ckpt'}, {path.parent / 'b.safetensors'}"
    assert mistake(require_file, path) == f"{missing}; its folder has {beside}"
    assert mistake(read_safetensors, path) == f"{missing}; its folder has {beside}"
    assert mistake(require_file, path.parent) == f"{path.parent} is a folder; give a file in it"
    require_file(path.parent / "a.ckpt")


def test_a_safetensors_file_of_others_has_an_empty_record(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    for metadata in (None, {"format": "pt"}, {RECORD: "[1]"}):
        save_file({"w": torch.ones(2)}, path, metadata)
        tensors, record = read_safetensors(path)
        assert ({name: value.tolist() for name, value in tensors.items()}, record) == ({"w": [1, 1]}, {})
    save_file({"w": torch.ones(2)}, path, {RECORD: "{"})
    start = f"{path} cannot be read as safetensors: it is damaged (Expecting property name"
    assert mistake(read_safetensors, path).startswith(start)
    path.write_bytes(b"")
    assert mistake(read_safetensors, path).startswith(
        f"{path} cannot be read as safetensors: it is damaged (Error while"
    )


def test_tensors_that_share_memory_are_written_whole(tmp_path: Path):
    path, rows = tmp_path / "deep" / "er" / "a.safetensors", torch.arange(6.0).view(2, 3)
    write_safetensors(path, {"a": rows, "b": rows[0], "c": rows.T}, {"n": 1})
    write_safetensors(path, {"a": rows, "b": rows[0], "c": rows.T}, {"n": 2})
    tensors, record = read_safetensors(path)
    assert (tensors["a"].tolist(), tensors["b"].tolist()) == (rows.tolist(), [0, 1, 2])
    assert (tensors["c"].tolist(), record) == (rows.T.tolist(), {"n": 2})
    assert os.listdir(path.parent) == ["a.safetensors"]
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "queryinst": '{"n": 2}'}


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.safetensors"
    path.mkdir()
    (path / "in it").touch()
    said = mistake(write_safetensors, path, {"a": torch.ones(1)}, {})
    assert said.startswith(f"{path} cannot be written ([Errno ")
    assert said.endswith("); give another file")
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_what_a_plugin_of_mmengine_left_is_inert(tmp_path: Path):
    """Built, called and filled as its own class would be, and nothing comes of it."""
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(1), "at": Path("x/y")}, path)
    found = read(path)
    assert found["w"].item() == 1
    assert vars(found["at"]) == {}
