"""What may be said of a backbone of timm or torchvision: its name and its settings, checked without either of them.

A checkpoint carries both, and whoever wrote it may be nobody's friend. So a name is one of the library's own networks
and never a place to load something from, and a setting is a number or a word that no file, address or code can be.
"""

import importlib.util
import re
from typing import Any

from queryinst.errors import UserError
from queryinst.part_config import Used

LIBRARIES = ("timm", "torchvision")  # timm:NAME, torchvision:NAME; no modules of parts
DOWNLOADS = {"timm": "timm", "torchvision": "imagenet"}  # the word of backbone.weights for what the library has
# What the libraries would take besides: files, addresses, weights, and what `Backbone` says itself.
FORBIDDEN = re.compile(
    r"pretrained.*|weights.*|checkpoint_path|cache_dir|scriptable|exportable|no_jit|progress|features_only|out_indices|"
    r"feature_c\w+|model_cfg|kwargs_filter|in_chans|num_classes|output_fmt|device|dtype|pruned"
)
ELSEWHERE = {"drop_path_rate": "drop_path", "stochastic_depth_prob": "drop_path", "grad_checkpointing": "checkpointing"}


def library_of(name: str) -> str:
    """`timm` for `timm:NAME`; empty where it is no library's."""
    first, colon, _ = name.partition(":")
    return first if colon and first in LIBRARIES else ""


def check_library(part: Used) -> None:
    """Raise UserError for a name or a setting that no network of a library has, or a library that is not there."""
    library, _, name = part.name.partition(":")
    if not re.fullmatch(r"\w[\w.]*", name, re.ASCII):
        raise UserError(
            f"{part.key}.name={library}:NAME takes a network of {library} by its name, letters, digits, _ and . only; "
            f"got '{name}'; weights of elsewhere come as a file, by {part.key}.weights=FILE"
        )
    for setting, value in part.args.items():
        if setting in ELSEWHERE:
            raise UserError(f"{part.key}.args.{setting}: write {part.key}.{ELSEWHERE[setting]} for it")
        if not re.fullmatch(r"[a-z]\w*", setting, re.ASCII) or FORBIDDEN.fullmatch(setting):
            raise UserError(
                f"{part.key}.args.{setting} is no setting of a network that may be given here; weights come by "
                f"{part.key}.weights, maps and classes follow"
            )
        if not all(_plain(one) for one in (value if isinstance(value, list) else [value])):
            raise UserError(f"{part.key}.args.{setting} takes numbers and words, or a list of them; got {value!r}")
    if library == "timm" and importlib.util.find_spec("timm") is None:
        raise UserError(
            f"{part.key}.name={part.name} needs timm, which is not installed: pip install 'queryinst[timm]'"
        )


def _plain(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (
        isinstance(value, str) and re.fullmatch(r"[\w+-][\w.+-]*", value, re.ASCII) is not None
    )
