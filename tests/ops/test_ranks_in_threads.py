"""What ranks tell each other, with threads as ranks; real processes do the same in `tests/test_ranks.py`."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from queryinst.errors import SaidElsewhere, UserError
from queryinst.ops import ranks

CPU = torch.device("cpu")


class Threads:
    """In place of `torch.distributed`: each thread is a rank, and what they send meets in one list."""

    def __init__(self, world: int) -> None:
        self.sent: list[Any] = [None] * world
        self.meeting = threading.Barrier(world, timeout=20)
        self.own = threading.local()

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def get_world_size(self) -> int:
        return len(self.sent)

    def get_rank(self) -> int:
        return self.own.rank

    def all_reduce(self, values: Tensor) -> None:
        total = sum(self._exchange(values.clone()))
        with torch.no_grad():
            values.copy_(total)

    def all_gather_object(self, parts: list[Any], entry: Any) -> None:
        assert len(parts) == len(self.sent)
        parts[:] = self._exchange(entry)

    def _exchange(self, value: Any) -> list[Any]:
        self.sent[self.own.rank] = value
        self.meeting.wait()
        everything = list(self.sent)
        self.meeting.wait()
        return everything


@pytest.fixture
def on_ranks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[int], Any]], list[Any]]:
    """Call a task with its rank on so many ranks; what each returned."""

    def call(world: int, task: Callable[[int], Any]) -> list[Any]:
        group = Threads(world)
        monkeypatch.setattr(ranks, "dist", group)

        def one(rank: int) -> Any:
            group.own.rank = rank
            try:
                return task(rank)
            except BaseException:
                group.meeting.abort()  # the others wait for this one no longer
                raise

        with ThreadPoolExecutor(world) as pool:
            return list(pool.map(one, range(world)))

    return call


def test_a_process_without_a_group_is_alone(monkeypatch: pytest.MonkeyPatch):
    values, entries = torch.tensor([1.0, 2], requires_grad=True), {1: "a"}
    for without in (ranks.dist, SimpleNamespace(is_available=lambda: False)):  # the latter of a torch built without
        monkeypatch.setattr(ranks, "dist", without)
        assert (ranks.count(), ranks.several()) == (1, False)
        assert ranks.mean(values) is values
        assert ranks.of_all_ranks(entries) is entries


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_rank_counts_all(on_ranks: Callable[..., list[Any]], world: int):
    assert on_ranks(world, lambda rank: (ranks.count(), ranks.several())) == [(world, world > 1)] * world


def test_the_mean_is_over_all_ranks_and_leaves_what_it_was_given(on_ranks: Callable[..., list[Any]]):
    given = [torch.tensor([rank, 10.0 * rank**2], requires_grad=True) for rank in range(3)]
    means = on_ranks(3, lambda rank: ranks.mean(given[rank]))
    for rank, mean in enumerate(means):
        torch.testing.assert_close(mean, torch.tensor([1, 50 / 3]))
        assert not mean.requires_grad
        assert given[rank].tolist() == [rank, 10 * rank**2]


def test_entries_of_all_ranks_are_on_each_and_a_key_counts_once(on_ranks: Callable[..., list[Any]]):
    entries = [{4: "d", 0: "x"}, {}, {2: "b", 0: "x"}]
    found = on_ranks(3, lambda rank: ranks.of_all_ranks(entries[rank]))
    assert found == [{4: "d", 0: "x", 2: "b"}] * 3


def heard(mistake: Exception | None) -> tuple[type[Exception], str, Exception | None] | None:
    """Type and sentence of what a rank hears that made this mistake, and its cause."""
    try:
        # Without the device that it is given, the answer would be on one that holds no numbers.
        with torch.device("meta"), ranks.together(CPU):
            if mistake:
                raise mistake
    except UserError as error:
        return type(error), str(error), error.__cause__
    return None


def test_together_alone_passes_mistakes_on_as_they_are():
    mistake = UserError("no such file")
    with pytest.raises(UserError) as raised, ranks.together(CPU):
        raise mistake
    assert raised.value is mistake
    assert heard(None) is None


def test_no_mistake_on_any_rank_goes_on_on_all(on_ranks: Callable[..., list[Any]]):
    assert on_ranks(3, lambda rank: heard(None)) == [None] * 3


@pytest.mark.parametrize("guilty", [[0], [1], [2], [1, 2], [0, 1, 2]])
def test_rank_0_says_the_mistake_of_the_first_rank_that_made_one(on_ranks: Callable[..., list[Any]], guilty: list[int]):
    mistakes = [UserError(f"image {rank} is broken") if rank in guilty else None for rank in range(3)]
    sentence = f"image {guilty[0]} is broken (on device {guilty[0]})"
    assert on_ranks(3, lambda rank: heard(mistakes[rank])) == [
        (UserError if rank == 0 else SaidElsewhere, sentence, mistakes[rank]) for rank in range(3)
    ]


def test_an_error_that_is_no_users_mistake_passes_at_once(on_ranks: Callable[..., list[Any]]):
    with pytest.raises(ZeroDivisionError):
        on_ranks(2, lambda rank: heard(ZeroDivisionError()))
