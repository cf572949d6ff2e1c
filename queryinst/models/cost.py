"""What a network costs: parameters, floating point operations, seconds."""

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from queryinst.config import PostprocessConfig
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst

REPEATS = 5  # of what is timed


def parameters(model: QueryInst) -> int:
    """Number of parameters, frozen ones too."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops(model: QueryInst, height: int, width: int, stages: int | None = None, proposals: int | None = None) -> int:
    """Floating point operations (a multiply-add is two) of one image up to its boxes, as PyTorch's counter knows them.

    Not counted are masks, RoIAlign, and the self-attention of queries, which is one operation of its own at test: 2 %
    of a stage as published.

    `stages`, `proposals`: how many; all by default. See `QueryInst.query`.
    """
    training, trainable = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)  # the counter's hooks trip over parameters with gradients under no_grad
    device = model.mean.device
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device)
    size = torch.tensor([[height, width]], device=device)
    with FlopCounterMode(display=False) as counter:
        model.query(model.pyramid(model.normalise(image, size)), size, stages, proposals)
    for parameter in trainable:
        parameter.requires_grad_(True)
    model.train(training)
    return counter.get_total_flops()


@torch.no_grad()
def seconds(
    model: QueryInst,
    config: PostprocessConfig,
    height: int,
    width: int,
    stages: int | None = None,
    proposals: int | None = None,
) -> float:
    """Median seconds from one image (bytes) to its detections, masks of 28 x 28 among them, after one that warms up.

    `stages`, `proposals`: how many; all by default. See `QueryInst.query`.
    """
    training, device = model.training, model.mean.device
    model.eval()
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8, device=device)
    size = torch.tensor([[height, width]], device=device)
    spent = []
    for _ in range(REPEATS + 1):
        begin = time.perf_counter()
        output = model.query(model.pyramid(model.normalise(image, size)), size, stages, proposals)
        detect(model, output, size, size, config)[0].cpu()  # waits for the device
        spent.append(time.perf_counter() - begin)
    model.train(training)
    return statistics.median(spent[1:])
