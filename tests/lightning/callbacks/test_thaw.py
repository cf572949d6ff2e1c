"""Stages that train from some epoch on: exactly resumed before, at and after it, and averaged over processes."""

import itertools
import os
import signal
import socket
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT, SMALL, TINY, Run, Write, random_batch
from pytorch_lightning.strategies import DDPStrategy, FSDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from queryinst.config import (
    BackboneConfig,
    CriterionConfig,
    ModelConfig,
    OptimizerConfig,
    PostprocessConfig,
    ScheduleConfig,
)
from queryinst.criterion.criterion import Criterion
from queryinst.errors import UserError
from queryinst.lightning import trainer
from queryinst.lightning.callbacks.thaw import Thaw, thawing
from queryinst.lightning.module import QueryInstModule, Training
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Batch

sys.path.append(str(ROOT / "experiments" / "exact_resume"))
from kill import outcome, same

BRIEF = ["callbacks.pictures=0", "trainer.max_train_batches=2", "trainer.max_val_batches=1", "optimizer.clip_norm=0.5"]
COMMAND = [*TINY, *BRIEF, "backbone.frozen_stages=1", "backbone.thaw=1"]
SENTENCE = "backbone   from epoch 2 on its frozen stages train too (backbone.thaw)\n"
FROZEN, LATER = "model.backbone.layers.0.0.conv1.weight", "model.backbone.layers.1.0.conv1.weight"


def last(workplace: Path) -> dict[str, Any]:
    (folder,) = workplace.glob("outputs/*")
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_stopped_after_every_step_it_ends_as_if_never_stopped(
    workplace: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    command = [*COMMAND, "trainer.ema=0.9", "optimizer.layer_decay=0.8"]
    code, text = run("train", *command)
    assert code == 0, text
    assert text.count(SENTENCE) == 1
    expected = outcome(workplace)
    assert expected["global_step"] == 4

    (workplace / "outputs").rename(workplace / "before")
    kept: list[dict[str, torch.Tensor]] = []
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "_limit", lambda extra: 0.0)
        for step in (1, 2, 3, 4):
            code, text = run("train", *command)
            assert code == 128 + signal.SIGALRM, text
            assert text.count(SENTENCE) == (step > 2)
            content = last(workplace)
            assert content["global_step"] == step
            kept.append(content.get("current_model_state", content["state_dict"]))
    code, text = run("train", *command)
    assert code == 0, text
    assert not same(outcome(workplace), expected)

    moved = {name: [not torch.equal(a[name], b[name]) for a, b in itertools.pairwise(kept)] for name in kept[0]}
    assert moved[LATER] == [True, True, True]
    assert moved[FROZEN] == [False, True, True]
    for name in ("weight", "running_mean"):  # in training mode as `norm` says
        assert moved[f"model.backbone.layers.0.0.bn1.{name}"] == [False, True, True]


class Net(nn.Module):
    """A backbone of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.rest = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.stem.requires_grad_(False)


class Thaws(Net):
    def thaw(self) -> None:
        self.stem.requires_grad_(True)


class Fails(Net):
    def thaw(self) -> None:
        raise KeyError("stem")


class Keeps(Net):
    def thaw(self) -> None:
        self.rest.requires_grad_(True)


def test_what_will_thaw_is_seen_on_a_copy():
    backbone = Thaws()
    assert thawing(backbone) == {"stem.weight", "stem.bias"}
    assert not backbone.stem.weight.requires_grad


@pytest.mark.parametrize(
    ("backbone", "sentence"),
    [
        (
            Net(),
            "backbone.thaw needs a backbone that can thaw, and Net has no method `thaw()` (queryinst/parts.py: "
            "BackbonePart): inherit queryinst.models.backbone.Backbone, or leave backbone.thaw out",
        ),
        (Fails(), "backbone.thaw: Fails fails in thaw(): KeyError: 'stem' ("),
        (Keeps(), "backbone.thaw: there is nothing frozen in Keeps that its thaw() lets train; leave it out"),
    ],
)
def test_a_backbone_that_cannot_thaw_is_one_sentence(backbone: nn.Module, sentence: str):
    with pytest.raises(UserError) as caught:
        thawing(backbone)
    assert str(caught.value).startswith(sentence)


def test_it_is_said_before_anything_is_trained(workplace: Path, run: Run, write: Write):
    write(
        "my_net.py",
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    channels = (2, 2, 2, 2)\n"
        "    def __init__(self, config):\n"
        "        super().__init__()\n"
        "        first, rest = nn.Conv2d(3, 2, 4, 4), [nn.Conv2d(2, 2, 4, 2, 1) for _ in range(3)]\n"
        "        self.stages = nn.ModuleList([first, *rest])\n"
        "        self.stages[0].requires_grad_(False)\n"
        "    def forward(self, x):\n"
        "        return [x := stage(x) for stage in self.stages]\n",
    )
    code, text = run("train", *COMMAND, "backbone.name=my_net:Net")
    assert (code, text.count("\n")) == (2, 1), text
    assert "and Net has no method `thaw()`" in text
    assert not list(workplace.glob("outputs/*"))


class Other(DDPStrategy):
    """One of those that inherit it and wrap in a way of their own."""


@pytest.mark.parametrize("strategy", [FSDPStrategy, Other])
def test_a_strategy_that_cannot_is_one_sentence(strategy: type[DDPStrategy]):
    fake = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    fake.strategy.__class__ = strategy
    with pytest.raises(UserError, match=rf"^backbone.thaw cannot be had with {strategy.__name__}, which decides at"):
        Thaw(1, print).setup(fake, pl.LightningModule(), "fit")


class Watch(pl.Callback):
    """Which modules, wrapped for several processes, have trained."""

    def __init__(self) -> None:
        self.wrapped, self.alive = list[Any](), list[bool]()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.wrapped.append(weakref.ref(trainer.strategy.model))

    def on_train_end(self, *_: Any) -> None:
        self.alive = [reference() is not None for reference in self.wrapped]


def trained(rank: int, folder: Path, **settings: Any) -> tuple[dict[str, torch.Tensor], list[bool]]:
    """Weights after two epochs of two steps, the second thawed; and whether what trained in a step is still there."""
    torch.manual_seed(0)
    backbone = BackboneConfig(name="tiny", frozen_stages=1, norm="fixed")
    model = QueryInst(ModelConfig(**SMALL), backbone, 3)
    parts = (Criterion(CriterionConfig()), OptimizerConfig(lr=1e-3, backbone_factor=1.0), ScheduleConfig())
    training = Training(*parts, 2, 2, thawing=thawing(model.backbone))
    module = QueryInstModule(model, {}, PostprocessConfig(), training, {}, folder)
    watch = Watch()
    trainer.quiet()
    silent: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    made = pl.Trainer(
        **silent,
        **settings,
        accelerator="cpu",
        max_epochs=2,
        limit_val_batches=0,
        log_every_n_steps=1,
        gradient_clip_val=0.1,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[Thaw(1, lambda text: None), watch],
    )
    batches = [random_batch([2, 1], seed=10 * rank + step) for step in range(2)]
    loader: DataLoader[Batch] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    made.fit(module, loader, loader)
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    return weights, watch.alive


def process(rank: int, folder: Path, port: int) -> None:
    """One of two processes; what it has learned goes into a file."""
    torch.set_num_threads(1)
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    strategy = DDPStrategy(process_group_backend="gloo")
    torch.save(trained(rank, folder, devices=2, strategy=strategy), folder / f"learned-{rank}")


def test_two_processes_learn_the_same(tmp_path: Path):
    """Of different images; where gradients of what has thawed were not averaged, each would have weights of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.set_forkserver_preload(["torch._dynamo", "pytorch_lightning", "torchvision", "cv2"])
    torch.multiprocessing.start_processes(process, (tmp_path, port), nprocs=2, start_method="forkserver")
    (first, alive), (second, _) = (torch.load(tmp_path / f"learned-{rank}", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    alone, _ = trained(0, tmp_path)
    name = FROZEN.removeprefix("model.")
    assert not torch.equal(first[name], alone[name]), "the images of both count"
    assert alive == [False, False, True, True], "what trained before the thaw is gone, with its memory"
