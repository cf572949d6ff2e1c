"""How a command ends: its exit code, and one line instead of a traceback where nothing is wrong with the program."""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType

from queryinst.errors import SaidElsewhere, Stopped, UserError, fullness, room
from queryinst.studies.processes import exit_code, is_first

# Set by the user, HYDRA_FULL_ERROR=1 shows where other people's code failed. Hydra needs it of us in any case, so that
# what the user wanted is remembered here, for the processes of other devices and of a sweep too.
TRACEBACK = "QUERYINST_TRACEBACK"


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Around all that a command does. Exit codes: 0 done, 1 a fault of ours (with traceback), 2 the user's mistake or a
    full disk (one sentence), 130 interrupted, 128 and a signal's number where that ended it in good order, as 141 where
    nobody reads on (`| head -1`).
    """
    os.environ.setdefault(TRACEBACK, os.environ.get("HYDRA_FULL_ERROR", ""))
    threading.excepthook = _of_a_thread
    try:
        with room("what this command writes"):
            try:
                yield
            except SystemExit as leaving:
                if isinstance(leaving.__context__, BrokenPipeError):  # rich leaves in this way
                    raise leaving.__context__ from None
                _flush()
                raise
            _flush()
    except SaidElsewhere:
        sys.exit(exit_code(2))
    except UserError as error:
        say(error)
        sys.exit(2)
    except Stopped as stop:
        sys.exit(exit_code(stop.code))
    except KeyboardInterrupt:
        if is_first():
            _tell("\ninterrupted")
        sys.exit(130)
    except BrokenPipeError:
        _silence(1, 2)
        sys.exit(128 + signal.SIGPIPE)


def say(error: UserError) -> None:
    """Print the sentence; where the user has asked for it, after the traceback of what it was made from."""
    if os.environ.get(TRACEBACK) == "1" and error.__cause__:
        traceback.print_exception(error.__cause__)
    rank = os.environ.get("LOCAL_RANK", "0")
    _tell(f"error{f' on device {rank}' if rank != '0' else ''}: {error}")


def _tell(sentence: str) -> None:
    """On stderr, if anybody reads it. What stdout does not take any more is not tried again when Python ends."""
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)
    try:
        _flush()
    except OSError:
        _silence(1)


def _flush() -> None:
    """Now, and not when Python ends, which would say more about it and give another code."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()


def _silence(*numbers: int) -> None:
    """Let whatever is still written to stdout (1) or stderr (2) on the way out go nowhere."""
    for number in numbers:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _of_a_thread(arguments: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread and raises what befell it again where it is waited for."""
    if arguments.exc_value is None or fullness(arguments.exc_value) is None:
        threading.__excepthook__(arguments)


def _early(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Ctrl+C while a command is still importing."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, where)
    elif is_first():
        _tell("\ninterrupted")


_program = getattr(sys.modules["__main__"], "__spec__", None)
if _program is not None and _program.name.startswith("queryinst."):  # a command, which has not begun
    sys.excepthook = _early
