"""A checkpoint is the old one or the new one, whenever writing it ends."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from queryinst.errors import UserError
from queryinst.lightning.callbacks.keep_last import RESUMING, AtomicCheckpointIO

OLD, NEW = {"a": 1}, {"a": 2, "weights": torch.arange(9.0)}
FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")
NO_FILE = RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file")


@pytest.fixture
def last(tmp_path: Path) -> Path:
    """`last.ckpt`, written once."""
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(OLD, path)
    return path


def write(path: Path) -> None:
    AtomicCheckpointIO().save_checkpoint(NEW, path)


def is_new(path: Path) -> bool:
    content = torch.load(path, weights_only=True)
    assert content == OLD or torch.equal(content["weights"], NEW["weights"])
    return content["a"] == 2


def test_it_is_on_disk_before_it_takes_the_place_of_the_old_one(last: Path, monkeypatch: pytest.MonkeyPatch):
    """Renamed before it is there, a machine that goes down would leave a part in the place of the last good one."""
    save, fsync, replace = torch.save, os.fsync, os.replace
    partial, seen = last.with_name("last.ckpt.partial"), list[str]()

    def unflushed(content: Any, file: Any) -> None:
        written = io.BytesIO()
        save(content, written)
        file.write(written.getvalue())

    def sync(number: int) -> None:
        assert os.path.samestat(os.fstat(number), partial.stat())
        assert is_new(partial), "all of it"
        assert not is_new(last)
        seen.append("on disk")
        fsync(number)

    def rename(source: Any, target: Any) -> None:
        assert (Path(source), Path(target)) == (partial, last)
        assert not is_new(last)
        seen.append("renamed")
        replace(source, target)

    monkeypatch.setattr(torch, "save", unflushed)
    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    write(last)
    assert seen == ["on disk", "renamed"]
    assert is_new(last)
    assert [entry.name for entry in last.parent.iterdir()] == ["last.ckpt"]


def before_writing(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    patch.setattr(Path, "open", raising(error))


def while_writing(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    def half(content: Any, file: Any) -> None:
        file.write(b"half of it")
        raise error

    patch.setattr(torch, "save", half)


def after_writing(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    patch.setattr(os, "fsync", raising(error))


def while_renaming(patch: pytest.MonkeyPatch, error: BaseException) -> None:
    patch.setattr(os, "replace", raising(error))


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


@pytest.mark.parametrize("moment", [before_writing, while_writing, after_writing, while_renaming])
@pytest.mark.parametrize(
    ("error", "reason"), [(FULL, "no space left"), (NO_FILE, "no space left"), (BROKEN, "[Errno 5] Input/output error")]
)
def test_where_it_cannot_be_written_the_last_one_stays(
    last: Path, monkeypatch: pytest.MonkeyPatch, moment: Any, error: Exception, reason: str
):
    with monkeypatch.context() as patch:
        moment(patch, error)
        with pytest.raises(UserError) as caught:
            write(last)
    assert str(caught.value) == (
        f"the checkpoint {last} cannot be written ({reason}); the last good one stays: {last}. "
        "Make room, and the same command goes on"
    )
    assert not is_new(last)
    assert [entry.name for entry in last.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("moment", [before_writing, while_writing, after_writing, while_renaming])
def test_a_run_that_is_killed_at_any_moment_keeps_the_last_one(
    last: Path, monkeypatch: pytest.MonkeyPatch, moment: Any
):
    """And what it leaves is in nobody's way."""
    with monkeypatch.context() as patch:
        moment(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            write(last)
    assert not is_new(last)
    write(last)
    assert is_new(last)
    assert [entry.name for entry in last.parent.iterdir()] == ["last.ckpt"]


def test_what_cannot_be_pickled_is_no_matter_of_the_disk(last: Path, monkeypatch: pytest.MonkeyPatch):
    while_writing(monkeypatch, RuntimeError("no such storage"))
    with pytest.raises(RuntimeError, match="^no such storage$"):
        write(last)
    monkeypatch.undo()
    assert not is_new(last)
    assert [entry.name for entry in last.parent.iterdir()] == ["last.ckpt"]


def test_a_light_one_is_of_weights_alone(tmp_path: Path):
    content = {"state_dict": NEW["weights"], "queryinst": {}, "global_step": 3, **dict.fromkeys(RESUMING, OLD)}
    writer = AtomicCheckpointIO(light=tmp_path / "best.ckpt")
    for name, left_out in (("best.ckpt", set(RESUMING)), ("last.ckpt", set[str]())):
        writer.save_checkpoint(content, str(tmp_path / name))
        assert torch.load(tmp_path / name, weights_only=True).keys() == content.keys() - left_out
    assert content.keys() > set(RESUMING), "what others write of it is whole"


def test_a_folder_that_is_not_there_is_made(tmp_path: Path):
    write(tmp_path / "outputs" / "run" / "last.ckpt")
    assert is_new(tmp_path / "outputs" / "run" / "last.ckpt")


def test_a_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "run").touch()
    path = tmp_path / "run" / "last.ckpt"
    with pytest.raises(UserError) as caught:
        AtomicCheckpointIO().save_checkpoint(OLD, str(path))
    assert str(caught.value) == (
        f"the checkpoint {path} cannot be written ([Errno 17] File exists: '{path.parent}'); there is none yet. "
        "Make room, and the same command goes on"
    )
