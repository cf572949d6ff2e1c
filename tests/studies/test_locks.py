"""A lock keeps others out; without any, a run goes on and says so."""

import errno
import fcntl
from pathlib import Path

import filelock
import pytest
from conftest import shapes_config
from test_job_folder import TRAINED

from queryinst.lightning import training
from queryinst.locks import held
from queryinst.studies import job


def test_one_process_has_it(tmp_path: Path):
    with held(tmp_path / "a"), pytest.raises(filelock.Timeout), held(tmp_path / "a"):
        pytest.fail("two have it")
    with held(tmp_path / "a"):
        pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
):
    def flock(*_: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(training, "train", lambda *_: TRAINED)
    for seed in (1, 2):
        folder = job.run(shapes_config(seed=seed))
        assert (folder / "result.json").exists()
        assert capsys.readouterr().err.startswith(f"nothing is locked: the file system of {folder} has no locks, so ")


def test_what_else_goes_wrong_is_not_hidden(tmp_path: Path):
    with pytest.raises(OSError, match="Is a directory"), held(tmp_path):
        pass
