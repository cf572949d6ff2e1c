"""`timm:NAME`: any network of timm that gives its maps, vision transformers among them."""

from typing import Any

import timm
import torch
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3
from timm.models import group_parameters
from torch import Tensor, nn

from queryinst.config import BackboneConfig
from queryinst.errors import UserError, nearest
from queryinst.models.library_backbones import LibraryBackbone, last_of_strides, probed, stages_of
from queryinst.models.probe import first_uses
from queryinst.ops.roi import STRIDES
from queryinst.slots import said

STEP = 16  # of a plain vision transformer; patches of 14 pixels fit into no image of 32 n
# How networks are told to take images of any size.
SIZES: tuple[dict[str, bool], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
GROUPS = 4  # of a plain vision transformer's blocks, in place of stages


class TimmBackbone(LibraryBackbone):
    """A network of timm, without its classifier and what comes after the last map."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__(config)
        where = f"backbone.name={config.name}"
        self.body = network(config)
        _, _, strides = probed(where, self.body, lambda x: _maps(self.body, x, None))
        last = last_of_strides(where, strides)
        indices = self.body.prune_intermediate_layers([*last.values()], prune_norm=True, prune_head=True)
        maps, parameters, _ = probed(where, self.body, lambda x: _maps(self.body, x, indices))
        self.layer_of = _layers(self.body, coarse=False)
        self.stage_of = _stages(self.body, [*last], first_uses(maps, parameters), self.layer_of)
        wanted = [number for number, stride in enumerate(last) if stride >= STRIDES[0]]
        self.indices = [indices[number] for number in wanted]
        channels = {[*last][number]: maps[number].shape[1] for number in wanted}
        self.complete(channels, self.body.pretrained_cfg["mean"], self.body.pretrained_cfg["std"])

    def body_maps(self, x: Tensor) -> list[Tensor]:
        return _maps(self.body, x, self.indices)

    def train(self, mode: bool = True) -> "TimmBackbone":
        """As every backbone's; blocks are computed again in training only."""
        super().train(mode)
        if self.checkpointing:
            try:
                self.body.set_grad_checkpointing(mode)
            except (AssertionError, AttributeError) as error:
                raise UserError(
                    f"backbone.checkpointing: {self.config.name} cannot compute its blocks again ({error})"
                ) from None
        return self


class RotaryPositions(RotaryEmbeddingDinoV3):
    """DINOv3's, with sides that may be unknown: timm's makes numbers of them, and a graph for one size."""

    def _create_embed(self, feat_shape: list[int], no_aug: bool = False) -> Tensor:
        moved = self.training and self.aug_active and not no_aug
        if moved or self.normalize_coords != "separate" or self.grid_indexing != "ij":
            return super()._create_embed(feat_shape, no_aug)
        sides = [(torch.arange(side, dtype=torch.float32) + (0.5 + self.grid_offset)) / side for side in feat_shape]
        grid = torch.stack(torch.meshgrid(sides, indexing="ij"), dim=-1)
        return torch.cat(self._get_pos_embed_from_coords(2.0 * grid.flatten(0, 1) - 1.0), dim=-1)


def network(config: BackboneConfig, pretrained: bool = False) -> Any:
    """The whole network, with classifier. Raises UserError where there is none, or it does not take its settings.

    Args:
        config: its name, settings and drop path.
        pretrained: download its weights.
    """
    made = _create(config, {}, pretrained=False)
    patches, further = getattr(made, "patch_embed", None), {}
    side = getattr(patches, "patch_size", None)
    if isinstance(side, tuple) and side[0] & (side[0] - 1) and "patch_size" not in config.args:
        grid = getattr(patches, "grid_size", None)
        # As many patches as before, so that the positions of pretrained weights stay what they were.
        further = {"patch_size": STEP} | ({"img_size": STEP * grid[0]} if grid else {})
    if further or pretrained:
        made = _create(config, further, pretrained)
    if not hasattr(made, "forward_intermediates"):
        raise UserError(f"backbone.name={config.name}: timm cannot take maps out of this network; choose another")
    if type(getattr(made, "rope", None)) is RotaryEmbeddingDinoV3:
        made.rope.__class__ = RotaryPositions
    return made


def _create(config: BackboneConfig, further: dict[str, Any], pretrained: bool) -> Any:
    name, where = config.name.partition(":")[2], f"backbone.name={config.name}"
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise UserError(f"{where}: timm has no network '{base}'{nearest(base, timm.list_models())}")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in tags:
        raise UserError(f"{where}: timm has no weights '{tag}' of {base}{nearest(tag, tags)}; it has {', '.join(tags)}")
    drop = {"drop_path_rate": config.drop_path}
    for given in [{**size, **drop} for size in SIZES] + [{**size} for size in SIZES]:
        try:
            return timm.create_model(name, pretrained=pretrained, **{**given, **further, **config.args})
        except TypeError as error:
            if not any(f"'{word}'" in str(error) for word in given):
                raise UserError(f"{where} cannot be made with {config.args or 'no settings'}: {error}") from error
            if "'drop_path_rate'" in str(error) and config.drop_path:
                raise UserError(f"backbone.drop_path: {config.name} has no blocks to skip; leave it 0") from None
        except Exception as error:  # whatever a network says to its settings, or a download
            if pretrained:
                raise
            raise UserError(f"{where} cannot be made with {config.args or 'no settings'}: {said(error)}") from error
    raise AssertionError("the last way has no settings")


def _maps(body: Any, x: Tensor, indices: list[int] | None) -> list[Tensor]:
    """(B, C, h, w) each; of all stages or blocks, or of some."""
    found: list[Tensor] = body.forward_intermediates(
        x, indices=indices, norm=False, output_fmt="NCHW", intermediates_only=True
    )
    return found


def _layers(body: Any, coarse: bool) -> dict[str, int]:
    """Names of parameters to numbers of layers, as timm counts them; the stem is 0."""
    if not hasattr(body, "group_matcher"):
        return {}
    numbers: dict[str, int] = group_parameters(body, body.group_matcher(coarse=coarse), reverse=True)
    return numbers


def _stages(body: nn.Module, strides: list[int], uses: dict[str, int], layer_of: dict[str, int]) -> dict[str, int]:
    """The stage of each parameter that a map needs."""
    if len(strides) == 1 and layer_of:  # plain: blocks in equal groups
        blocks = max(layer_of[name] for name in uses if name in layer_of)
        return {name: -(-GROUPS * layer_of.get(name, blocks) // max(blocks, 1)) for name in uses}
    found = stages_of(strides, uses)
    if strides[0] >= STRIDES[0]:  # no map before C2 ends the stem, so timm says what it is
        coarse = _layers(body, coarse=True)
        found |= {name: 0 for name in uses if coarse.get(name) == 0}
    return found
