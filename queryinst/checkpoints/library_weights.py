"""Pretrained weights of timm and torchvision into a backbone of theirs: downloaded by them, or from a file."""

import re
import sys
from pathlib import Path
from typing import Any

from queryinst.checkpoints.convert import BESIDE, State, as_number, complete, named_tensors
from queryinst.checkpoints.read import read, read_safetensors
from queryinst.errors import UserError
from queryinst.library_names import DOWNLOADS, library_of
from queryinst.models.library_backbones import LibraryBackbone
from queryinst.slots import said

# What comes after the last map, by the names of both libraries, and what only pretraining needs.
AFTER = re.compile(r"(head|heads|head_dist|fc|fc_norm|norm|classifier|last_linear|pre_logits|mask_token|aux\w*)\b|AuxL")


def start_library(backbone: LibraryBackbone, weights: str) -> str:
    """Load pretrained weights, all of them but what comes after the last map; positions are resampled by timm.

    Args:
        backbone: left as it is where something is wrong.
        weights: the library's word for its own, which it downloads, or a file: `.safetensors`, `.pth`, `.bin`.

    Returns:
        what was loaded, in one sentence.

    Raises:
        UserError: they cannot be had, or are not those of this network.
    """
    where, own = f"backbone.weights={weights}", DOWNLOADS[library_of(backbone.config.name)]
    if weights in DOWNLOADS.values():
        if weights != own:
            raise UserError(f"{where}: the weights of {backbone.config.name} are called '{own}', or give a file")
        state = _downloaded(backbone)
    else:
        state = _converted(_from_file(Path(weights), where), backbone, where)
    ours = backbone.body.state_dict()
    rest = {*_whole(backbone).state_dict()} - {*ours}
    kept = {name: value for name, value in state.items() if name in ours or not (name in rest or AFTER.match(name))}
    kept = {name: value for name, value in kept.items() if not BESIDE.search(name)}
    state = complete({name: as_number(value, name, where) for name, value in kept.items()}, backbone.body, where)
    backbone.body.load_state_dict(state)
    return f"backbone: {len(kept)} tensors from {weights} ({backbone.config.name})"


def _whole(backbone: LibraryBackbone, pretrained: bool = False) -> Any:
    """The network as its library makes it, with its classifier."""
    if library_of(backbone.config.name) == "timm":
        from queryinst.models import timm_backbone

        return timm_backbone.network(backbone.config, pretrained)
    from queryinst.models import torchvision_backbone

    return torchvision_backbone.network(backbone.config, pretrained)


def _downloaded(backbone: LibraryBackbone) -> State:
    name = backbone.config.name
    try:
        state: State = _whole(backbone, pretrained=True).state_dict()
    except UserError:
        raise
    except Exception as error:  # a dozen kinds, of two libraries and what they download with
        source = getattr(backbone.body, "pretrained_cfg", {}).get("hf_hub_id") or name
        raise UserError(
            f"the weights of {name} cannot be had ({said(error).splitlines()[0][:200]}): fetch those of {source} "
            "elsewhere and set backbone.weights=FILE, or choose other settings where they do not fit"
        ) from None
    return state


def _from_file(path: Path, where: str) -> State:
    tensors = read_safetensors(path)[0] if path.suffix == ".safetensors" else named_tensors(read(path))
    if not tensors:
        raise UserError(f"{where} holds no named tensors")
    return tensors


def _converted(tensors: State, backbone: LibraryBackbone, where: str) -> State:
    """Under the library's present names and in the shapes of this network, as timm changes its own files."""
    change = getattr(sys.modules[type(backbone.body).__module__], "checkpoint_filter_fn", None)
    if change is None:
        return tensors
    whole = _whole(backbone)
    try:
        changed: State = change(tensors, whole)
    except Exception as error:  # whatever a file has that is not for this network
        raise UserError(f"{where} is not for {backbone.config.name}: timm cannot use it ({said(error)})") from error
    return changed
