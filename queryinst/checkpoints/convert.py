"""From published weights to ours: recognise the file, translate every name, prove that nothing is left over or missing.

The names themselves are the tables of `keymap.py`.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from queryinst.checkpoints import keymap
from queryinst.checkpoints.keymap import Names
from queryinst.config import BackboneConfig, ModelConfig, PostprocessConfig
from queryinst.errors import UserError
from queryinst.models.backbone import SWINS, build_backbone
from queryinst.settings import check_ranges

State = dict[str, Tensor]


@dataclass(frozen=True)
class Origin:
    """One kind of file."""

    label: str
    sign: str  # a name that every such file has, and no kind listed further down
    names: Names
    classifier: str = r"(?!)"  # names of a backbone's that belong to its ImageNet classifier; nothing by default
    whole: bool = False  # a whole QueryInst, not a backbone alone


ORIGINS = (
    Origin("PaddleDetection", "roi_head.bbox_heads.0.fc_cls.weight", keymap.PADDLE, whole=True),
    Origin("hustvl/QueryInst", "roi_head.mask_head.0.convs.0.conv.bias", keymap.MMDET, whole=True),
    Origin("MMDetection", "roi_head.bbox_head.0.fc_cls.weight", keymap.MMDET, whole=True),
    Origin("a backbone of PaddleDetection", "res2.res2a.branch2a.conv.weight", keymap.PADDLE_BACKBONE, r"fc\."),
    Origin("a Swin in Microsoft's names", "patch_embed.proj.weight", keymap.MICROSOFT_BACKBONE, r"(head|norm)\."),
    Origin("a ResNet of torchvision", "layer1.0.conv1.weight", keymap.TORCHVISION_BACKBONE, r"fc\."),
    Origin("a Swin of torchvision", "features.0.0.weight", keymap.TORCHVISION_BACKBONE, r"(head|norm)\."),
)
# What files hold besides weights, and what follows from the architecture.
# `ema_...` are MMDetection's second copy, the averaged weights.
BESIDE = re.compile(r"^StructuredToParameterName@@$|num_batches_tracked$|relative_position_index$|attn_mask$|^ema_")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DERIVED = ("num_batches_tracked", "relative_position_index")  # of our names: every model makes its own
PADDLE_POSTPROCESS = PostprocessConfig(max_detections=100, clip_boxes=True, min_side=1.0)


@dataclass(frozen=True)
class Translated:
    """A file's tensors under our names."""

    origin: Origin
    weights: State
    ignored: list[str]  # names of the file that are no weights, or a classifier's


def translate(content: Any, where: str) -> Translated:
    """Recognise what a weight file holds, and give every tensor our name.

    Args:
        content: of the file, as `read` gives it.
        where: the file, for messages.

    Raises:
        UserError: the file is of no kind known, or has tensors that no table names.
    """
    tensors = named_tensors(content)
    origin = next((kind for kind in ORIGINS if kind.sign in tensors), None)
    if origin is None:
        raise UserError(
            f"{where} holds no weights that queryinst knows (it has {len(tensors)} tensors"
            + (f", first {next(iter(tensors))}" if tensors else "")
            + f"); known are our own checkpoints and those of {', '.join(kind.label for kind in ORIGINS)}"
        )
    weights, ignored, left_over = {}, [], []
    for name, value in tensors.items():
        if BESIDE.search(name) or re.match(origin.classifier, name):
            ignored.append(name)
            continue
        found = origin.names.translate(name)
        if found is None:
            left_over.append(name)
        elif found[0] in weights:
            raise UserError(f"{where} has {name} and another tensor that are both {found[0]} of QueryInst")
        else:
            value = as_number(value, name, where)
            weights[found[0]] = value.T.contiguous() if found[1] else value
    if left_over:
        raise UserError(
            f"{where} looks like {origin.label}, but {len(left_over)} of its {len(tensors)} tensors have no place in "
            f"QueryInst: {some(left_over)}"
        )
    return Translated(origin, _without_dead_biases(weights), ignored)


def as_number(value: Tensor, name: str, where: str) -> Tensor:
    """A weight as float32. Raises UserError, by name, where it is none."""
    if value.dtype == torch.uint16:  # numpy has no bfloat16: PaddlePaddle writes its bits
        value = value.view(torch.bfloat16)
    dense = value.layout == torch.strided and value.device.type == "cpu" and value.dtype in FLOATS
    if not dense or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise UserError(
            f"{where}: {name} is {value.dtype} of shape {list(value.shape)}, not an array of numbers of its own"
        )
    if not value.isfinite().all():
        raise UserError(f"{where}: {name} has NaN or infinite values; the training that wrote it had failed")
    return value.float()


def named_tensors(content: Any) -> State:
    """The named tensors of a file, whatever they are wrapped in."""
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found: State = {}
    for name, value in content.items() if isinstance(content, Mapping) else ():
        if isinstance(value, tuple) and len(value) == 2:  # Paddle writes (name, array) at times
            value = value[1]
        if isinstance(value, np.ndarray | np.generic) and np.asarray(value).dtype.kind in "fiub":
            value = torch.from_numpy(np.array(value))
        if isinstance(value, Tensor) and isinstance(name, str):
            found[name] = value
    for prefix in ("module.", "module.", "model.", "backbone."):
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _without_dead_biases(weights: State) -> State:
    """hustvl/QueryInst has a bias before every mask BatchNorm: the same function with the running mean moved by it.

    In training such a bias does nothing at all, BatchNorm takes it out again.
    """
    kept = dict(weights)
    for name in weights:
        if re.search(r"\.mask\.convs\.\d+\.conv\.bias$", name):
            mean = name.replace("conv.bias", "bn.running_mean")
            if mean in kept:
                kept[mean] = kept[mean] - kept.pop(name)
    return kept


def backbone_of(weights: Mapping[str, Tensor]) -> BackboneConfig:
    """The backbone whose parameters these are (our names, without prefix). Raises UserError."""
    if "body.features.0.0.weight" in weights:
        width = weights["body.features.0.0.weight"].shape[0]
        depths = [_count(weights, rf"body\.features\.{2 * stage + 1}\.(\d+)\.") for stage in range(4)]
        known: dict[str, Any] = {name: (width, depths) for name, (width, depths, _) in SWINS.items()}
        found: Any = (width, depths)
    else:
        known = {
            "resnet18": ([2, 2, 2, 2], False),
            "resnet34": ([3, 4, 6, 3], False),
            "resnet50": ([3, 4, 6, 3], True),
            "resnet101": ([3, 4, 23, 3], True),
        }
        depths = [_count(weights, rf"body\.layer{layer}\.(\d+)\.") for layer in range(1, 5)]
        found = (depths, "body.layer1.0.conv3.weight" in weights)
    name = next((name for name, shape in known.items() if shape == found), None)
    if name is None:
        raise UserError(
            f"the file's backbone has stages of {depths} blocks, which is none of {', '.join(known)} of queryinst"
        )
    return BackboneConfig(name=name)


def model_of(weights: State) -> tuple[ModelConfig, int]:
    """The architecture and the number of classes that follow from the shapes. Raises UserError."""
    try:
        number, width = map(int, weights["queries.features"].shape)
        dynamic = weights["stages.0.box.dyn.params.weight"].shape[0] // (2 * width)
        cells = weights["stages.0.box.dyn.proj.weight"].shape[1] // width
        config = ModelConfig(
            num_proposals=number,
            num_stages=_count(weights, r"stages\.(\d+)\.box\."),
            width=width,
            dynamic_width=dynamic,
            ffn_width=weights["stages.0.box.ffn.fc1.weight"].shape[0],
            classification_layers=_count(weights, r"stages\.0\.box\.cls_tower\.(\d+)\."),
            regression_layers=_count(weights, r"stages\.0\.box\.reg_tower\.(\d+)\."),
            mask_convs=_count(weights, r"stages\.0\.mask\.convs\.(\d+)\."),
            box_resolution=round(cells**0.5),
        )
        check_ranges(config)
        if width % config.num_heads:
            raise ValueError(f"{config.num_heads} heads do not divide width {width}")
        return config, weights["stages.0.box.cls.weight"].shape[0]
    except KeyError as error:
        raise UserError(f"the file's weights are not complete: {error.args[0]} (our name) is missing") from None
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise UserError(f"the file's weights have shapes that no QueryInst has: {error}") from None


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbers stand where the pattern's group is."""
    return len({found[1] for name in weights if (found := re.match(pattern, name))})


def complete(weights: State, model: nn.Module, where: str, fresh: Sequence[str] = ()) -> State:
    """The weights, and what each model derives by itself; proved to be exactly the model's.

    Args:
        weights: under our names.
        model: what they are for.
        where: the file, for messages.
        fresh: beginnings of names that may be missing, all of them together.

    Raises:
        UserError: a tensor is missing, left over, or of another shape, by name.
    """
    absent = tuple(part for part in fresh if not any(name.startswith(part) for name in weights))
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith(absent)}
    missing = [name for name in wanted if name not in weights and not name.endswith(DERIVED)]
    left_over = [name for name in weights if name not in wanted]
    shapes = [name for name in wanted if name in weights and weights[name].shape != wanted[name].shape]
    for names, what in (
        (missing, "lacks"),
        (left_over, "has beyond the architecture"),
        (shapes, "has in another shape"),
    ):
        if names:
            raise UserError(f"{where} {what} {len(names)} of {len(wanted)} tensors: {some(names)}")
    return {name: weights.get(name, value) for name, value in wanted.items()}


def backbone_weights(translated: Translated, name: str, where: str) -> State:
    """Weights for our backbone `name` from a file of any kind of backbone.

    Raises:
        UserError: it is not a file of backbone weights, or of another backbone.
    """
    if translated.origin.whole:
        raise UserError(
            f"{where} is a whole model of {translated.origin.label}, not a backbone: convert it, and give weights="
        )
    found = backbone_of(translated.weights)
    if found.name != name:
        raise UserError(f"{where} is a {found.name}; set backbone={found.name}, or give weights of {name}")
    model = build_backbone(dataclasses.replace(found, frozen_stages=-1))
    return complete(translated.weights, model, where, fresh=("out_norms.",))


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
