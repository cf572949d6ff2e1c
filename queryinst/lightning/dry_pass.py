"""One cheap pass, before anything is trained, through each part that is not ours: where does it break its contract?

What is tried is small and made up: two images of 64 x 96 pixels, three queries, two objects, and none. Weights,
statistics and randomness are as before afterwards. Our own parts have their tests.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from queryinst.config import TrainConfig
from queryinst.criterion.criterion import Criterion
from queryinst.data.own import Steps
from queryinst.data.transforms import Instances
from queryinst.errors import UserError
from queryinst.lightning.own import OwnMetrics
from queryinst.models.backbone import channels_of
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import STRIDES
from queryinst.part_config import Used, used
from queryinst.slots import is_ours, said
from queryinst.structures import Detections, Matches, Sight, StageOutput, Targets

SIZE = (64, 96)  # height, width of the images
QUERIES, CLASSES = 3, 4


def dry_pass(config: TrainConfig, model: QueryInst, criterion: Criterion, metrics: OwnMetrics | None = None) -> None:
    """Try every part of a run that is not ours. Raises UserError for the first that fails or breaks its contract."""
    tries: dict[str, Callable[[Used], None]] = {
        "backbone": lambda part: _backbone(part, model.backbone, config.backbone.frozen_stages),
        "box_head": lambda part: _box_head(part, model, config),
        "mask_head": lambda part: _mask_head(part, model, config),
        "classification": lambda part: _classification(part, criterion),
        "loss_term": lambda part: _loss_term(part, _another(criterion.further[_name(part)][1])),
        "matching_cost": lambda part: _matching_cost(part, _another(criterion.match.further[_name(part)][1])),
        "augmentation": lambda part: _augmentation(part, config.augmentation.steps),
        "metric": lambda part: _metric(part, metrics),
    }
    for part in used(config):
        if part.slot in tries and not is_ours(part):
            with _as_before(model), _guarded(part):
                tries[part.slot](part)


def _name(part: Used) -> str:
    """Of one that is added to others."""
    return part.key.split(".", 2)[2]


@contextlib.contextmanager
def _as_before(model: nn.Module) -> Iterator[None]:
    """In evaluation mode; afterwards modes, statistics, gradients and randomness are as they were."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    model.zero_grad(set_to_none=True)
    model.eval()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for buffer, value in buffers:
            buffer.detach().copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _another(part: Any) -> Any:
    """A copy of a part without weights, which may remember what it was called with; itself where there can be none."""
    try:
        return copy.deepcopy(part)
    except Exception:  # it holds a file, or a lock
        return part


@contextlib.contextmanager
def _guarded(part: Used) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever the user's code does
        raise UserError(f"{part.key}.name={part.name} fails on a made-up input: {said(error)}") from error


def _broken(part: Used, contract: str, sentence: str) -> UserError:
    return UserError(f"{part.key}.name={part.name} {sentence} (queryinst/parts.py: {contract})")


def _require(part: Used, contract: str, what: str, value: Any, shape: Sequence[int], gradient: bool = True) -> None:
    """Raise UserError unless a value is a finite tensor of this shape, with a gradient where it should have one."""
    if not isinstance(value, Tensor) or value.shape != torch.Size(shape):
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise _broken(part, contract, f"must give {what} {tuple(shape)}; got {got}")
    if not value.is_floating_point() or not value.isfinite().all():
        raise _broken(part, contract, f"must give finite {what}; got {value.dtype}, NaN or infinite values among them")
    if gradient and not value.requires_grad:
        raise _broken(part, contract, f"gives {what} without a gradient: look for detach(), no_grad() or NumPy in it")


def _backbone(part: Used, backbone: nn.Module, frozen_stages: int) -> None:
    parameters = list(backbone.parameters())
    maps = backbone(torch.randn(2, 3, *SIZE))
    if not isinstance(maps, list | tuple) or len(maps) != len(STRIDES):
        got = len(maps) if isinstance(maps, list | tuple) else type(maps).__name__
        raise _broken(part, "BackbonePart", f"must give a list of four maps; got {got}")
    trains = any(parameter.requires_grad for parameter in parameters)
    for number, (made, channels, stride) in enumerate(zip(maps, channels_of(backbone), STRIDES, strict=True), 2):
        shape = (2, channels, SIZE[0] // stride, SIZE[1] // stride)
        what = f"as map C{number}, stride {stride}, of images 64 x 96"
        _require(part, "BackbonePart", what, made, shape, gradient=trains and number == 5)
    if frozen_stages >= 0 and parameters and all(parameter.requires_grad for parameter in parameters):
        raise _broken(
            part,
            "BackbonePart",
            f"freezes nothing, and backbone.frozen_stages is {frozen_stages}: set backbone.frozen_stages=-1",
        )


def _box_head(part: Used, model: QueryInst, config: TrainConfig) -> None:
    width, side, classes = config.model.width, config.model.box_resolution, model.num_classes
    queries, regions = torch.randn(2, QUERIES, width), torch.randn(2 * QUERIES, width, side, side)
    boxes = torch.tensor([[0.0, 0.0, 40.0, 30.0], [8.0, 8.0, 16.0, 20.0], [0.0, 0.0, 96.0, 64.0]]).repeat(2, 1, 1)
    sights = [(Sight(QUERIES - 1), Sight(1))] if any(vars(config.signals).values()) else []
    with torch.autocast("cpu", torch.bfloat16, enabled=config.trainer.precision != "32-true"):
        output = model.stages[0].box(queries.requires_grad_(), regions.requires_grad_(), boxes, *sights)
    if not isinstance(output, StageOutput):
        raise _broken(part, "BoxHeadPart", f"must give a StageOutput; got {type(output).__name__}")
    for name, last in (("logits", classes), ("boxes", 4), ("queries", width), ("mask_queries", width)):
        _require(part, "BoxHeadPart", name, getattr(output, name), (2, QUERIES, last))
    if output.boxes.dtype != torch.float32:
        raise _broken(part, "BoxHeadPart", f"must give float32 boxes in any precision; got {output.boxes.dtype}")


def _mask_head(part: Used, model: QueryInst, config: TrainConfig) -> None:
    width, side, contract = config.model.width, config.model.mask_resolution, "MaskHeadPart"
    head = model.stages[0].mask
    queries, regions = torch.randn(QUERIES, width), torch.randn(QUERIES, width, side, side)
    features = head(queries.requires_grad_(), regions.requires_grad_())
    if not isinstance(features, Tensor) or features.ndim != 4 or len(features) != QUERIES:
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise _broken(part, contract, f"must give features ({QUERIES}, channels, s, s) of 3 queries; got {got}")
    labels, which = torch.arange(4) % model.num_classes, torch.tensor([2, 0, 1, 0])
    drawn = head.classify(features, labels, which)
    s = drawn.shape[-1] if isinstance(drawn, Tensor) and drawn.ndim else side
    _require(part, contract, "mask logits", drawn, (4, s, s))
    plain = head.classify(features[which], labels)
    _require(part, contract, "mask logits", plain, (4, s, s))
    if not torch.allclose(drawn, plain, atol=1e-3, rtol=1e-3):
        raise _broken(part, contract, "gives other masks with `which` than without: row i is of features which[i]")
    head.train()
    for rows in (1, 0):  # a batch with one object, and one without
        few = head.classify(head(queries[:rows], regions[:rows]), labels[:rows])
        _require(part, contract, f"mask logits in training, of {rows} rows,", few, (rows, s, s), gradient=False)
    for name, buffer in head.named_buffers():
        if not buffer.isfinite().all():
            raise _broken(part, contract, f"spoils its statistics where a batch has no objects: {name} becomes NaN")


def _classification(part: Used, criterion: Criterion) -> None:
    classification = _another(criterion.classification)
    logits = torch.randn(2, 2, QUERIES, CLASSES, requires_grad=True)
    wanted = torch.zeros(logits.shape)
    for matched in (0, 1):
        wanted[:, 0, 0, 1] = matched
        _require(part, "ClassificationLoss", "a sum a stage", classification(logits, wanted), (2,))


def _loss_term(part: Used, term: Any) -> None:
    for counts in ([2, 0], [0, 0]):
        stages, targets, sizes = _made_up(counts)
        pairs = sum(counts)
        matches = Matches(
            torch.zeros(pairs, dtype=torch.int64),
            torch.arange(pairs).expand(len(stages), -1),
            torch.arange(pairs).expand(len(stages), -1),
        )
        masks = [torch.randn(pairs, 28, 28, requires_grad=True) for _ in stages]
        made = term(stages, masks, matches, targets, sizes)
        _require(part, "LossTerm", f"a sum a stage, of {pairs} pairs,", made, (len(stages),), gradient=pairs > 0)


def _matching_cost(part: Used, cost: Any) -> None:
    for counts in ([2, 0], [0, 0]):
        stages, targets, sizes = _made_up(counts)
        logits, boxes = (torch.stack([getattr(stage, name) for stage in stages]) for name in ("logits", "boxes"))
        labels, wanted = targets.labels.new_zeros(2, max(counts)), targets.boxes.new_zeros(2, max(counts), 4)
        labels[0, :], wanted[0, :] = targets.labels, targets.boxes
        with torch.no_grad():
            made = cost(logits, boxes, labels, wanted, sizes)
        shape = (*logits.shape[:3], max(counts))
        if isinstance(made, Tensor) and made.shape == torch.Size(shape):
            made = made[:, :1]  # the other image has no objects
            shape = (len(stages), 1, QUERIES, max(counts))
        _require(part, "MatchingCost", "costs", made, shape, gradient=False)


def _made_up(counts: list[int]) -> tuple[list[StageOutput], Targets, Tensor]:
    """Outputs of two stages for two images, ground truth, and sizes."""
    boxes = torch.tensor([[4.0, 4.0, 40.0, 30.0], [8.0, 8.0, 16.0, 20.0], [0.0, 0.0, 96.0, 64.0]]).expand(2, -1, -1)
    stages = []
    for _ in range(2):
        logits, queries = torch.randn(2, QUERIES, CLASSES), torch.randn(2, QUERIES, 8)
        made = (logits, boxes.clone(), queries, queries.clone())
        stages.append(StageOutput(*(tensor.requires_grad_() for tensor in made)))
    objects = sum(counts)
    wanted = torch.tensor([[6.0, 4.0, 44.0, 30.0], [8.0, 10.0, 20.0, 20.0]])[:objects]
    masks = torch.ones(objects, 16, 16, dtype=torch.uint8)
    targets = Targets(wanted, torch.arange(objects), masks, wanted.clone(), counts)
    return stages, targets, torch.tensor([SIZE, SIZE])


def _augmentation(part: Used, nodes: dict[str, Any]) -> None:
    steps = Steps({_name(part): nodes[_name(part)]})
    image = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    square = np.array([[10.0, 10.0], [40.0, 10.0], [40.0, 40.0], [10.0, 40.0]])
    one = Instances(np.array([[10.0, 10.0, 40.0, 40.0]]), np.zeros(1, np.int64), [[square]])
    for objects in (one, Instances.none()):
        made = [steps(image.copy(), copy.deepcopy(objects), np.random.default_rng(1)) for _ in range(2)]
        if not np.array_equal(made[0][0], made[1][0]) or not np.array_equal(made[0][1].boxes, made[1][1].boxes):
            raise _broken(
                part, "AugmentationStep", "gives another result with the same randomness: it must come from `rng` alone"
            )
        pixels, found = made[0]
        if min(pixels.shape) < 1 or not len(found.boxes) == len(found.labels) == len(found.outlines):
            counts = len(found.boxes), len(found.labels), len(found.outlines)
            raise _broken(
                part,
                "AugmentationStep",
                f"gives an image {pixels.shape} and objects with {counts} boxes, labels, outlines",
            )


def _metric(part: Used, metrics: OwnMetrics | None) -> None:
    if metrics is None:
        return
    square = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    one = Detections(square, torch.ones(1), torch.zeros(1, dtype=torch.int64), torch.ones(1, 28, 28), SIZE)
    first = metrics.content["images"][0]
    one = replace(one, size=(first["height"], first["width"]))
    for found in (one, one.above(2)):
        metrics.reset()
        fault = metrics.update([first["id"]], [found])
        if fault:
            raise fault
        metrics.compute()
    metrics.reset()
