"""What the processes of one run ("ranks", one a device) tell each other; alone, a process hears only itself."""

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from queryinst.errors import SaidElsewhere, UserError

T = TypeVar("T")


def grouped() -> bool:
    """Whether there is a group of processes, be it of one alone, as under DDP on one device."""
    return dist.is_available() and dist.is_initialized()


def count() -> int:
    """How many processes train or evaluate together."""
    return dist.get_world_size() if grouped() else 1


def several() -> bool:
    """Whether this process has others beside it."""
    return count() > 1


def mean(values: Tensor) -> Tensor:
    """The mean over all processes, which must all ask; not differentiable."""
    if not several():
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values / count()


def of_all_ranks(by_key: dict[Any, T]) -> dict[Any, T]:
    """The entries of all processes together, on each of them; a key counts once."""
    if not several():
        return by_key
    parts: list[Any] = [None] * count()
    dist.all_gather_object(parts, by_key)
    return {key: entry for part in parts for key, entry in part.items()}


@contextlib.contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Ends with UserError on every process where it does on one: another would wait for ever for the one that left.

    All processes must come by, and must not talk to each other inside.
    """
    fault: UserError | None = None
    try:
        yield
    except UserError as error:
        fault = error
    if not several():
        if fault:
            raise fault
        return
    met = torch.tensor(float(fault is not None), device=device)
    dist.all_reduce(met)
    if met:
        faults = of_all_ranks({dist.get_rank(): str(fault)} if fault else {})
        rank = min(faults)
        kind = UserError if dist.get_rank() == 0 else SaidElsewhere
        raise kind(f"{faults[rank]} (on device {rank})") from fault
