"""What a run writes to its loggers: which steps, and what the numbers of a row are of."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import random_batch, small_model
from pytorch_lightning.loggers import Logger
from test_trace import fit
from torch import Tensor

from queryinst.config import OptimizerConfig, PostprocessConfig, ScheduleConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.lightning import module as file
from queryinst.lightning.module import QueryInstModule, Training

TERMS = ("class", "l1", "giou", "mask")
OPTIMIZER = OptimizerConfig(lr=1e-3, lr_batch=4, backbone_factor=0.5)
SCHEDULE = ScheduleConfig(epochs=2, milestones=[1], warmup_iterations=3, warmup_factor=0.1)


class Rows(Logger):
    """Keeps what it is given, by step."""

    name = version = "rows"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.rows = dict[int, dict[str, float]]()

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step not in self.rows, "a row a step"
        assert all(type(value) is float for value in metrics.values())
        self.rows[int(step or 0)] = metrics

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


class Watched(QueryInstModule):
    """Keeps the losses and the gradients of every step, and a checkpoint of one."""

    def __init__(self, folder: Path) -> None:
        training = Training(Criterion(CriterionConfig()), OPTIMIZER, SCHEDULE, 2, 4)
        torch.manual_seed(0)
        super().__init__(small_model(), {}, PostprocessConfig(), training, {"run": "x"}, folder)
        self.tables, self.norms = list[Tensor](), list[float]()

    def losses(self, batch: Any) -> Tensor:
        table = super().losses(batch)
        self.tables.append(table.detach())
        return table

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        gradients = [p.grad.double().square().sum() for p in self.parameters() if p.grad is not None]
        self.norms.append(float(torch.stack(gradients).sum().sqrt()))
        super().on_before_optimizer_step(optimizer)


class SaveAt(pl.Callback):
    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@dataclass
class Run:
    module: Watched
    rows: dict[int, dict[str, float]]
    checkpoint: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Two epochs of four steps, logged every second one, and a checkpoint from after the sixth."""
    folder = tmp_path_factory.mktemp("run")
    module, logger, path = Watched(folder), Rows(), folder / "six.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "LOG_EVERY", 2)
        fit(module, [random_batch([2, 1])] * 4, SaveAt(6, path), max_epochs=2, logger=logger)
        yield Run(module, logger.rows, path)


def test_a_row_is_the_mean_since_the_one_before_within_an_epoch(run: Run):
    module, rows = run.module, run.rows
    terms = [f"train/stage_{stage}/loss_{term}" for stage in (1, 2) for term in TERMS]
    assert list(rows) == [0, 2, 4, 6]
    assert all(list(row) == ["train/loss", "train/lr", *terms, "train/grad_norm"] for row in rows.values())
    for step, since in {0: [0], 2: [1, 2], 4: [4], 6: [5, 6]}.items():
        mean = torch.stack([module.tables[one] for one in since]).mean(0)
        row = rows[step]
        assert row["train/loss"] == pytest.approx(float(mean.sum()), rel=1e-6)
        for stage, losses in enumerate(mean.tolist(), 1):
            assert [row[f"train/stage_{stage}/loss_{term}"] for term in TERMS] == pytest.approx(losses, rel=1e-6)
        assert row["train/grad_norm"] == pytest.approx(module.norms[step], rel=1e-5)
    told = module.trainer.callback_metrics
    assert {name: float(value) for name, value in told.items()} == pytest.approx({"train/loss": row["train/loss"]})


def test_a_row_has_the_learning_rate_of_its_step_outside_the_backbone(run: Run):
    """2 images of 4: half of 1e-3. A tenth at first, all of it from step 3; a tenth of it in the second epoch."""
    rates = {step: row["train/lr"] for step, row in run.rows.items()}
    assert rates == pytest.approx({0: 5e-5, 2: 5e-4 * 0.7, 4: 5e-5, 6: 5e-5})


def test_a_resumed_run_writes_the_rows_that_it_would_have_written(run: Run, tmp_path: Path):
    """The losses since the last row are in the checkpoint: the next row is a mean over steps of both processes."""
    kept = torch.load(run.checkpoint, weights_only=True)["recent_losses"]
    assert torch.equal(torch.stack(kept), run.module.tables[5][None])
    logger = Rows()
    fit(Watched(tmp_path), [random_batch([2, 1])] * 4, max_epochs=2, logger=logger, resume=run.checkpoint)
    assert logger.rows == {6: run.rows[6]}
