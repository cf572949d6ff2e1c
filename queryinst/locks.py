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
def held(file: Path, what: str = "train one run", wait: str = "") -> Iterator[bool]:
    """Hold a lock; where nothing can be locked, say so in one line and go on without.

    Args:
        file: the lock, which stays when it is released.
        what: what two processes should not do at once, for that line.
        wait: said once where another process has the lock, which is then waited for. By default it is not.

    Returns:
        whether it is held.

    Raises:
        filelock.Timeout: another process has it, and `wait` is empty.
    """
    lock = filelock.FileLock(file, fallback_to_soft=False)  # a file that outlives a kill is no lock
    try:
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            if not wait:
                raise
            print(wait, file=sys.stderr, flush=True)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, filelock.Timeout) or (isinstance(error, OSError) and error.errno not in NONE):
            raise
        print(
            f"nothing is locked: the file system of {file.parent} has no locks, so that two processes that {what} "
            "would not notice each other",
            file=sys.stderr,
        )
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
