"""Weights that follow from MMDetection's parameter names, so that outputs can be compared without storing any weights.

`fill` is the rule by which the stored outputs were made (`mmdet_*.npz` with MMDetection 3.3.0, `authors_*.npz` with
hustvl/QueryInst, `paddle_*.npz` with PaddleDetection and its aligned RoIAlign): numpy's frozen RandomState seeded with
the CRC of the name, rounded to what float16 holds. `write` makes a weight file as each of them would have saved it.
"""

import csv
import functools
import gzip
import pickle
import re
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

# Our names to MMDetection's, applied in turn.
NAMES = [
    (r"^backbone\.body\.", "backbone."),
    (r"^neck\.lateral\.(\d)\.", r"neck.lateral_convs.\1.conv."),
    (r"^neck\.output\.(\d)\.", r"neck.fpn_convs.\1.conv."),
    (r"^queries\.boxes$", "rpn_head.init_proposal_bboxes.weight"),
    (r"^queries\.features$", "rpn_head.init_proposal_features.weight"),
    (r"^stages\.(\d)\.box\.", r"roi_head.bbox_head.\1."),
    (r"^stages\.(\d)\.mask\.", r"roi_head.mask_head.\1."),
    (r"\.attn_norm\.", ".attention_norm."),
    (r"\.attn\.", ".attention.attn."),
    (r"\.dyn_norm\.", ".instance_interactive_conv_norm."),
    (r"\.dyn\.params\.", ".instance_interactive_conv.dynamic_layer."),
    (r"\.dyn\.proj\.", ".instance_interactive_conv.fc_layer."),
    (r"\.dyn\.proj_norm\.", ".instance_interactive_conv.fc_norm."),
    (r"\.dyn\.", ".instance_interactive_conv."),
    (r"\.ffn\.fc1\.", ".ffn.layers.0.0."),
    (r"\.ffn\.fc2\.", ".ffn.layers.1."),
    (r"\.cls_tower\.0\.fc\.", ".cls_fcs.0."),
    (r"\.cls_tower\.0\.norm\.", ".cls_fcs.1."),
    (r"\.reg_tower\.(\d)\.fc\.", lambda match: f".reg_fcs.{3 * int(match[1])}."),
    (r"\.reg_tower\.(\d)\.norm\.", lambda match: f".reg_fcs.{3 * int(match[1]) + 1}."),
    (r"\.cls\.", ".fc_cls."),
    (r"\.reg\.", ".fc_reg."),
    (r"\.up\.", ".upsample."),
    (r"(mask_head\.\d)\.logits\.", r"\1.conv_logits."),
]


def mmdet_name(name: str) -> str:
    """MMDetection's name of one of our parameters or buffers."""
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that belongs to one of MMDetection's names."""
    return _filled(name, shape).copy()


@functools.cache  # eleven million random numbers a ResNet-18, which many tests ask for
def _filled(name: str, shape: tuple[int, ...]) -> np.ndarray:
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_mean"):
        value = 0.1 * random.standard_normal(shape)
    elif name.endswith("running_var"):
        value = 1.0 + 0.2 * random.uniform(0, 1, shape)
    elif name == "rpn_head.init_proposal_bboxes.weight":
        u = random.uniform(0, 1, shape)
        value = np.concatenate([0.2 + 0.6 * u[:, :2], 0.1 + 0.6 * u[:, 2:]], 1)
    elif name == "rpn_head.init_proposal_features.weight":
        value = random.standard_normal(shape)
    elif len(shape) == 1 and name.endswith("weight"):
        value = 1.0 + 0.1 * random.standard_normal(shape)
        if re.search(r"^backbone\.layer.*\.bn[23]\.weight$", name):
            value *= 0.3
    elif len(shape) == 1:
        value = 0.05 * random.standard_normal(shape) - (2.0 if name.endswith("fc_cls.bias") else 0.0)
    else:
        fan_in = shape[0] if name.endswith("upsample.weight") else int(np.prod(shape[1:]))
        value = _gain(name) / np.sqrt(fan_in) * random.standard_normal(shape)
    return value.astype(np.float16).astype(np.float32)


def _gain(name: str) -> float:
    for ending, gain in (
        ("fc_reg.weight", 0.32),
        ("fc_cls.weight", 2.0),
        ("dynamic_layer.weight", 0.12),
        ("conv_logits.weight", 3.0),
    ):
        if name.endswith(ending):
            return gain
    return 2**0.5 if name.startswith("backbone") or ".convs." in name or name.endswith("upsample.weight") else 1.0


def mmdet_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The weights of a model whose parameters (our names) have these shapes, as MMDetection would save them."""
    return {mmdet_name(name): np.asarray(fill(mmdet_name(name), shape)) for name, shape in shapes.items()}


def authors_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The same function in hustvl/QueryInst, which has a bias before every mask BatchNorm."""
    state = mmdet_state(shapes)
    for name in [name for name in state if ".convs." in name and name.endswith("conv.weight")]:
        bias = name.replace("weight", "bias")
        state[bias] = fill(bias, state[name].shape[:1])
        mean = name.replace("conv.weight", "bn.running_mean")
        state[mean] = state[mean] + state[bias]
    return state


def paddle_names() -> dict[str, tuple[str, bool]]:
    """MMDetection's name to PaddleDetection's, and whether the tensor is transposed there (ResNet-18)."""
    with gzip.open(Path(__file__).parent / "names_paddle_tiny_r18.tsv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["paddle_name"] != "None"]
    return {row["mmdet_name"]: (row["paddle_name"], row["transpose"] == "1") for row in rows}


def paddle_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The same weights as PaddleDetection would save them: its names, and some weights transposed.

    Its ResNet-18 has one projection more, which was the identity when the stored outputs were made; it is left out.
    """
    state, names = mmdet_state(shapes), paddle_names()
    return {
        names[name][0]: np.ascontiguousarray(value.T) if names[name][1] else value
        for name, value in state.items()
        if name in names
    }


def write(path: Path, origin: str, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A weight file of `mmdet`, `authors` or `paddle`, for a model with these shapes."""
    state = {"mmdet": mmdet_state, "authors": authors_state, "paddle": paddle_state}[origin](shapes)
    if origin == "paddle":
        path.write_bytes(pickle.dumps({**state, "StructuredToParameterName@@": dict.fromkeys(state, "x")}, protocol=4))
    else:
        tensors = OrderedDict((name, torch.from_numpy(value)) for name, value in state.items())
        torch.save({"meta": {"epoch": 12, "config": "..."}, "state_dict": tensors}, path)
    return path
