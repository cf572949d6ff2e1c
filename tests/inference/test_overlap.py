"""Threads ahead of whoever takes the results: order, bounds, errors, and an early end."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from queryinst.inference.overlap import batched, overlapped


def test_results_come_in_order_though_the_first_take_longest():
    def work(number: int) -> int:
        time.sleep(0.02 if number % 4 == 0 else 0)
        return number * number

    assert list(overlapped(work, range(40), workers=4, ahead=4)) == [n * n for n in range(40)]
    assert list(overlapped(work, [], workers=1, ahead=1)) == []


def test_things_are_worked_on_at_the_same_time_as_others_are_taken():
    """Two workers and the one who takes meet at a barrier, which none would pass alone."""
    meeting = threading.Barrier(3, timeout=5)
    taken = 0
    for _ in overlapped(lambda _: meeting.wait() if _ else None, [0, 1, 2], workers=2, ahead=4):
        if taken == 0:
            meeting.wait()
        taken += 1
    assert taken == 3


def test_no_more_is_taken_than_asked_for():
    seen: list[int] = []

    def things() -> Iterator[int]:
        for number in range(1000):
            seen.append(number)
            yield number

    results = overlapped(lambda number: number, things(), workers=2, ahead=3)
    assert next(results) == 0
    time.sleep(0.1)
    assert len(seen) <= 6
    results.close()
    before = len(seen)
    time.sleep(0.1)
    assert len(seen) == before


def test_an_early_end_closes_the_things_and_ends_the_threads():
    closed, threads = [], threading.active_count()

    def things() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    results = overlapped(lambda number: number, things(), workers=2, ahead=2)
    next(results)
    results.close()
    assert closed == [True]
    assert threading.active_count() == threads


def test_nobody_asks_the_threads_for_work_after_they_ended(monkeypatch: pytest.MonkeyPatch):
    """The results are left while the next thing is on its way; what comes then is nobody's."""
    taken, on_its_way, refused = threading.Event(), threading.Event(), []
    submit = ThreadPoolExecutor.submit

    def watched(pool: ThreadPoolExecutor, *work: Any) -> Any:
        try:
            return submit(pool, *work)
        except RuntimeError as error:
            refused.append(error)
            raise

    def things() -> Iterator[int]:
        yield 0
        on_its_way.set()
        taken.wait(5)
        time.sleep(0.05)
        yield 1

    monkeypatch.setattr(ThreadPoolExecutor, "submit", watched)
    worked: list[int] = []
    results = overlapped(worked.append, things(), workers=1, ahead=2)
    next(results)
    on_its_way.wait(5)
    taken.set()
    results.close()
    assert worked == [0]
    assert not refused


def test_things_that_cannot_even_begin_are_an_error():
    with pytest.raises(TypeError, match="not iterable"):
        list(overlapped(int, 3, workers=1, ahead=1))  # type: ignore[call-overload]


def test_errors_come_out_where_the_result_would_have():
    def things() -> Iterator[int]:
        yield from (2, 1)
        raise OSError("the source")

    results = overlapped(lambda number: 2 // number, things(), workers=2, ahead=4)
    assert (next(results), next(results)) == (1, 2)
    with pytest.raises(OSError, match="the source"):
        next(results)
    results = overlapped(lambda number: 2 // number, [1, 0, 1], workers=2, ahead=4)
    assert next(results) == 2
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_batches():
    assert list(batched(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batched([], 3)) == []
