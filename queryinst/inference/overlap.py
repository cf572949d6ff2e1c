"""Work on a stream of things in threads, ahead of whoever takes the results, in order."""

import contextlib
import itertools
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Thing = TypeVar("Thing")
Made = TypeVar("Made")


def overlapped(
    work: Callable[[Thing], Made], things: Iterable[Thing], workers: int, ahead: int
) -> Generator[Made, None, None]:
    """`map(work, things)`, where `workers` threads do the work and another goes through the things.

    At most `ahead` results wait to be taken. An exception, of the work or of the things, comes out where its result
    would have. Whoever stops early closes this generator, which ends the threads and closes the things (see `going`).
    """
    made: queue.Queue[Future[Made] | None] = queue.Queue(ahead)
    left = threading.Event()
    pool = ThreadPoolExecutor(workers)

    def put(future: Future[Made] | None) -> None:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                made.put(future, timeout=0.05)
                return

    def feed() -> None:
        try:
            with going(things) as source:
                for thing in source:
                    if left.is_set():
                        return
                    put(pool.submit(work, thing))
        except Exception as error:
            failed: Future[Made] = Future()
            failed.set_exception(error)
            put(failed)
        finally:
            put(None)

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        while (future := made.get()) is not None:
            yield future.result()
    finally:
        left.set()
        feeder.join()  # before the pool ends, which takes no more work then
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def going(things: Iterable[Thing]) -> Iterator[Iterator[Thing]]:
    """An iterator over things that is closed at the end, where it can be: a generator, which may hold a camera."""
    source = iter(things)
    try:
        yield source
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


def batched(things: Iterable[Thing], size: int) -> Iterator[list[Thing]]:
    """Lists of `size` things; the last may be shorter."""
    source = iter(things)
    while batch := list(itertools.islice(source, size)):
        yield batch
