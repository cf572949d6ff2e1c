"""What a network does, learned from running it on the meta device: shapes and dependencies, and no arithmetic."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

SIZE = (352, 416)  # height, width of the image: multiples of 32 and of no other size that networks are made for


def probe(module: nn.Module, run: Callable[[Tensor], list[Tensor]]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Run a network in evaluation mode on an image of `SIZE` that is not there.

    Args:
        module: whose weights and buffers are replaced meanwhile by ones that hold nothing.
        run: from an image to maps; calls `module` or what is in it.

    Returns:
        the maps, which have shapes only, and the parameters that they were made of, which ask for gradients.
    """
    parameters = {name: torch.empty_like(p, device="meta", requires_grad=True) for name, p in module.named_parameters()}
    buffers = {name: torch.empty_like(value, device="meta") for name, value in module.named_buffers()}
    holder = _Holder(module, run)
    state = {f"module.{name}": value for name, value in (parameters | buffers).items()}
    mode = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.enable_grad():
            return functional_call(holder, state, (torch.zeros(1, 3, *SIZE, device="meta"),)), parameters
    finally:
        for part, training in mode:
            part.training = training


class _Holder(nn.Module):
    """A module and what is to be run, since `functional_call` calls a module."""

    def __init__(self, module: nn.Module, run: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.module, self.run = module, run

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.run(image)


def stride_of(features: Tensor) -> int | None:
    """Of a map of the probe's image (1, C, h, w); None where it is no power of two, or not the same both ways."""
    height, width = features.shape[-2:]
    stride = SIZE[0] // height
    fits = (height * stride, width * stride) == SIZE and stride & (stride - 1) == 0
    return stride if fits else None


def first_uses(maps: list[Tensor], parameters: dict[str, Tensor]) -> dict[str, int]:
    """For each parameter the first of the maps that it has a part in; those that no map needs are left out."""
    found: dict[str, int] = {}
    for index, features in enumerate(maps):
        waiting = {name: p for name, p in parameters.items() if name not in found}
        if waiting and features.requires_grad:
            gradients = torch.autograd.grad(features.sum(), [*waiting.values()], retain_graph=True, allow_unused=True)
            found |= {name: index for name, gradient in zip(waiting, gradients, strict=True) if gradient is not None}
    return found
