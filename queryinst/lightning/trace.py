"""What a training step leaves behind, so that its broken numbers are found without waiting for the device."""

import math

import numpy as np
import torch
from torch import Tensor

from queryinst.criterion.criterion import Criterion
from queryinst.criterion.matcher import NonFiniteError
from queryinst.ops import ranks
from queryinst.structures import Batch, StageOutput


class Trace:
    """A step's losses and the norms of its gradients on their way to the host, and what may have broken them.

    The copies are begun and nobody waits: they have arrived once the host has waited for anything that was asked of the
    device later. Then `is_good` says whether all was finite, the same on every process, and the rest says what was not.

    Args:
        step: its number.
        batch: what was trained on.
        stages, masks: what the losses were made of.
        images: (M,) for the masks of each stage, the image of each.
        losses: (S + others, columns), a row a stage and one for whatever else is learned from.
        others: what those are.
    """

    def __init__(
        self,
        step: int,
        batch: Batch,
        stages: list[StageOutput],
        masks: list[Tensor],
        images: list[Tensor],
        losses: Tensor,
        others: list[str],
    ) -> None:
        self.step, self.batch, self.images, self.others = step, batch, images, others
        self.losses = losses.detach()
        self.masks = [logits.detach() for logits in masks]  # without the graph, which would stay until the next step
        none = losses.new_empty(0)
        self.stages = [StageOutput(stage.logits.detach(), stage.boxes.detach(), none, none) for stage in stages]
        mean = ranks.mean(self.losses)
        self.finite = mean.isfinite().all()  # on the device
        self._losses, self._norms = mean.to("cpu", non_blocking=True), torch.zeros(0)
        self._names: list[str] = []

    def gradients(self, gradients: dict[str, Tensor], judge: bool) -> Tensor:
        """The L2 norm of all gradients, each by the name of its parameter, as torch.nn.utils.get_total_norm has it.

        With `judge`, a gradient that is NaN or infinite is a fault.
        """
        norms = torch.stack(torch._foreach_norm(list(gradients.values())))
        total = torch.linalg.vector_norm(norms)
        if judge:
            self.finite = self.finite & total.isfinite()
            self._names, self._norms = list(gradients), torch.cat([norms, total[None]]).to("cpu", non_blocking=True)
        return total

    def is_good(self) -> bool:
        """Whether every loss and gradient was finite."""
        return all(bool(np.isfinite(arrived.numpy()).all()) for arrived in (self._losses, self._norms[-1:]))

    def broken_output(self, criterion: Criterion) -> NonFiniteError | None:
        """What this process computed that is not finite, if it is the one that did."""
        own = len(self.stages)
        try:
            criterion.require_finite(self.losses[:own], self.stages, self.masks, self.images, self.batch.targets)
        except NonFiniteError as error:
            return error
        for name, row in zip(self.others, self.losses[own:].cpu(), strict=True):
            if not row.isfinite().all():
                return NonFiniteError(f"a loss of {name} is NaN or infinite")
        return None

    def broken_gradient(self) -> NonFiniteError:
        """Which gradient is not finite; all processes have the same ones."""
        broken = [
            name for name, norm in zip(self._names, self._norms.tolist(), strict=False) if not math.isfinite(norm)
        ]
        if not broken:
            return NonFiniteError("gradients overflow")
        return NonFiniteError(f"{len(broken)} gradients are NaN or infinite, first that of {broken[0]},")
