"""A deployed network on a CPU, rebuilt of oneDNN's own layers, with what no image changes computed once.

oneDNN computes most of PyTorch's layers on a CPU anyway. Here it keeps the weights of linear layers in its own order,
and adds what follows a convolution, the shortcut and the ReLU, while the result is in the cache. The operators are
those that `torch.compile` calls; compiling would also need a C++ compiler on the user's machine, and minutes.
"""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from queryinst.models.box_head import BoxHead
from queryinst.models.deploy import known
from queryinst.models.mask_head import ConvNorm, MaskHead
from queryinst.models.proposals import Proposals
from queryinst.models.queryinst import QueryInst


def pack(model: QueryInst) -> QueryInst:
    """Rebuild a network that `deploy` made, in place where this machine can: it must stay on the CPU from then on.

    Its answers are the same to rounding. It is left as it is on another device, and where oneDNN is missing or the
    processor has no instructions for bfloat16.
    """
    if model.mean.device.type != "cpu" or not _supported(model.queries.dtype):
        return model
    with torch.no_grad():
        if type(model.stages[0].box) is BoxHead and isinstance(model.queries, Proposals):
            _remember(model.stages[0].box, model.queries.features[None])
        for part in known(model):
            _pack(part, linear=isinstance(part, BoxHead | MaskHead))  # torchvision's Swin reads its layers' weights
        for stage in model.stages:
            if stage.association:
                _pack(stage.association, linear=True)
    return model


def _supported(kind: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    return kind == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _pack(module: nn.Module, linear: bool) -> None:
    for name, child in module.named_children():
        if isinstance(child, BasicBlock | Bottleneck):
            setattr(module, name, FusedBlock(child))
        elif isinstance(child, ConvNorm):
            setattr(module, name, FusedConv(child.conv, "relu"))
        elif isinstance(child, nn.Conv2d) and name != "logits":  # the mask head takes rows of the weight of its classes
            setattr(module, name, FusedConv(child))
        elif linear and type(child) is nn.Linear:  # attention's own kind of it is no module to be called
            setattr(module, name, PackedLinear(child))
        else:
            _pack(child, linear)


def _remember(box: BoxHead, queries: Tensor) -> None:
    """The first stage's queries are the learned ones, so its attention and its matrices are the same for all images."""
    attended, _ = box.attn(queries, queries, queries, need_weights=False)
    matrices = box.dyn.params(box.attn_norm(queries + attended)[0])
    box.attn, box.dyn.params = _Attended(attended), _Matrices(matrices)  # type: ignore[assignment]


class _Attended(nn.Module):
    """In place of a self-attention whose result is known."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value  # (1, N, d)

    def forward(self, *queries: Tensor, need_weights: bool) -> tuple[Tensor, None]:
        return self.value, None


class _Matrices(nn.Module):
    """In place of a generator of matrices whose result is known."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value  # (N, 2 * d * hidden)

    def forward(self, queries: Tensor) -> Tensor:
        """Queries (B * N, d) to (B * N, 2 * d * hidden)."""
        batch = len(queries) // len(self.value)
        return self.value if batch == 1 else self.value.repeat(batch, 1)


class FusedConv(nn.Module):
    """A convolution, and what follows it."""

    def __init__(self, conv: nn.Conv2d, activation: str = "none") -> None:
        super().__init__()
        # Channels last is the order that oneDNN takes fastest here; one of its own has to know the size of the image.
        self.weight, self.bias = conv.weight, conv.bias
        self._shape = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups
        self._activation = activation

    def forward(self, x: Tensor) -> Tensor:
        how: tuple[object, ...] = (*self._shape, self._activation, [], "")
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self.weight, self.bias, *how)
        return result

    def add(self, x: Tensor, shortcut: Tensor) -> Tensor:
        """The convolution of x and the shortcut, which is overwritten with it, and the activation."""
        how: tuple[object, ...] = (*self._shape, "add", 1.0, self._activation, [], "")
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(shortcut, x, self.weight, self.bias, *how)
        return result


class FusedBlock(nn.Module):
    """A residual block of torchvision's ResNet.

    One without a convolution in its shortcut overwrites its input: such a block follows another of its stage, so that
    nobody else reads it.
    """

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        convs = [module for module in block.children() if isinstance(module, nn.Conv2d)]
        *front, last = (FusedConv(conv, "relu") for conv in convs)
        self.front, self.last = nn.Sequential(*front), last
        self.shortcut = nn.Identity() if block.downsample is None else FusedConv(block.downsample[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.last.add(self.front(x), self.shortcut(x))


class PackedLinear(nn.Module):
    """A linear layer whose weight is in oneDNN's order."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight, self._bias = torch.ops.mkldnn._reorder_linear_weight(linear.weight), linear.bias

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return result
