"""The contracts of the parts that you can bring: what each slot calls, with shapes and units. Nothing to inherit from.

A slot of the configuration takes a name of ours or `module:Name`, a class in a file of the folder that the command runs
in or in an installed package, and its settings: `backbone.name=my_net:Net +backbone.args.depth=3` calls
`Net(config.backbone, depth=3)`. Settings are compared with the signature before anything is imported, and each part is
tried once, on a small made-up input, before anything is trained (`queryinst/lightning/dry_pass.py`).

The letters of shapes are those of `queryinst/structures.py`: B images, N queries an image, S stages, d width, K
classes, G ground truths and M matched pairs of the whole batch, k side of a region. Boxes are xyxy in pixels of the
network's input. Backbones and heads train with the network; the other parts have no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from queryinst.data.transforms import Instances
    from queryinst.structures import Detections, Matches, StageOutput, Targets


class BackbonePart(Protocol):
    """`backbone`: an `nn.Module`, made as `Name(config.backbone, **args)`.

    It does what `frozen_stages`, `norm` and `checkpointing` of its first argument say. Whoever inherits
    `queryinst.models.backbone.Backbone` and gives the stem and four stages as `parts()` need not think of it. One that
    freezes nothing is for `backbone.frozen_stages=-1`, as `backbone=own` has it. For `backbone.thaw` another kind of
    module needs a method `thaw()`, after which what `frozen_stages` froze wants gradients, in the modes of `norm`.
    """

    @property
    def channels(self) -> Sequence[int]:
        """Of the four maps. A plain attribute will do."""
        ...

    def __call__(self, x: Tensor) -> list[Tensor]:
        """Normalised images (B, 3, H, W), H and W multiples of 32, to four maps at strides 4, 8, 16 and 32: (B,
        channels[i], H / stride, W / stride)."""
        ...


class BoxHeadPart(Protocol):
    """`model.box_head`: an `nn.Module`, one for each stage, made as `Name(config.model, num_classes, **args)`.

    Call the layer that gives the logits `cls`: fine-tuning on other classes starts it afresh. A fourth argument
    `sights` it needs for `signals` alone: which queries know of which (`structures.Sight`); of all, where it is empty.
    """

    def __call__(self, queries: Tensor, regions: Tensor, boxes: Tensor) -> StageOutput:
        """One refinement.

        Args:
            queries: (B, N, d) from the stage before.
            regions: (B * N, d, k, k) of the pyramid at `boxes`, k = `model.box_resolution`.
            boxes: (B, N, 4) that this stage refines. They have no gradient, but with `model.look_forward_twice`; the
                queries do.

        Returns:
            logits (B, N, K) before the sigmoid, boxes (B, N, 4) float32 whatever the precision, queries (B, N, d) for
            the next stage, and mask_queries (B, N, d), which the mask head reads. All of them with gradient.
            `queryinst.ops.boxes.refine` adds deltas to boxes; `look_forward_twice` asks for these `deltas` too.
        """
        ...


class MaskHeadPart(Protocol):
    """`model.mask_head`: an `nn.Module`, one for each stage, made as `Name(config.model, num_classes, **args)`.

    Call the layer with the K classes `logits`: fine-tuning on other classes starts it afresh. Rows may be none.
    """

    def __call__(self, queries: Tensor, regions: Tensor) -> Tensor:
        """`mask_queries` (n, d) of some queries and their regions (n, d, k, k), k = `model.mask_resolution`, to
        features (n, c, s, s) of any number of channels."""
        ...

    def classify(self, features: Tensor, labels: Tensor, which: Tensor | None = None) -> Tensor:
        """Mask logits (m, s, s) of the class `labels[i]` for features `which[i]`, or for features i where `which` is
        None. s is the side of the mask in the frame of the query's box, 28 in QueryInst."""
        ...


class ClassificationLoss(Protocol):
    """`criterion.classification`: made as `Name(**args)`; `criterion.class_weight` is its factor."""

    def __call__(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Logits (S, B, N, K) and targets of the same shape, 1 for the class of a matched query (less with
        `criterion.class_target`) and 0 elsewhere, to a sum for each stage (S,). The caller divides by the matched
        pairs."""
        ...


class LossTerm(Protocol):
    """`criterion.terms.NAME`: one more loss, made as `Name(**args)`; `weight` is its factor."""

    def __call__(
        self, stages: list[StageOutput], masks: list[Tensor], matches: Matches, targets: Targets, sizes: Tensor
    ) -> Tensor:
        """A sum over the matched pairs for each stage (S,), with gradient; the caller divides by the pairs.

        Args:
            stages: outputs of the S stages.
            masks: S tensors (M, s, s), mask logits of the matched queries for the class of their ground truth.
            matches: which query belongs to which object: `stages[i].boxes[matches.image, matches.query[i]]` are the
                boxes for `targets.boxes[matches.target[i]]`. There may be none.
            targets: ground truth of the batch.
            sizes: (B, 2) height, width of the images.
        """
        ...


class MatchingCost(Protocol):
    """`criterion.costs.NAME`: added to the costs of the matching, made as `Name(**args)`; `weight` is its factor."""

    def __call__(self, logits: Tensor, boxes: Tensor, labels: Tensor, wanted: Tensor, sizes: Tensor) -> Tensor:
        """What it costs to match each query with each object, float32 (S, B, N, G'); less is better. No gradient.

        Args:
            logits: (S, B, N, K) float32.
            boxes: (S, B, N, 4) float32.
            labels: (B, G') of the objects, G' of the image that has most; those past an image's own mean nothing.
            wanted: (B, G', 4) their boxes.
            sizes: (B, 2) height, width of the images.
        """
        ...


class AugmentationStep(Protocol):
    """`augmentation.steps.NAME`: a step on a training image, after flip, resize, crop, pasting and colours, in the
    order given, made as `Name(**args)`."""

    def __call__(
        self, image: NDArray[np.uint8], instances: Instances, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], Instances]:
        """An image (H, W, 3) RGB and its objects to another one and its objects.

        All randomness comes from `rng`, so that a run can be repeated. `instances.take(which)` leaves objects out; a
        `queryinst.data.transforms.Geometry` moves image and objects alike. The size may change.
        """
        ...


class DataReader(Protocol):
    """`data.reader`: reads annotations that are not in COCO format, made as `Name(**args)`."""

    def __call__(self, path: Path) -> dict[str, Any]:
        """The file or folder that `data.train_annotations` or `data.val_annotations` names, as COCO has it.

        Returns:
            images (id, file_name from the folder of images, height, width), categories (id, name) and annotations (id,
            image_id, category_id, bbox [x, y, w, h] in pixels, area, iscrowd, segmentation as polygons or RLE). It is
            checked as a COCO file is.
        """
        ...


class Metric(Protocol):
    """`metrics.NAME`: one more measure of an evaluation, made as `Name(content, **args)`.

    `content` is the validation set as a COCO dictionary. Label k is the category with the k-th smallest id. Of several
    processes each sees its own images: `queryinst.ops.ranks.of_all_ranks` puts dictionaries together.
    """

    def reset(self) -> None:
        """Forget; an evaluation begins."""
        ...

    def update(self, image_ids: list[int], found: list[Detections]) -> None:
        """What the last stage found in some images, in pixels of the original image, best first."""
        ...

    def compute(self) -> dict[str, float]:
        """The numbers of this evaluation, NaN where one is not defined: `val/NAME/KEY` of the loggers, `NAME/KEY` in
        result.json."""
        ...


# `callbacks.extra.NAME` and `logger.extra.NAME` take Lightning's Callback and Logger, made as `Name(**args)`.
