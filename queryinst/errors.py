"""The one exception for a user's mistake: a sentence that says got, wanted, where, and what to do next."""

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

PRUNED = 3  # exit code
LONGEST = 1000  # characters of a sentence
FULL = {
    errno.ENOSPC: "no space left",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file may not grow further",
}
# torch loses the system's number on the way. This is what its writers say instead.
LOST = ("PytorchStreamWriter failed writing file", "iostream error", "unexpected pos")


class UserError(Exception):
    """Something the user gave is wrong. Commands print the sentence without a traceback and exit with code 2.

    It is one line that any terminal can show, whatever of the user's files it cites: control characters are escaped,
    and of a very long one the middle is left out.
    """

    def __init__(self, sentence: str) -> None:
        line = " ".join(sentence.splitlines())
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}")


class SaidElsewhere(UserError):  # noqa: N818 - it is the same mistake
    """The same mistake, on a process that keeps silent about it: the first process of the run says it."""


class Stopped(Exception):  # noqa: N818 - nothing is wrong
    """A signal ended the run, and it can go on. Commands exit with 128 and the signal's number, as shells say it."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by signal {number}")
        self.code = 128 + number


class Pruned(Stopped):
    """A search ended the run, since others are better, and it can go on. Commands exit with 3."""

    def __init__(self, reason: str) -> None:
        Exception.__init__(self, f"pruned {reason}")
        self.code = PRUNED


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or an empty string when none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def fullness(error: BaseException) -> str | None:
    """What there is no more of, where an error is that of a disk that is full; otherwise None."""
    if isinstance(error, OSError):
        return FULL.get(error.errno or 0)
    return FULL[errno.ENOSPC] if isinstance(error, RuntimeError) and any(text in str(error) for text in LOST) else None


@contextlib.contextmanager
def room(where: Path | str) -> Iterator[None]:
    """What is written inside lies in `where`: raise UserError that says so where the disk is full."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = fullness(error)
        if full is None:
            raise
        place = where if getattr(error, "filename", None) is None else error.filename  # type: ignore[union-attr]
        raise UserError(
            f"{place} cannot be written: {full}. Make room, and the same command goes on; what was whole before is so "
            "still"
        ) from error
