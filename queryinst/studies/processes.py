"""Which of the processes of one run this is, and whose."""

import ctypes
import os
import re
import signal
import sys

from queryinst.errors import UserError

RANKS = ("RANK", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
BY_HAND = ("bash", "interactive")  # names of SLURM's jobs in which Lightning starts the processes itself
PARENT = "QUERYINST_PARENT"  # environment: the process that a job of a sweep belongs to


def is_first() -> bool:
    """Whether this is the first process of the run, not one that Lightning or a cluster started for another device."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "NODE_RANK", "LOCAL_RANK", "SLURM_PROCID"))


def settle(devices: str, nodes: int) -> None:
    """Before torch is imported: leave in the environment no rank that is not this run's.

    A shell within a job of SLURM, or one where somebody has set RANK, makes a process look like one of several. Alone,
    it would take itself for another device's, train, and leave no result.

    Args:
        devices: as `trainer.devices` has them.
        nodes: machines.

    Raises:
        UserError: there is a rank, and how many processes there are is not known, or is not what the settings say.
    """
    world = os.environ.get("WORLD_SIZE", "")
    ranks = {name: os.environ[name] for name in RANKS if os.environ.get(name, "0") != "0"}
    if nodes == 1 and (devices == "1" or re.fullmatch(r"\d+,", devices)):
        if world not in ("", "1"):
            raise UserError(
                f"WORLD_SIZE={world} says that this is one of {world} processes, and trainer.devices={devices} that it "
                f"is alone: set trainer.devices={world} trainer.strategy=ddp (on several machines trainer.num_nodes "
                f"too), or unset {' '.join(['WORLD_SIZE', *ranks])}"
            )
        for name in ranks:
            del os.environ[name]
        if "SLURM_PROCID" in ranks or os.environ.get("SLURM_NTASKS", "1") != "1":
            os.environ["SLURM_JOB_NAME"] = BY_HAND[0]  # several by mistake meet at the lock of the run
        return
    if os.environ.get("SLURM_JOB_NAME") in BY_HAND and "SLURM_PROCID" in ranks:
        del os.environ["SLURM_PROCID"], ranks["SLURM_PROCID"]
    for name in ("NODE_RANK", "GROUP_RANK"):
        if name in ranks and nodes == 1:
            raise UserError(
                f"{name}={ranks[name]} says that this is not the first machine, and trainer.num_nodes=1 that there is "
                f"but one: set trainer.num_nodes, or unset {name}"
            )
    for name in ("RANK", "LOCAL_RANK"):
        if name in ranks and not world:
            raise UserError(
                f"{name}={ranks[name]} says that this is one of several processes, and no WORLD_SIZE of how many: "
                f"unset {name}, or start them with torchrun or srun"
            )


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
