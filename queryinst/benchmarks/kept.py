"""Memory that a training step holds until its backward pass, by the part of the forward pass that saved it."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Kept:
    """Bytes that autograd keeps for the backward pass: `Kept.measure` gives them by part.

    A storage that several operations keep, or several views of it, counts once, for the first part that kept it.
    Parameters and buffers do not count: they are there anyway.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parts: dict[str, int] = {}
        self._known = {_address(tensor) for tensor in (*model.parameters(), *model.buffers())}
        self._storages: list[torch.UntypedStorage] = []  # no other comes to their addresses meanwhile
        self._new = 0

    def measure(self, forward: Callable[[Callable[[str], None]], Tensor]) -> dict[str, int]:
        """Bytes by the names that `forward` tells, each as its part ends.

        Args:
            forward: calls what it is given with the name of each part that has ended.
        """
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor):
            forward(self._end)
        return self.parts

    def _keep(self, tensor: Tensor) -> Tensor:
        if _address(tensor) not in self._known:
            self._known.add(_address(tensor))
            self._storages.append(tensor.untyped_storage())
            self._new += tensor.untyped_storage().nbytes()
        return tensor

    def _end(self, part: str) -> None:
        self.parts[part], self._new = self._new, 0


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
