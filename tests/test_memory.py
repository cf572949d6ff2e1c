"""A process that keeps its memory has no page faults where it uses it again."""

import ctypes
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ROOT

from queryinst.memory import keep_memory

SCRIPT = """
import resource, sys
from queryinst.memory import keep_memory
if {keep}:
    assert keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytes(bytearray(200_000_000))
before = faults()
bytes(bytearray(200_000_000))
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_memory_is_kept():
    counts = [
        int(
            subprocess.run(
                [sys.executable, "-c", SCRIPT.format(keep=keep)], capture_output=True, text=True, check=True, cwd=ROOT
            ).stdout
        )
        for keep in (False, True)
    ]
    assert counts[1] < 0.1 * counts[0]


@pytest.mark.parametrize(("answers", "expected"), [([1, 1], True), ([0, 1], False), ([1, 0], False)])
def test_it_says_whether_glibc_took_it(monkeypatch: pytest.MonkeyPatch, answers: list[int], expected: bool):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=lambda key, value: answers.pop(0)))
    monkeypatch.delenv("THP_MEM_ALLOC_ENABLE", raising=False)
    assert keep_memory() is expected
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1", "pages of 2 MB for PyTorch"


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_where_there_is_no_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch, error: type[Exception]):
    def missing(name: None) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    assert keep_memory() is False
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0", "what somebody has said stays"
