"""What is timed: a training step as `lightning/module.py` makes it, of generated images and objects."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from queryinst.config import BackboneConfig, ModelConfig, OptimizerConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.lightning.optimizer import optimizer
from queryinst.models.compiled import compile_parts
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import FeaturePyramid
from queryinst.structures import Batch, Targets

FORWARD = ("backbone", "FPN", "stages", "matching", "masks", "losses")
PARTS = (*FORWARD, "backward: heads", "backward: FPN", "backward: backbone", "norm and clipping", "AdamW")
CLASSES, MASK_SIDE = 80, 112


class Case(NamedTuple):
    """What is measured."""

    proposals: int
    precision: str  # fp32 or bf16
    compiled: bool
    images: int
    height: int
    width: int
    objects: int
    backbone: str
    device: str
    threads: int | None
    rounds: int


class Step:
    """A training step as `lightning/module.py` makes it, without logging; `step(clock)` tells where the time goes."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.device = torch.device(case.device)
        model = ModelConfig(num_proposals=case.proposals)
        self.model = QueryInst(model, BackboneConfig(name=case.backbone), CLASSES).to(self.device).train()
        self.model.queries.boxes.data = _spread(case.proposals).to(self.device)
        if case.compiled:
            compile_parts(self.model)
        self.batch = make_batch(case).to(self.device)
        self.criterion, config = Criterion(CriterionConfig()), OptimizerConfig()
        self.adamw, self.clip_norm = optimizer(self.model, config, case.images), config.clip_norm
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=case.precision == "bf16")

    def __call__(self, clock: Callable[[str], None] | None = None) -> Tensor:
        """The (S, 4) losses."""
        done = clock or (lambda part: None)
        losses = self.forward(done, timed=clock is not None)
        losses.sum().backward()
        done("backward: backbone")
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.clip_norm, norm)
        done("norm and clipping")
        self.adamw.step()
        self.adamw.zero_grad()
        done("AdamW")
        return losses.detach()

    def forward(self, done: Callable[[str], None], timed: bool = False) -> Tensor:
        """The (S, 4) losses with their graph, and as in training nothing else that outlives them."""
        batch, model = self.batch, self.model
        with self.autocast:
            maps = model.backbone(model.normalise(batch.images, batch.sizes))
            done("backbone")
            levels = model.neck(maps)
            done("FPN")
            output = model.query(FeaturePyramid(levels, model.aligned), batch.sizes)
            done("stages")
            matches = self.criterion.match(output.stages, batch.targets, batch.sizes)
            done("matching")
            masks = model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels))))
            done("masks")
            losses = self.criterion(output.stages, list(masks.values()), matches, batch.targets, batch.sizes)
            done("losses")
        if timed:
            _when_known(levels, lambda: done("backward: heads"))
            _when_known(maps, lambda: done("backward: FPN"))
        return losses


def _when_known(tensors: list[Tensor], call: Callable[[], None]) -> None:
    """Call once the gradients of all of these that need one are computed."""
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    torch.autograd.graph.register_multi_grad_hook(wanted, lambda gradients: call())


def _spread(proposals: int) -> Tensor:
    """(N, 4) normalised cxcywh of all sizes from 1/25 of the image up, so that all levels of the pyramid are read."""
    generator = torch.Generator().manual_seed(0)
    side = torch.empty(proposals, 2).uniform_(-3.2, 0, generator=generator).exp()
    return torch.cat([torch.rand(proposals, 2, generator=generator), side], dim=1)


def make_batch(case: Case) -> Batch:
    """Images of noise with objects anywhere, of all sizes, their masks half filled."""
    generator = torch.Generator().manual_seed(0)
    extent, total = torch.tensor([case.width, case.height]), case.images * case.objects
    side = torch.empty(total, 2).uniform_(-3.2, 0, generator=generator).exp() * extent
    corner = torch.rand(total, 2, generator=generator) * (extent - side)
    boxes = torch.cat([corner, corner + side], dim=1)
    masks = (torch.rand(total, MASK_SIDE, MASK_SIDE, generator=generator) < 0.5).to(torch.uint8)
    labels = torch.randint(CLASSES, (total,), generator=generator)
    images = torch.randint(256, (case.images, 3, case.height, case.width), generator=generator, dtype=torch.uint8)
    sizes = torch.tensor([[case.height, case.width]]).repeat(case.images, 1)
    targets = Targets(boxes, labels, masks, boxes, [case.objects] * case.images)
    return Batch(images, sizes, sizes, list(range(case.images)), targets, [])
