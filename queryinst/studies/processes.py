"""Which of the processes of one run this is, and whose."""

import ctypes
import os
import signal
import sys

PARENT = "QUERYINST_PARENT"  # environment: the process that a job of a sweep belongs to


def is_first() -> bool:
    """Whether this is the first process of the run, not one that Lightning or a cluster started for another device."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))


def exit_code(code: int) -> int:
    """The exit code for what all processes agreed on: the first gives it, the others 0.

    Lightning kills the first process when it sees another end with anything else, and the code would be lost; and
    `srun` gives the largest of all codes.
    """
    return code if is_first() else 0


def end_with_parent() -> None:
    """Where a sweep started this process, be told (SIGTERM) when it is gone, as after a kill; on Linux."""
    parent = os.environ.pop(PARENT, "")  # not for the processes of other devices
    if not parent or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != int(parent):  # gone already
        os.kill(os.getpid(), signal.SIGTERM)
