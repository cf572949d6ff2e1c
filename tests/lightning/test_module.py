"""The conductor: what it logs, and what it does when a loss is not finite."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import random_batch, small_model

from queryinst.config import OptimizerConfig, PostprocessConfig, ScheduleConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.errors import UserError
from queryinst.evaluation.coco import CocoEvaluator, to_coco
from queryinst.lightning.module import QueryInstModule, Training
from queryinst.models.postprocess import detect


def module(folder: Path, content: dict[str, Any] | None = None) -> QueryInstModule:
    evaluators = {-1: CocoEvaluator(content), 0: CocoEvaluator(content)} if content else {}
    training = Training(Criterion(CriterionConfig()), OptimizerConfig(), ScheduleConfig(), 2, 10)
    made = QueryInstModule(small_model(), evaluators, PostprocessConfig(), training, {"run": "x"}, folder)
    made.logged = {}  # type: ignore[assignment]
    made.log_dict = lambda values, **_: made.logged.update(values)  # type: ignore[assignment, method-assign, operator]
    made.log = lambda name, value, **_: None  # type: ignore[assignment, method-assign]
    logger = SimpleNamespace(log_metrics=lambda metrics, step: made.logged.update(metrics))  # type: ignore[operator]
    steps = SimpleNamespace(param_groups=[{"lr": 1}])
    made._trainer = SimpleNamespace(
        loggers=[logger], global_step=0, global_rank=0, optimizers=[steps], precision="32-true"
    )
    return made


def test_losses_are_logged_by_stage_and_term(tmp_path: Path):
    conductor = module(tmp_path)
    conductor._trainer.precision = "32-true"  # type: ignore[union-attr, misc, assignment]
    loss = conductor.training_step(random_batch([2, 1]), 0)
    loss.backward()
    adamw: Any = None
    conductor.on_before_optimizer_step(adamw)
    logged: dict[str, float] = conductor.logged  # type: ignore[assignment]
    terms = [f"train/stage_{stage}/loss_{term}" for stage in (1, 2) for term in ("class", "l1", "giou", "mask")]
    assert set(terms) <= set(logged)
    assert logged["train/loss"] == pytest.approx(loss.item())
    assert sum(logged[term] for term in terms) == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize("where", ["weights", "ground truth"])
def test_a_loss_that_is_not_finite_is_named_and_can_be_repeated(tmp_path: Path, where: str):
    conductor, batch = module(tmp_path), random_batch([2, 1])
    if where == "weights":
        conductor.model.stages[1].box.reg.bias.data[0] = float("nan")
        expected = r"stage 2 gives NaN or infinite boxes at step 0 \(image 0\)"
    else:
        batch.targets.mask_boxes[:] = torch.tensor([0.0, 0, 64, 64])
        batch.targets.boxes[0, 0] = float("inf")
        expected = r"the ground truth has NaN or infinite boxes at step 0 \(image 0\)"
    with pytest.raises(UserError, match=expected):
        conductor.training_step(batch, 0)
    (kept,) = tmp_path.glob("failed-step-0.pt")
    content = torch.load(kept, weights_only=True)
    assert torch.equal(content["images"], batch.images)
    assert content["image_ids"] == [0, 1]
    assert content["targets"]["counts"] == [2, 1]
    assert content["state_dict"].keys() == conductor.model.state_dict().keys()


def test_a_gradient_that_is_not_finite_is_named_before_it_reaches_the_weights(tmp_path: Path):
    conductor, batch = module(tmp_path), random_batch([2, 1])
    conductor.trainer = SimpleNamespace(precision="32-true", global_step=7, global_rank=0)  # type: ignore[assignment]
    conductor._log_losses = lambda losses: None  # type: ignore[method-assign]
    conductor.training_step(batch, 0).backward()
    adamw: Any = None
    conductor.on_before_optimizer_step(adamw)
    weight = conductor.model.stages[0].box.reg.bias
    assert weight.grad is not None
    weight.grad[0] = float("nan")
    with pytest.raises(UserError, match=r"1 gradients are .*, first that of stages\.0\.box\.reg\.bias, at step 7"):
        conductor.on_before_optimizer_step(adamw)
    assert torch.load(tmp_path / "failed-step-7.pt", weights_only=True)["image_ids"] == [0, 1]
    conductor.trainer.precision = "16-mixed"  # type: ignore[misc, assignment]
    conductor.on_before_optimizer_step(adamw)


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_the_norm_of_all_gradients_is_logged_with_the_losses(tmp_path: Path, precision: str):
    conductor = module(tmp_path)
    conductor._trainer.precision = precision  # type: ignore[union-attr, misc, assignment]
    logged: dict[str, float] = conductor.logged  # type: ignore[assignment]
    adamw: Any = None
    for index in (0, 1):
        logged.clear()
        conductor.zero_grad()
        conductor.training_step(random_batch([2, 1]), index).backward()
        conductor.on_before_optimizer_step(adamw)
        assert ("train/grad_norm" in logged) == ("train/loss" in logged) == (index == 0)
        if index == 0:
            squares = [p.grad.double().square().sum() for p in conductor.parameters() if p.grad is not None]
            assert logged["train/grad_norm"] == pytest.approx(float(sum(squares)) ** 0.5, rel=1e-5)


@pytest.mark.parametrize(("layer", "tensor"), [("box.cls", "scores"), ("box.reg", "boxes"), ("mask.logits", "masks")])
def test_detections_that_are_not_finite_are_named(tmp_path: Path, shapes_source: Path, layer: str, tensor: str):
    content = json.loads((shapes_source / "annotations" / "instances_val.json").read_text())
    conductor = module(tmp_path, content).eval()
    conductor.model.stages[1].get_submodule(layer).bias.data[:] = float("nan")  # type: ignore[union-attr, operator]
    with torch.no_grad(), pytest.raises(UserError, match=f"stage 2 gives NaN or infinite {tensor} for image 0"):
        conductor.validation_step(random_batch([0, 0]), 0)


@pytest.mark.parametrize(("stage", "prefix", "other"), [(-1, "", "stage_1/"), (0, "stage_1/", "")])
def test_evaluation_of_the_last_and_of_an_earlier_stage(tmp_path: Path, stage: int, prefix: str, other: str):
    """What one stage finds is the ground truth: that one finds all of it, and the other one does not."""
    classes = [{"id": key, "name": f"class {key}"} for key in (3, 7, 8)]
    images = [{"id": key, "height": 48, "width": 80} for key in (4, 2)]
    content: dict[str, Any] = {"images": images, "categories": classes, "annotations": []}
    conductor, batch = module(tmp_path, content).eval(), random_batch([0, 0])
    batch = replace(batch, original_sizes=torch.tensor([[48, 80]] * 2), image_ids=[4, 2])
    with torch.no_grad():
        output = conductor.model(batch.images, batch.sizes)
    found = detect(conductor.model, output, batch.sizes, batch.original_sizes, PostprocessConfig(), stage)
    for image_id, detections in zip(batch.image_ids, found, strict=True):
        content["annotations"] += to_coco(image_id, detections, [3, 7, 8])
    conductor.on_validation_epoch_start()
    with torch.no_grad():
        conductor.validation_step(batch, 0)
    conductor.on_validation_epoch_end()
    assert conductor.metrics[f"{prefix}bbox_AP"] == pytest.approx(1)
    assert conductor.metrics[f"{other}bbox_AP"] < 0.9
    logged: dict[str, float] = conductor.logged  # type: ignore[assignment]
    assert logged == {f"val/{name}": value for name, value in conductor.metrics.items() if value == value}
    assert len(logged) < len(conductor.metrics), "what is not defined is not logged"


def test_an_unreadable_validation_image_ends_the_evaluation(tmp_path: Path):
    """Left out, it would only make the numbers wrong."""
    batch = replace(random_batch([0]), problems=["image 7 does not exist"])
    with pytest.raises(UserError, match="image 7 does not exist"):
        module(tmp_path).validation_step(batch, 0)


def test_checkpoints_carry_the_record(tmp_path: Path):
    checkpoint: dict[str, Any] = {}
    module(tmp_path).on_save_checkpoint(checkpoint)
    assert checkpoint == {"queryinst": {"run": "x"}, "recent_losses": []}


def test_the_losses_of_the_first_steps_do_not_change(tmp_path: Path):
    """Five real steps: matching, losses, clipping, AdamW, warm-up. The numbers change only on purpose."""
    conductor = module(tmp_path)
    parts = conductor.training_parts
    assert parts
    parts.optimizer = OptimizerConfig(lr=1e-2, lr_batch=2, clip_norm=1.0)
    parts.schedule = ScheduleConfig(warmup_iterations=2)
    chosen = conductor.configure_optimizers()
    adamw, schedule = chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]
    losses = []
    for step in range(5):
        adamw.zero_grad()
        loss = conductor.training_step(random_batch([2, 0, 3], seed=step % 2), step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(conductor.parameters(), parts.optimizer.clip_norm)
        adamw.step()
        schedule.step()
        losses.append(loss.item())
    assert losses == pytest.approx([33.3622, 29.2507, 28.4435, 25.6028, 27.0021], rel=5e-3)
