"""Locks that end with their process; and what is done where a file system has none."""

import contextlib
import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock

# flock is not there, or the server that should keep the locks of a network file system is not.
NONE = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextlib.contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold a lock, at once or not at all. Where nothing can be locked, say so in one line and go on without.

    Raises:
        filelock.Timeout: another process has it.
    """
    lock = filelock.FileLock(file, blocking=False, fallback_to_soft=False)  # a file that outlives a kill is no lock
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, filelock.Timeout) or (isinstance(error, OSError) and error.errno not in NONE):
            raise
        print(
            f"nothing is locked: the file system of {file.parent} has no locks, so that two processes that train one "
            "run would not notice each other",
            file=sys.stderr,
        )
        yield
        return
    try:
        yield
    finally:
        lock.release()
