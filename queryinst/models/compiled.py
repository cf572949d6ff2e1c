"""`torch.compile` for the parts of the network that are layers and nothing else."""

import torch

from queryinst.errors import UserError
from queryinst.models.mask_head import MaskHead
from queryinst.models.queryinst import QueryInst


def compile_parts(model: QueryInst, backend: str = "inductor") -> None:
    """Compile backbone, FPN, box heads and dynamic convolutions in place; names and weights stay as they are.

    A part is compiled when it is first called, once for all sizes and once for all stages. Between them, RoIAlign,
    matching and losses are as before: they are few kernels, or indices that change every time. So are the convolutions
    of the mask heads: of a batch without objects they have no rows, and there compiled code expects gradients in an
    order (of strides) that PyTorch does not give.
    """
    convolutions = [stage.mask.dyn for stage in model.stages if isinstance(stage.mask, MaskHead)]
    for part in (model.backbone, model.neck, *(stage.box for stage in model.stages), *convolutions):
        part.compile(dynamic=True, backend=backend)


def require_compiler(device: torch.device) -> None:
    """Compile one addition, and so see before training whether anything can be compiled for this device.

    Raises:
        UserError: it cannot, usually because a C++ compiler is missing (on a CPU), or Triton (on a GPU).
    """
    try:
        torch.compile(torch.add)(torch.ones(8, device=device), 1)
    except Exception as error:  # torch's many ways to say it
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"trainer.compile=true cannot compile for {device.type}: {reason.strip()[:300]}; torch.compile needs a C++ "
            "compiler such as g++ on a CPU and Triton on a GPU: install it, or leave trainer.compile out"
        ) from error
