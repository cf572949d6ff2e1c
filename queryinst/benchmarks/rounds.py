"""Two ways of doing the same, timed in turn, so that what else the machine does hits both."""

import statistics
import time
from collections.abc import Callable


def alternate(rounds: int, *ways: Callable[[], object]) -> list[float]:
    """Median seconds of each of some functions, called in turn `rounds` times after one call that is not counted."""
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(rounds + 1):
        for way, spent in zip(ways, seconds, strict=True):
            begin = time.perf_counter()
            way()
            if number:
                spent.append(time.perf_counter() - begin)
    return [statistics.median(spent) for spent in seconds]
