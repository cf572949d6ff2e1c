"""Which threads and GPUs a job of a sweep gets when several run at once on a machine."""

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from queryinst.errors import UserError
from queryinst.locks import held

# One a GPU, held while a job has it. The folder for temporary files is shared by the users of a machine, this is not.
LOCKS = Path(tempfile.gettempdir()) / f"queryinst-devices-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def jobs_at_once() -> int:
    """How many jobs of this sweep run at the same time on this machine."""
    return at_once(HydraConfig.get().launcher)


def at_once(launcher: Any) -> int:
    """How many jobs a launcher of that configuration runs at the same time: joblib's `n_jobs`, otherwise 1."""
    asked = int(OmegaConf.select(launcher, "n_jobs", default=1) or 1)
    return asked if asked > 0 else max(1, _cores() + 1 + asked)  # joblib: -1 is all cores, -2 all but one


@contextlib.contextmanager
def dealt(wanted: str, jobs: int) -> Iterator[dict[str, str]]:
    """Environment variables for one of `jobs` jobs at once: its share of the threads, and GPUs that no other has.

    Waits until as many GPUs are free as the job wants. A job that names its devices itself (`0,2`), or wants all of
    them (`auto`), is given nothing; likewise where there is no GPU.
    """
    if jobs == 1:
        yield {}
        return
    threads = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, _cores() // jobs))}
    gpus = _gpus() if wanted.isdecimal() else []
    if not gpus:
        yield threads
        return
    with _held(gpus, min(int(wanted), len(gpus))) as mine:
        yield threads | {"CUDA_VISIBLE_DEVICES": ",".join(mine)}


@contextlib.contextmanager
def _held(gpus: Sequence[str], count: int) -> Iterator[list[str]]:
    """Hold `count` of the GPUs, all of them at once, so that two jobs never wait for each other."""
    try:
        LOCKS.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(LOCKS, os.W_OK | os.X_OK) or (hasattr(os, "getuid") and LOCKS.stat().st_uid != os.getuid()):
            raise PermissionError(errno.EACCES, "it is another user's")
    except OSError as error:
        raise UserError(
            f"GPUs are dealt out by locks in {LOCKS}, which cannot be written ({error.strerror}): set TMPDIR to a "
            "folder of yours"
        ) from None
    while True:
        with contextlib.ExitStack() as stack:
            mine = []
            for gpu in gpus:
                with contextlib.suppress(filelock.Timeout):
                    stack.enter_context(held(LOCKS / f"{gpu}.lock"))
                    mine.append(gpu)
                if len(mine) == count:
                    yield mine
                    return
        time.sleep(1)


def _gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
