"""Exit codes, and that nobody sees a traceback or Hydra's remarks where nothing is wrong with the program."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SHORT, Run

from queryinst.errors import Stopped, UserError, room
from queryinst.studies import ending, job

DRY = ["data=shapes_tiny", "dry_run=true"]


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch):
    for name in (ending.TRACEBACK, "HYDRA_FULL_ERROR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (Stopped(signal.SIGTERM), 143, ""),
        (Stopped(signal.SIGALRM), 142, ""),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
        (UserError("no"), 2, "error: no\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "outputs/x"),
            2,
            "error: outputs/x cannot be written: no space left. Make room, and the same command goes on; what was "
            "whole before is so still\n",
        ),
        (
            OSError(errno.EDQUOT, "Disk quota exceeded"),
            2,
            "error: what this command writes cannot be written: the quota",
        ),
    ],
)
def test_one_line_and_a_code(
    workplace: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
):
    def fails(config: Any) -> None:
        raise error

    monkeypatch.setattr(job, "run", fails)
    ended, text = run("train", "data=shapes_tiny")
    assert ended == code
    assert text.startswith(said)
    assert text.count("\n") == max(said.count("\n"), code == 2)


def test_a_fault_of_ours_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job, "run", lambda config: {}[1])
    with pytest.raises(KeyError):
        run("train", "data=shapes_tiny")


@pytest.mark.parametrize(
    "text", ["[enforce fail at inline_container.cc:660] . PytorchStreamWriter failed writing file data/3"]
)
def test_torch_says_a_full_disk_in_its_own_way(text: str):
    with pytest.raises(UserError, match=r"^here cannot be written: no space left\. Make room"), room("here"):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="shapes"), room("here"):
        raise RuntimeError("shapes do not fit")


def test_a_cause_is_shown_to_those_who_ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    error = UserError("it fails")
    error.__cause__ = ValueError("inside")
    ending.say(error)
    assert capsys.readouterr().err == "error: it fails\n"
    monkeypatch.setenv(ending.TRACEBACK, "1")
    ending.say(error)
    assert capsys.readouterr().err == "ValueError: inside\nerror: it fails\n"


def test_a_thread_that_meets_a_full_disk_leaves_it_to_those_who_wait(capsys: pytest.CaptureFixture[str]):
    for error, seen in ((OSError(errno.ENOSPC, "full"), False), (OSError(errno.EIO, "broken"), True)):
        ending._of_a_thread(threading.ExceptHookArgs((type(error), error, None, None)))
        assert bool(capsys.readouterr().err) == seen


def start(*words: str, **more: Any) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **more)


@pytest.mark.parametrize(
    "words", [("queryinst.train", "--help"), ("queryinst.doctor", "data=shapes_tiny")], ids=["train", "doctor"]
)
def test_where_nobody_reads_nothing_is_said(workplace: Path, words: tuple[str, ...]):
    end, begin = os.pipe()
    os.close(end)
    with start(*words, cwd=workplace, stdout=begin) as process:
        os.close(begin)
        said = process.communicate(timeout=100)[1]
    assert (process.returncode, said) == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_what_is_printed_onto_a_full_disk(workplace: Path):
    with Path("/dev/full").open("w") as full, start("queryinst.train", *DRY, cwd=workplace, stdout=full) as process:
        said = process.communicate(timeout=100)[1]
    assert process.returncode == 2
    assert said.startswith("error: what this command writes cannot be written: no space left. ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("module", ["hydra", "torch"])
def test_an_early_interrupt(workplace: Path, module: str):
    """While Hydra or torch is imported: here by a module of that name which presses Ctrl+C itself."""
    pressed = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    (workplace / f"{module}.py").write_text(pressed)
    words = DRY if module == "hydra" else SHORT
    with start("queryinst.train", *words, cwd=workplace, stdout=subprocess.DEVNULL) as process:
        said = process.communicate(timeout=100)[1]
    assert (process.returncode, said) in ((130, "\ninterrupted\n"), (-signal.SIGINT, "\ninterrupted\n"))
