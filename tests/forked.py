"""Commands as processes of their own that need not import anything: copies of the process that tests."""

import asyncio
import atexit
import inspect
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra

PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")  # subprocess's names: p parent, c child
OURS = ("queryinst", "ipykernel", "submitit.", "my_")  # what is run as modules; the last is tests' own


class Forked(subprocess.Popen):
    """`subprocess.Popen` that answers `python -m queryinst.VERB ...` and `python FILE ...` by a fork.

    Importing torch and Lightning takes a process seven seconds, and this one has imported them. What the tests of a
    command are about stays: other memory, its own environment, working directory, signals, pipes and exit code. Tests
    of how a process begins and ends take the real one.
    """

    def _execute_child(self, args: Any, *more: Any) -> None:
        given = inspect.signature(super()._execute_child).bind(args, *more).arguments
        words = [os.fspath(word) for word in args] if isinstance(args, (list, tuple)) else []
        if words[1:2] == ["-u"]:
            del words[1]
        ours = words[1:2] == ["-m"] and words[2].startswith(OURS)
        ours |= "".join(words[1:2]).endswith(".py")
        if words[:1] != [sys.executable] or not ours:
            super()._execute_child(args, *more)
            return
        self.pid = os.fork()
        if self.pid == 0:
            try:
                for number, pipe in enumerate(("p2cread", "c2pwrite", "errwrite")):
                    if given[pipe] not in (-1, number):
                        os.dup2(given[pipe], number)
                _run(words, given["cwd"], given["env"], given["start_new_session"])
            finally:
                os._exit(1)
        self._child_created = True
        self._close_pipe_fds(*(given[pipe] for pipe in PIPES))


def _run(words: list[str], cwd: Any, env: Any, session: bool) -> None:
    """As an interpreter would with these words; does not return."""
    if session:
        os.setsid()
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd or ".")
    os.environ.clear()
    os.environ.update(env or {})
    atexit._clear()
    logging.getLogger().handlers.clear()
    GlobalHydra.instance().clear()
    asyncio._set_running_loop(None)
    asyncio.set_event_loop(None)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering=1, closefd=False) for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    sys.orig_argv = words
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    code = 0
    try:
        if words[1] == "-m":
            sys.argv, sys.path = words[2:], [os.getcwd(), *sys.path]
            sys.modules.pop(words[2], None)
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path = words[1:], [str(Path(words[1]).resolve().parent), *sys.path]
            runpy.run_path(words[1], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
