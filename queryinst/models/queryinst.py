"""QueryInst in one read: backbone, FPN, learnable proposals, S stages of box, mask and, for video, association head."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from queryinst.config import BackboneConfig, ModelConfig
from queryinst.errors import UserError
from queryinst.models.association_head import AssociationHead
from queryinst.models.backbone import Backbone, build_backbone, channels_of, made_module
from queryinst.models.box_head import BoxHead
from queryinst.models.fpn import FPN
from queryinst.models.groups import Group, side_by_side
from queryinst.models.initialisation import as_paddle
from queryinst.models.mask_head import MaskHead
from queryinst.models.proposals import Proposals
from queryinst.models.pyramid_proposals import PyramidProposals
from queryinst.ops import boxes as box_ops
from queryinst.ops import ranks
from queryinst.ops.roi import STRIDES, FeaturePyramid
from queryinst.part_config import PartConfig, Used
from queryinst.slots import is_ours
from queryinst.structures import Candidates, Drawn, Output, Rows, Sight, StageOutput

MEAN = (123.675, 116.28, 103.53)  # ImageNet's, RGB, 0..255
STD = (58.395, 57.12, 57.375)


class Stage(nn.Module):
    """One refinement: its own heads, unless all stages share a box head."""

    def __init__(self, config: ModelConfig, num_classes: int, box: BoxHead | None = None) -> None:
        super().__init__()
        self.box = box or cast(BoxHead, _head("box_head", config, num_classes))
        self.mask = cast(MaskHead, _head("mask_head", config, num_classes))
        self.association = AssociationHead(config) if config.association else None


def _head(slot: str, config: ModelConfig, num_classes: int) -> nn.Module:
    """The head that `config` names: ours, or the user's own. Raises UserError."""
    chosen: PartConfig = getattr(config, slot)
    part = Used(f"model.{slot}", slot, chosen.name, chosen.args)
    if is_ours(part):
        return {"box_head": BoxHead, "mask_head": MaskHead}[slot](config, num_classes)
    return made_module(part, config, num_classes)


class QueryInst(nn.Module):
    """Instances as Queries (Fang et al., ICCV 2021).

    `forward` gives every stage's classes, boxes and queries. Masks are drawn afterwards, by `predict_masks`, for the
    queries that matter: no mask feeds a later stage, so nothing in the stage loop waits for matching or for top-k.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: ModelConfig, backbone: BackboneConfig, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.box_resolution, self.mask_resolution = model.box_resolution, model.mask_resolution
        self.aligned, self.associates = model.aligned, model.association is not None
        self.look_forward_twice, self.judges_masks = model.look_forward_twice, model.mask_quality
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)
        self.backbone = build_backbone(backbone)
        self.neck = FPN(channels_of(self.backbone), model.width)
        if model.proposals == "pyramid":
            self.queries: Proposals | PyramidProposals = PyramidProposals(model.num_proposals, model.width)
        else:
            self.queries = Proposals(model.num_proposals, model.width, model.proposal_init, model.detach_proposals)
        first = Stage(model, num_classes)
        shared = first.box if model.share_stages else None
        stages = nn.ModuleList([first, *(Stage(model, num_classes, shared) for _ in range(1, model.num_stages))])
        self.stages = cast(list[Stage], stages)  # for the type checker, which knows only Modules in a ModuleList
        if model.initialisation == "paddle":
            as_paddle(self)

    def forward(self, images: Tensor, sizes: Tensor, groups: Sequence[Group] = ()) -> Output:
        """Images to the outputs of every stage.

        Args:
            images: (B, 3, H, W) uint8 RGB, H and W multiples of 32; whatever lies outside `sizes` is ignored.
            sizes: (B, 2) int64 height, width of each image inside the canvas.
            groups: of further queries, in training.
        """
        return self.refine(self.normalise(images, sizes), sizes, groups)

    def normalise(self, images: Tensor, sizes: Tensor) -> Tensor:
        """uint8 to normalised float, with zeros outside each image (padding is zero AFTER normalisation)."""
        height, width = images.shape[-2:]
        if height % STRIDES[-1] or width % STRIDES[-1]:
            raise ValueError(f"images must be padded to multiples of {STRIDES[-1]}, got {height}x{width}")
        if self._channels_last(images):
            images = images.contiguous(memory_format=torch.channels_last)
        rows = torch.arange(height, device=images.device) < sizes[:, :1]
        columns = torch.arange(width, device=images.device) < sizes[:, 1:]
        inside = (rows[:, None, :, None] & columns[:, None, None, :]).to(self.mean.dtype)
        return (images - self.mean).div_(self.std).mul_(inside)

    def _channels_last(self, images: Tensor) -> bool:
        """Whether all maps are to be in the order that oneDNN's convolutions and the gathering of regions like best.

        Not under DDP: a gradient in that order does not lie in its buckets as it would have it.
        """
        ours = self.training and isinstance(self.backbone, Backbone)
        return ours and images.device.type == "cpu" and not ranks.grouped()

    def refine(self, x: Tensor, sizes: Tensor, groups: Sequence[Group] = ()) -> Output:
        """The network proper: normalised images (B, 3, H, W) to the outputs of every stage."""
        pyramid = self.pyramid(x)
        return side_by_side(self, pyramid, sizes, groups) if groups else self.query(pyramid, sizes)

    def pyramid(self, x: Tensor) -> FeaturePyramid:
        """Backbone and FPN: normalised images (B, 3, H, W) to P2..P5, in the type of the weights."""
        return FeaturePyramid(self.neck(self.backbone(x.to(self.queries.dtype))), self.aligned)

    def query(
        self, pyramid: FeaturePyramid, sizes: Tensor, stages: int | None = None, proposals: int | None = None
    ) -> Output:
        """The stage loop, or less of it: every stage is supervised and queries are a set, so both may be cut.

        Args:
            pyramid: of the images.
            sizes: (B, 2) height, width.
            stages: how many to run; all by default.
            proposals: how many queries of an image go on after the first stage, those with the best class scores there;
                all by default. (To leave some out for all images, before the first stage, costs far more precision.)
        """
        boxes, queries, candidates = self.propose(pyramid, sizes)
        outputs: list[StageOutput] = []
        chosen: Tensor | None = None
        for stage in self.stages[:stages]:
            output = self.run(stage, pyramid, queries, boxes)
            outputs.append(output if chosen is None else replace(output, chosen=chosen))
            boxes, queries = self.onward(output, boxes), output.queries
            if proposals and proposals < boxes.shape[1]:
                chosen = output.logits.amax(-1).topk(proposals, dim=1).indices  # once: so many remain
                best = chosen[..., None]
                boxes, queries = (every.gather(1, best.expand(-1, -1, every.shape[2])) for every in (boxes, queries))
        return Output(pyramid, outputs, candidates=candidates)

    def propose(self, pyramid: FeaturePyramid, sizes: Tensor) -> tuple[Tensor, Tensor, Candidates | None]:
        """What the first stage begins with: boxes (B, N, 4), queries (B, N, d); in training all they were chosen of."""
        if isinstance(self.queries, Proposals):
            return *self.queries(sizes), None
        boxes, queries, candidates = self.queries(sizes, pyramid)
        return boxes, queries, candidates if self.training else None

    def onward(self, output: StageOutput, boxes: Tensor) -> Tensor:
        """The boxes (B, N, 4) that the next stage refines, where a stage made `output` of `boxes`.

        They are detached from stage to stage; queries never are, and carry the gradient through all stages. With
        `look_forward_twice` the next stage's losses teach this stage's deltas too (DINO, section 3.5): one stage back,
        and no further. The numbers are the same. Raises UserError: a box head of the user's own tells no deltas.
        """
        if not (self.look_forward_twice and self.training):
            return output.boxes.detach()
        if output.deltas is None:
            raise UserError(
                "model.look_forward_twice needs a box head that tells by what it refined its boxes, and "
                "model.box_head.name gives a StageOutput without deltas: add `deltas`, or leave look_forward_twice out"
            )
        return box_ops.refine(boxes.detach(), output.deltas)

    def run(
        self, stage: Stage, pyramid: FeaturePyramid, queries: Tensor, boxes: Tensor, sights: Sequence[Sight] = ()
    ) -> StageOutput:
        """The box half of a stage: queries (B, N, d) read the regions of their boxes (B, N, 4).

        Args:
            sights: as of `BoxHead.forward`; a head of the user's own need not know of it where there are no groups.
        """
        image = torch.arange(boxes.shape[0], device=boxes.device).repeat_interleave(boxes.shape[1])
        regions = pyramid.align(boxes.flatten(0, 1), image, self.box_resolution)
        return stage.box(queries, regions, boxes, sights) if sights else stage.box(queries, regions, boxes)

    def predict_masks(self, output: Output, rows: Mapping[int, Rows]) -> dict[int, Tensor]:
        """Draw masks.

        Args:
            output: of `forward`.
            rows: which queries of which stage, and the class to draw. Heads 0..S-2 serve in training only.

        Returns:
            for each stage asked for, mask logits (M, 2k, 2k) in the frame of the stage's own box
            (`output.stages[i].boxes`, not clipped).
        """
        return {index: drawn.logits for index, drawn in self.draw(output, rows).items()}

    def draw(self, output: Output, rows: Mapping[int, Rows]) -> dict[int, Drawn]:
        """As `predict_masks`, with a guess how good each mask is where the model has heads for that."""
        drawn = {}
        for index, stage, back, queries, regions in self._read(output, rows, self.mask_resolution):
            features = stage.mask(queries, regions)
            logits = stage.mask.classify(features, rows[index].label, back)
            judge = stage.mask.quality if self.judges_masks else None
            drawn[index] = Drawn(logits, judge(features, logits, back) if judge else None)
        return drawn

    def embed(self, output: Output, rows: Mapping[int, Rows]) -> dict[int, Tensor]:
        """What tells instances apart: association embeddings (M, E) for each stage asked for.

        Arguments as of `predict_masks`; the class does not matter. Nothing where the model has no association heads.
        """
        embeddings = {}
        wanted = rows if self.associates else {}
        for index, stage, back, queries, regions in self._read(output, wanted, self.box_resolution):
            made = cast(AssociationHead, stage.association)(queries, regions)
            embeddings[index] = made if back is None else made[back]
        return embeddings

    def _read(
        self, output: Output, rows: Mapping[int, Rows], resolution: int
    ) -> Iterator[tuple[int, Stage, Tensor | None, Tensor, Tensor]]:
        """For each entry of `output.stages` asked for: its place, the stage it came from, where each row finds its own
        (see `_distinct`), queries and regions.
        """
        if not rows:
            return
        picks = {index: self._distinct(row, self.queries.number) for index, row in rows.items()}
        # One call for all stages: its backward zero-fills a gradient of the whole pyramid on every call.
        regions = output.pyramid.align(
            torch.cat([output.stages[index].boxes[image, query] for index, (image, query, _) in picks.items()]),
            torch.cat([image for image, _, _ in picks.values()]),
            resolution,
        ).split([len(image) for image, _, _ in picks.values()])
        for (index, (image, query, back)), region in zip(picks.items(), regions, strict=True):
            stage = self.stages[output.numbers[index] if output.numbers else index]
            yield index, stage, back, output.stages[index].mask_queries[image, query], region

    def _distinct(self, rows: Rows, number: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Image and query of the rows without repetition, and where each row finds its own among them (None: in place).

        At test a query may be asked for with several classes; in training every row is another query already.
        """
        if self.training:
            return rows.image, rows.query, None
        key, back = (rows.image * number + rows.query).unique(return_inverse=True)
        return key // number, key % number, back
