"""`torchvision:NAME`: any classifier of torchvision that is a sequence of layers."""

from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from queryinst.config import BackboneConfig
from queryinst.errors import UserError, nearest
from queryinst.models.library_backbones import MEAN, STD, LibraryBackbone, last_of_strides, probed
from queryinst.ops.roi import STRIDES
from queryinst.slots import said

ENDS = {"avgpool", "classifier", "fc", "head", "norm", "permute", "flatten", "dropout", "AuxLogits", "aux1", "aux2"}
HALVES = {"googlenet": (0.5,) * 3, "inception_v3": (0.5,) * 3}  # mean and deviation, where they are not ImageNet's
# Said to those that would warn of what they do, or learn from a second classifier.
QUIET = {name: {"init_weights": True, "aux_logits": False} for name in HALVES}


class TorchvisionBackbone(LibraryBackbone):
    """A network of torchvision, cut where its features end: before pooling and classifier."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        where, name = f"backbone.name={config.name}", config.name.partition(":")[2]
        self.body = network(config)
        for child in ENDS & dict(self.body.named_children()).keys():
            delattr(self.body, child)
        self.taps: list[int] = []
        count = len(self.units())
        maps, _, strides = probed(where, self.body, lambda x: self._run(x, list(range(count))))
        last = {stride: index for stride, index in last_of_strides(where, strides).items() if stride >= STRIDES[0]}
        self.taps = [*last.values()]
        self._number(strides)
        mean, std = (HALVES.get(name, usual) for usual in (MEAN, STD))
        self.complete({stride: maps[index].shape[1] for stride, index in last.items()}, mean, std)

    def units(self) -> list[nn.Module]:
        """What the image passes, in this order."""
        found: list[nn.Module] = []
        for child in self.body.children():
            found += child if type(child) in (nn.Sequential, nn.ModuleList) else [child]
        return found

    def body_maps(self, x: Tensor) -> list[Tensor]:
        return self._run(x, self.taps)

    def _run(self, x: Tensor, taps: list[int]) -> list[Tensor]:
        units, found, begin = self.units(), [], 0
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        for tap in taps:
            part = nn.Sequential(*units[begin : tap + 1])
            x, begin = checkpoint(part, x, use_reentrant=False) if again else part(x), tap + 1
            found.append(x.permute(0, 3, 1, 2) if "swin" in self.config.name else x)  # where channels come last
        return found

    def _number(self, strides: list[int | None]) -> None:
        """Stage and layer of each parameter that is used."""
        names = {id(parameter): name for name, parameter in self.body.named_parameters()}
        units = self.units()[: self.taps[-1] + 1]
        own = [[names[id(parameter)] for parameter in unit.parameters()] for unit in units]
        early = any(stride and stride < STRIDES[0] for stride in strides)  # else the first unit is the stem
        stages = [sum((stride or 1) >= wanted for wanted in STRIDES) for stride in strides[: len(units)]]
        first = next(index for index, found in enumerate(own) if found)
        for unit, (found, stage) in enumerate(zip(own, stages, strict=False)):
            self.stage_of |= dict.fromkeys(found, 0 if unit == first and not early else stage)
        for layer, found in enumerate(filter(None, own)):
            self.layer_of |= dict.fromkeys(found, layer)


def network(config: BackboneConfig, pretrained: bool = False) -> Any:
    """The whole network, with classifier. Raises UserError where there is none, or it does not take its settings."""
    name, where = config.name.partition(":")[2], f"backbone.name={config.name}"
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(f"{where}: torchvision has no classifier '{name}'{nearest(name, known)}")
    weights = {"weights": "IMAGENET1K_V1" if pretrained else None, **QUIET.get(name, {})}
    for drop in ({"stochastic_depth_prob": config.drop_path}, {}):  # torchvision's own default is not 0
        try:
            return torchvision.models.get_model(name, **{**weights, **drop, **config.args})
        except Exception as error:  # whatever a network says to its settings, or a download
            if pretrained and not isinstance(error, TypeError):
                raise
            if "'stochastic_depth_prob'" not in str(error):
                raise UserError(f"{where} cannot be made with {config.args or 'no settings'}: {said(error)}") from error
            if config.drop_path:
                raise UserError(f"backbone.drop_path: {config.name} has no blocks to skip; leave it 0") from None
    raise AssertionError("the last way has no settings")
