"""Several processes are one process with the batch of all of them: losses, weights, metrics, mistakes."""

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from conftest import SMALL, random_batch, small_model
from torch import Tensor, nn

from queryinst.config import ModelConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.data.collate import FixedSampler, join
from queryinst.errors import SaidElsewhere, UserError
from queryinst.evaluation.coco import CocoEvaluator
from queryinst.lightning import groups
from queryinst.models.signals import Signals
from queryinst.ops import ranks
from queryinst.signals_config import DenoisingConfig, OneToManyConfig, RecollectionConfig, SignalsConfig
from queryinst.structures import Batch, Detections
from queryinst.video_config import AssociationConfig

WORLD, STEPS, IMAGES = 3, 3, 21
# Objects of each image of each process's pair. Tracks are counted from 0 in each image, so that a pair has some in
# common; with "apart" in the name, that of the first process has none.
CASES = {
    "both have objects": ([2, 1], [4, 0]),
    "one has none": ([3, 2], [0, 0]),
    "none at all": ([0, 0], [0, 0]),
    "one has nothing in common, apart": ([2, 2], [3, 2]),
    "one has none, signals": ([3, 2], [0, 0]),
    "none at all, signals": ([0, 0], [0, 0]),
}
# Without noise and negatives the branch for denoising is the same on any number of processes.
SIGNALS = SignalsConfig(
    DenoisingConfig(number=1, box_noise=0.0, label_noise=0.0, negatives=False),
    OneToManyConfig(num_proposals=9, times=2),
    RecollectionConfig(),
)


MODEL: dict[str, Any] = {"look_forward_twice": True, "share_stages": True, "mask_quality": True, "proposals": "pyramid"}
CRITERION: dict[str, Any] = {"class_target": "mask", "class_cost_overlap": 0.5, "mask_entropy_weight": 5.0}


class Losses(nn.Module):
    """A training step's losses as one forward, which is what DistributedDataParallel wraps.

    BatchNorm, of the backbone and of the mask heads, is in evaluation mode: its statistics over half a batch are
    others than over the whole one, and synchronised BatchNorm needs GPUs.
    """

    def __init__(self, signals: SignalsConfig) -> None:
        super().__init__()
        torch.manual_seed(0)
        model, criterion = (MODEL, CRITERION) if signals == SIGNALS else ({}, {})
        self.model = small_model(association=AssociationConfig(width=8), **model).double()
        self.signals = Signals(signals, ModelConfig(**SMALL), 3, self.model.stages[0].box).double()
        self.criterion = Criterion(CriterionConfig(**criterion))
        for norm in self.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.eval()

    def forward(self, batch: Batch) -> Tensor:
        further = self.signals(batch.targets, batch.sizes)
        output = self.model(batch.images, batch.sizes, further)
        assigned = groups.match(self.criterion, further, output, batch)
        return groups.judge(self.model, self.criterion, further, output, assigned, batch).losses


def signals_of(case: str) -> SignalsConfig:
    return SIGNALS if "signals" in case else SignalsConfig()


def part(counts: list[int], seed: int, apart: bool = False) -> Batch:
    """A pair of frames with their objects."""
    batch = random_batch(counts, seed=seed)
    targets = batch.targets
    tracks = torch.cat([torch.arange(count) + 100 * image * apart for image, count in enumerate(counts)])
    wide = replace(targets, boxes=targets.boxes.double(), mask_boxes=targets.mask_boxes.double(), tracks=tracks)
    return replace(batch, targets=wide)


def parts_of(name: str) -> list[list[Batch]]:
    """The batch of each process, step by step."""
    return [
        [part(own, 10 * step + place, "apart" in name and place == 0) for place, own in enumerate(CASES[name])]
        for step in range(STEPS)
    ]


def whole(parts: list[Batch]) -> Batch:
    first, second = parts
    images, sizes = torch.cat([first.images, second.images]), torch.cat([first.sizes, second.sizes])
    return Batch(images, sizes, sizes, list(range(len(images))), join([first.targets, second.targets]), [])


def steps(losses: nn.Module, batches: list[Batch]) -> list[Tensor]:
    """A few steps of AdamW; the losses of each."""
    adamw = torch.optim.AdamW(losses.parameters(), lr=1e-3)
    table = []
    for batch in batches:
        adamw.zero_grad()
        terms = losses(batch)
        terms.sum().backward()
        assert all(parameter.grad is not None for parameter in losses.parameters()), "every parameter takes part"
        adamw.step()
        table.append(ranks.mean(terms.detach()))
    return table


def training(rank: int) -> dict[str, Any]:
    """With two processes: the losses and weights after a few steps of each case, and of one process with both parts."""
    found: dict[str, Any] = {}
    for name in CASES:
        parts = parts_of(name)
        wrapped = nn.parallel.DistributedDataParallel(Losses(signals_of(name)), find_unused_parameters=False)
        table = steps(wrapped, [of_step[rank] for of_step in parts])
        found[name] = {"losses": table, "weights": wrapped.module.state_dict()}
    return found


def alone() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in CASES:
        parts = parts_of(name)
        losses = Losses(signals_of(name))
        found[name] = {
            "losses": steps(losses, [whole(of_step) for of_step in parts]),
            "weights": losses.state_dict(),
        }
    return found


def truth() -> dict[str, Any]:
    """One object an image, of two classes, so that missing or repeating an image changes AP."""
    boxes = [[5 + image, 6, 12, 10 + image % 5] for image in range(IMAGES)]
    corners = [[x, y, x + w, y, x + w, y + h, x, y + h] for x, y, w, h in boxes]
    return {
        "images": [{"id": image, "file_name": f"{image}.png", "height": 50, "width": 60} for image in range(IMAGES)],
        "categories": [{"id": 4, "name": "a"}, {"id": 8, "name": "b"}],
        "annotations": [
            {
                "id": i + 1,
                "image_id": i,
                "category_id": (4, 8)[i % 2],
                "bbox": boxes[i],
                "area": boxes[i][2] * boxes[i][3],
            }
            | {"iscrowd": 0, "segmentation": [corners[i]]}
            for i in range(IMAGES)
        ],
    }


def evaluation(rank: int, world: int) -> dict[str, float]:
    """The metrics of detections that differ from image to image, of which this process has made its part."""
    evaluator = CocoEvaluator(truth())
    for _, image in FixedSampler(IMAGES, rank, world):
        x, y, w, h = truth()["annotations"][image]["bbox"]
        shift = image % 4
        box = torch.tensor([[x + shift, y, x + w + shift, y + h]], dtype=torch.float32)
        score, label = (
            torch.tensor([0.3 + 0.03 * (image * 5 % IMAGES)]),
            torch.tensor([int(image % 7 == 3) ^ image % 2]),
        )
        evaluator.update([image], [Detections(box, score, label, torch.ones(1, 28, 28), (50, 60))])
    return evaluator.compute()


def mistake(rank: int) -> str:
    """What a process hears of the mistake that the second one made."""
    with ranks.together(torch.device("cpu")):
        pass
    try:
        with ranks.together(torch.device("cpu")):
            if rank == 1:
                raise UserError("image 7 is broken")
    except SaidElsewhere as error:
        return f"silent: {error}"
    except UserError as error:
        return f"said: {error}"
    return "nothing"


def process(rank: int, folder: Path) -> None:
    """One of three processes; what it finds goes into a file."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    # Twelve digits instead of six: AdamW turns a rounding error in a gradient of nearly 0 into a whole step.
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign, assignment]

    def group(name: str, world: int, task: Callable[[], Any]) -> Any:
        """The task's answer among the first `world` processes; None in the others."""
        if rank >= world:
            return None
        dist.init_process_group("gloo", init_method=f"file://{folder}/{name}", rank=rank, world_size=world)
        try:
            return task()
        finally:
            dist.destroy_process_group()

    found = {
        "one": group("one", 1, lambda: evaluation(rank, 1)),
        "two": group("two", 2, lambda: evaluation(rank, 2)),
        "three": group("three", 3, lambda: evaluation(rank, 3)),
        "mistake": group("mistake", 3, lambda: mistake(rank)),
        "training": alone() if rank == 2 else group("training", 2, lambda: training(rank)),
    }
    (folder / f"found-{rank}").write_bytes(pickle.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the three processes found; started once, for starting takes longer than all they do."""
    folder = tmp_path_factory.mktemp("ranks")
    # A server that has imported torch, and has run nothing yet, is forked thrice: as clean as three fresh processes.
    torch.multiprocessing.set_forkserver_preload(["torch._dynamo", "pycocotools.cocoeval", "torchvision", "cv2"])
    torch.multiprocessing.start_processes(process, (folder,), nprocs=WORLD, start_method="forkserver")
    return [pickle.loads((folder / f"found-{rank}").read_bytes()) for rank in range(WORLD)]


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_as_one_with_both_batches(found: list[dict[str, Any]], case: str):
    expected = found[2]["training"][case]
    assert expected["losses"][0].sum() > 0
    for rank in (0, 1):
        got = found[rank]["training"][case]
        for ours, theirs in zip(got["losses"], expected["losses"], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        assert got["weights"].keys() == expected["weights"].keys()
        for name, weight in got["weights"].items():
            torch.testing.assert_close(weight, expected["weights"][name], rtol=1e-9, atol=1e-9)


def test_evaluation_counts_every_image_once_for_one_two_and_three_processes(found: list[dict[str, Any]]):
    expected = found[0]["one"]
    assert 0.05 < expected["segm_AP"] < 0.95
    for answers in ([found[0]["two"], found[1]["two"]], [of_rank["three"] for of_rank in found]):
        for metrics in answers:
            assert json.dumps(metrics) == json.dumps(expected), "to the last digit"


def test_a_mistake_of_one_process_ends_all_and_is_said_once(found: list[dict[str, Any]]):
    heard = [of_rank["mistake"] for of_rank in found]
    sentence = "image 7 is broken (on device 1)"
    assert heard == [f"said: {sentence}", f"silent: {sentence}", f"silent: {sentence}"]
