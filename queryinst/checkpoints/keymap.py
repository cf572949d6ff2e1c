"""What others call our parameters: tables of names, a line a prefix, and how they are read.

A line holds our prefix, then that of each framework; what follows (`weight`, `bias`, ...) is the same, but for LEAVES.
`-`: the framework has no such parameter. `T`: PaddleDetection stores the weight transposed, input by output. A field in
braces stands for every number (FIELDS): {s} stage of the heads, {k} position in a list, {l} stage and {b} block of a
backbone, {c} convolution of a block. ResNet-101's long stage counts its blocks a, b1, b2, ... in PaddleDetection.

Sources: `queryinst` of MMDetection 2.x and 3.x, which has the names of hustvl/QueryInst (whose mask convolutions have
biases besides); `sparse_roi_head.py` and `name_adapter.py` of PaddleDetection; ResNet and Swin of torchvision; Swin as
Microsoft published it, which hustvl/QueryInst kept.
"""

import itertools
import re
from collections.abc import Callable, Iterator

TRUNK = """
ours                mmdet                                   paddle
neck.lateral.0.     neck.lateral_convs.0.conv.              neck.fpn_inner_res2_sum_lateral.
neck.lateral.1.     neck.lateral_convs.1.conv.              neck.fpn_inner_res3_sum_lateral.
neck.lateral.2.     neck.lateral_convs.2.conv.              neck.fpn_inner_res4_sum_lateral.
neck.lateral.3.     neck.lateral_convs.3.conv.              neck.fpn_inner_res5_sum.
neck.output.{k}.    neck.fpn_convs.{k}.conv.                neck.fpn_res{k+2}_sum.
queries.boxes       rpn_head.init_proposal_bboxes.weight    rpn_head.init_proposal_bboxes.weight
queries.features    rpn_head.init_proposal_features.weight  rpn_head.init_proposal_features.weight
"""

BOX_HEAD = """
ours                mmdet                                       paddle
attn.in_proj_       attention.attn.in_proj_                     attention.in_proj_                          T
attn.out_proj.      attention.attn.out_proj.                    attention.out_proj.                         T
attn_norm.          attention_norm.                             attention_norm.
dyn.params.         instance_interactive_conv.dynamic_layer.    instance_interactive_conv.dynamic_layer.    T
dyn.norm_in.        instance_interactive_conv.norm_in.          instance_interactive_conv.norm_in.
dyn.norm_out.       instance_interactive_conv.norm_out.         instance_interactive_conv.norm_out.
dyn.proj.           instance_interactive_conv.fc_layer.         instance_interactive_conv.fc_layer.         T
dyn.proj_norm.      instance_interactive_conv.fc_norm.          instance_interactive_conv.fc_norm.
dyn_norm.           instance_interactive_conv_norm.             instance_interactive_conv_norm.
ffn.fc1.            ffn.layers.0.0.                             ffn.layers.0.0.                             T
ffn.fc2.            ffn.layers.1.                               ffn.layers.1.                               T
ffn_norm.           ffn_norm.                                   ffn_norm.
cls_tower.{k}.fc.   cls_fcs.{3k}.                               cls_fcs.{3k}.                               T
cls_tower.{k}.norm. cls_fcs.{3k+1}.                             cls_fcs.{3k+1}.
cls.                fc_cls.                                     fc_cls.                                     T
reg_tower.{k}.fc.   reg_fcs.{3k}.                               reg_fcs.{3k}.                               T
reg_tower.{k}.norm. reg_fcs.{3k+1}.                             reg_fcs.{3k+1}.
reg.                fc_reg.                                     fc_reg.                                     T
"""

MASK_HEAD = """
ours                mmdet                                       paddle
dyn.params.         instance_interactive_conv.dynamic_layer.    instance_interactive_conv.dynamic_layer.    T
dyn.norm_in.        instance_interactive_conv.norm_in.          instance_interactive_conv.norm_in.
dyn.norm_out.       instance_interactive_conv.norm_out.         instance_interactive_conv.norm_out.
convs.{k}.conv.     convs.{k}.conv.                             convs.{k}.0.
convs.{k}.bn.       convs.{k}.bn.                               convs.{k}.1.
up.                 upsample.                                   upsample.
logits.             conv_logits.                                conv_cls.
"""

RESNET = """
ours                            torchvision                 paddle
body.conv1.                     conv1.                      conv1.conv1.conv.
body.bn1.                       bn1.                        conv1.conv1.norm.
body.layer{l}.{b}.conv{c}.      layer{l}.{b}.conv{c}.       res{l+1}.res{l+1}{letter_b}.branch2{letter_c}.conv.
body.layer{l}.{b}.bn{c}.        layer{l}.{b}.bn{c}.         res{l+1}.res{l+1}{letter_b}.branch2{letter_c}.norm.
body.layer3.{b}.conv{c}.        -                           res4.res4b{b}.branch2{letter_c}.conv.
body.layer3.{b}.bn{c}.          -                           res4.res4b{b}.branch2{letter_c}.norm.
body.layer{l}.0.downsample.0.   layer{l}.0.downsample.0.    res{l+1}.res{l+1}a.short.conv.
body.layer{l}.0.downsample.1.   layer{l}.0.downsample.1.    res{l+1}.res{l+1}a.short.norm.
"""

# torchvision's `features` alternate: the stem, then blocks and patch merging in turn.
SWIN = """
ours                                torchvision                     microsoft
body.features.0.0.                  features.0.0.                   patch_embed.proj.
body.features.0.2.                  features.0.2.                   patch_embed.norm.
body.features.{2k+1}.{b}.norm1.     features.{2k+1}.{b}.norm1.      layers.{k}.blocks.{b}.norm1.
body.features.{2k+1}.{b}.attn.      features.{2k+1}.{b}.attn.       layers.{k}.blocks.{b}.attn.
body.features.{2k+1}.{b}.norm2.     features.{2k+1}.{b}.norm2.      layers.{k}.blocks.{b}.norm2.
body.features.{2k+1}.{b}.mlp.0.     features.{2k+1}.{b}.mlp.0.      layers.{k}.blocks.{b}.mlp.fc1.
body.features.{2k+1}.{b}.mlp.3.     features.{2k+1}.{b}.mlp.3.      layers.{k}.blocks.{b}.mlp.fc2.
body.features.{2k+2}.norm.          features.{2k+2}.norm.           layers.{k}.downsample.norm.
body.features.{2k+2}.reduction.     features.{2k+2}.reduction.      layers.{k}.downsample.reduction.
out_norms.{k}.                      -                               norm{k}.
"""

LEAVES = {"_mean": "running_mean", "_variance": "running_var"}  # Paddle's BatchNorm statistics

# A field in braces: the number behind it, and what it writes for each value.
FIELDS: dict[str, tuple[str, Callable[[int], object]]] = {
    **{name: (name, int) for name in "sklbc"},
    "k+2": ("k", lambda k: k + 2),
    "2k+1": ("k", lambda k: 2 * k + 1),
    "2k+2": ("k", lambda k: 2 * k + 2),
    "3k": ("k", lambda k: 3 * k),
    "3k+1": ("k", lambda k: 3 * k + 1),
    "l+1": ("l", lambda layer: layer + 1),
    "letter_b": ("b", lambda b: chr(ord("a") + b)),
    "letter_c": ("c", lambda c: " abc"[c]),
}
VALUES = {"s": range(20), "k": range(20), "l": range(1, 5), "b": range(26), "c": range(1, 4)}


class Names:
    """Translates one framework's names into ours.

    Args:
        parts: (table, column, prefix of our names, prefix of theirs).
    """

    def __init__(self, *parts: tuple[str, str, str, str]) -> None:
        self._ours: dict[str, tuple[str, bool]] = {}
        for table, column, our_prefix, their_prefix in parts:
            header, *lines = (line.split() for line in table.strip().splitlines())
            at = header.index(column)
            for line in lines:
                if line[at] != "-":
                    for ours, theirs in _filled(our_prefix + line[0], their_prefix + line[at]):
                        self._ours[theirs] = ours, column == "paddle" and line[-1] == "T"

    def translate(self, name: str) -> tuple[str, bool] | None:
        """Our name for theirs, and whether to transpose the tensor; None for a name that is in no table."""
        for end in range(len(name), 0, -1):
            if name[:end] in self._ours:
                ours, transposed = self._ours[name[:end]]
                leaf = LEAVES.get(name[end:], name[end:])
                return ours + leaf, transposed and leaf == "weight"
        return None


def _filled(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """A pair of templates with every combination of numbers in their fields."""
    fields = {match[1] for match in re.finditer(r"{(.+?)}", ours + theirs)}
    numbers = sorted({FIELDS[field][0] for field in fields})
    for combination in itertools.product(*(VALUES[number] for number in numbers)):
        value = dict(zip(numbers, combination, strict=True))
        written = {field: FIELDS[field][1](value[FIELDS[field][0]]) for field in fields}
        yield ours.format_map(written), theirs.format_map(written)


def _queryinst(column: str, boxes: str, masks: str, *backbones: tuple[str, str]) -> Names:
    return Names(
        (TRUNK, column, "", ""),
        (BOX_HEAD, column, "stages.{s}.box.", boxes),
        (MASK_HEAD, column, "stages.{s}.mask.", masks),
        *((table, of, "backbone.", "backbone.") for table, of in backbones),
    )


# Of whole models, and of backbones alone (which have no prefix).
MMDET = _queryinst(
    "mmdet", "roi_head.bbox_head.{s}.", "roi_head.mask_head.{s}.", (RESNET, "torchvision"), (SWIN, "microsoft")
)
PADDLE = _queryinst("paddle", "roi_head.bbox_heads.{s}.", "roi_head.mask_heads.{s}.", (RESNET, "paddle"))
TORCHVISION_BACKBONE = Names((RESNET, "torchvision", "", ""), (SWIN, "torchvision", "", ""))
MICROSOFT_BACKBONE = Names((SWIN, "microsoft", "", ""))
PADDLE_BACKBONE = Names((RESNET, "paddle", "", ""))
