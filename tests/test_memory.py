"""A process that keeps its memory has no page faults where it uses it again."""

import subprocess
import sys

import pytest
from conftest import ROOT

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
