"""The steps of the conductor one by one: where their randomness comes from, what they leave, what they refuse."""

import contextlib
import copy
import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import random_batch, small_model
from test_module import module
from test_trace import batches, conductor, fit

from queryinst.config import OptimizerConfig, PostprocessConfig, ScheduleConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion.matcher import NonFiniteError
from queryinst.criterion_config import CriterionConfig
from queryinst.errors import UserError
from queryinst.lightning.broken import fault_of
from queryinst.lightning.module import LOG_EVERY, QueryInstModule, Training
from queryinst.models.postprocess import detect
from queryinst.ops import ranks
from queryinst.structures import Batch
from queryinst.video_config import AssociationConfig

ADVICE = "Usually optimizer.lr is too high for the batch, or a ground-truth box is broken"


def seed_of(seed: int, epoch: int, batch: int, rank: int) -> int:
    """What random numbers of a training step begin with."""
    made = QueryInstModule(torch.nn.Module(), {}, PostprocessConfig(), record={"config": {"seed": seed}})  # type: ignore[arg-type]
    made._trainer = SimpleNamespace(current_epoch=epoch, global_rank=rank)  # type: ignore[assignment]
    made.on_train_batch_start(random_batch([0]), batch)
    return torch.initial_seed()


def test_randomness_of_a_step_follows_from_seed_epoch_batch_and_device():
    places = list(itertools.product(range(2), repeat=4))
    seeds = [seed_of(*place) for place in places]
    assert len(set(seeds)) == len(places), "each of the four counts, and each by its place"
    assert [seed_of(*place) for place in places] == seeds, "and nothing else does"
    assert seed_of(1, 2, 3, 0) == 3822189696, "the same in every release: a run may be resumed by the next one"


def test_what_a_module_begins_with(tmp_path: Path):
    made = QueryInstModule(small_model(), {}, PostprocessConfig())
    assert (made.record, made.folder, made.seed, made.stages, made.metrics) == ({}, Path("."), 0, [], {})


def test_losses_are_those_of_the_criterion(tmp_path: Path):
    """Masks and embeddings are of the very rows that are matched."""
    criterion = Criterion(CriterionConfig())
    training = Training(criterion, OptimizerConfig(), ScheduleConfig(), 2, 10)
    model, batch = small_model(association=AssociationConfig(width=16)), random_batch([2, 2])
    batch = replace(batch, targets=replace(batch.targets, tracks=torch.tensor([0, 1, 1, 2])))
    losses = QueryInstModule(model, {}, PostprocessConfig(), training).losses(batch)
    output, targets = model(batch.images, batch.sizes), batch.targets
    matches = criterion.match(output.stages, targets, batch.sizes)
    rows = dict(enumerate(matches.rows(targets.labels)))
    masks, embeddings = model.predict_masks(output, rows), model.embed(output, rows)
    expected = criterion(output.stages, list(masks.values()), matches, targets, batch.sizes, list(embeddings.values()))
    assert expected.shape == (2, 5)
    assert torch.equal(losses, expected)


def test_a_batch_that_cannot_be_trained_on_ends_the_step(tmp_path: Path):
    made, looked = module(tmp_path), list[Batch]()
    assert made.training_parts

    def inspect(batch: Batch) -> None:
        looked.append(batch)
        raise UserError("too many broken images")

    made.training_parts.inspect = inspect
    batch = random_batch([1])
    with pytest.raises(UserError, match="^too many broken images$"):
        made.training_step(batch, 0)
    assert looked == [batch]


def test_copies_of_a_module_share_what_it_trains_with(tmp_path: Path):
    made = module(tmp_path)
    assert copy.deepcopy(made.training_parts) is made.training_parts


def test_a_mask_that_is_not_finite_is_named_at_once_on_a_cpu(tmp_path: Path):
    """No cost of the matching shows it. The first matched query is of the second image: the first has no object."""
    made = module(tmp_path)
    made.model.stages[1].mask.logits.bias.data[:] = float("nan")
    with pytest.raises(UserError, match=r"^stage 2 gives NaN or infinite masks at step 0 \(image 1\); "):
        made.training_step(random_batch([0, 1]), 0)


def test_the_losses_since_the_last_row_survive_a_resume(tmp_path: Path):
    first, resumed = module(tmp_path), module(tmp_path)
    batches, checkpoint, said = [random_batch([2, 1], seed=seed) for seed in range(4)], dict[str, Any](), list[Any]()
    losses = [first.training_step(batch, index).item() for index, batch in enumerate(batches[:3], 1)]
    first.on_save_checkpoint(checkpoint)
    resumed.on_load_checkpoint(checkpoint)
    resumed.log = lambda name, value, **_: said.append((name, float(value)))  # type: ignore[assignment, method-assign]
    losses.append(resumed.training_step(batches[3], LOG_EVERY).item())
    assert said == [("train/loss", pytest.approx(sum(losses) / 4, rel=1e-6))]


def test_a_checkpoint_from_before_has_no_such_losses(tmp_path: Path):
    made = module(tmp_path)
    made.on_load_checkpoint({})
    made.training_step(random_batch([1]), 1)
    assert len(made._recent) == 1


@pytest.mark.parametrize(("rank", "name"), [(0, "failed-step-5.pt"), (1, "failed-step-5-device-1.pt")])
def test_what_is_kept_of_a_step_that_failed(tmp_path: Path, rank: int, name: str):
    made, batch = module(tmp_path), random_batch([2, 1])
    batch.image_ids[:] = [41, 42]
    batch.targets.boxes[2, 0] = float("inf")
    made._trainer = SimpleNamespace(global_step=5, global_rank=rank)  # type: ignore[assignment]
    with pytest.raises(UserError) as caught:
        made.training_step(batch, 0)
    assert str(caught.value) == (
        "the ground truth has NaN or infinite boxes at step 5 (image 42); the batch and the weights are kept in "
        f"{tmp_path / name}. {ADVICE}"
    )
    content = torch.load(tmp_path / name, weights_only=True)
    weights = content.pop("state_dict")
    assert all(torch.equal(value, weights[key]) for key, value in made.model.state_dict().items())
    targets = content.pop("targets")
    assert content.keys() == {"images", "sizes", "image_ids", "record"}
    assert torch.equal(content["images"], batch.images)
    assert torch.equal(content["sizes"], batch.sizes)
    assert (content["image_ids"], content["record"]) == ([41, 42], {"run": "x"})
    for key, value in vars(batch.targets).items():
        assert torch.equal(targets[key], value) if isinstance(value, torch.Tensor) else targets[key] == value


@pytest.mark.parametrize("algorithm", [None, "norm"])
def test_gradients_are_clipped_by_the_norm_that_is_known(tmp_path: Path, algorithm: str | None):
    made, adamw = module(tmp_path), None
    made._norm = torch.tensor(8.0)
    for parameter in made.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.configure_gradient_clipping(adamw, 2.0, algorithm)  # type: ignore[arg-type]
    for parameter in made.parameters():
        torch.testing.assert_close(parameter.grad, torch.full_like(parameter, 0.25))


def largest(network: torch.nn.Module) -> float:
    return float(max(p.grad.abs().max() for p in network.parameters() if p.grad is not None))


class Gradients(pl.Callback):
    """The largest value of all gradients that the optimizer takes a step with, and how many there are after it."""

    def __init__(self) -> None:
        self.largest, self.left = list[float](), list[int]()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.optimizers[0].register_step_post_hook(lambda *_: self.largest.append(largest(pl_module)))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        self.left.append(sum(p.grad is not None for p in pl_module.parameters()))


def test_clipping_by_value_stays_possible_and_no_gradient_outlives_its_step(tmp_path: Path):
    seen = Gradients()
    fit(conductor(tmp_path), batches()[:2], seen, gradient_clip_val=1e-4, gradient_clip_algorithm="value")
    assert seen.largest == pytest.approx([1e-4] * 2)
    assert seen.left == [0, 0]


class Judge:
    """An evaluator that keeps what it is given."""

    def __init__(self, **metrics: float) -> None:
        self.metrics, self.found, self.resets = metrics, list[Any](), 0

    def update(self, image_ids: list[int], found: list[Any]) -> None:
        self.found.append((image_ids, found))

    def compute(self) -> dict[str, float]:
        return self.metrics

    def reset(self) -> None:
        self.found.clear()


def judged(folder: Path, **judges: Judge) -> Any:
    made: Any = module(folder).eval()
    made.evaluators = {{"last": -1, "first": 0}[name]: judge for name, judge in judges.items()}
    return made


@torch.no_grad()
def test_every_evaluator_gets_the_detections_of_its_stage(tmp_path: Path):
    last, first = Judge(), Judge()
    made, batch = judged(tmp_path, first=first, last=last), random_batch([0, 0])
    batch = replace(batch, original_sizes=torch.tensor([[32, 48], [128, 100]]))
    found = made.validation_step(batch, 0)
    output = made.model(batch.images, batch.sizes)
    for judge, stage in ((first, 0), (last, 1)):
        ((image_ids, given),) = judge.found
        assert image_ids == [0, 1]
        wanted = detect(made.model, output, batch.sizes, batch.original_sizes, made.postprocess, stage)
        for one, other in zip(given, wanted, strict=True):
            assert one.size == other.size
            assert torch.equal(one.boxes, other.boxes)
            assert torch.equal(one.scores, other.scores)
            assert torch.equal(one.masks, other.masks)
    assert found is last.found[0][1], "what the pictures show"
    assert torch.equal(made.stages[1].boxes, output.stages[1].boxes)
    made.on_validation_epoch_start()
    assert first.found == last.found == []


def test_metrics_are_named_by_stage_and_undefined_ones_are_not_logged(tmp_path: Path):
    nan = float("nan")
    made = judged(tmp_path, last=Judge(segm_AP=0.5, bbox_AP=0.25), first=Judge(segm_AP=0.125, bbox_AP=nan))
    made.on_validation_epoch_end()
    undefined = made.metrics.pop("stage_1/bbox_AP")
    assert undefined != undefined
    assert made.metrics == {"segm_AP": 0.5, "bbox_AP": 0.25, "stage_1/segm_AP": 0.125}
    assert made.logged == {"val/segm_AP": 0.5, "val/bbox_AP": 0.25, "val/stage_1/segm_AP": 0.125}
    nothing = judged(tmp_path, last=Judge(segm_AP=nan))
    nothing.on_validation_epoch_end()
    assert nothing.logged == {"val/segm_AP": 0.0}, "the monitored value is there always"


@torch.no_grad()
def test_of_several_processes_the_first_fault_is_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another process may have fewer batches than this one, and would wait for one that has left."""
    judge, batch = Judge(), random_batch([0])
    made = judged(tmp_path, last=judge)
    with monkeypatch.context() as patch:
        patch.setattr(ranks, "several", lambda: True)
        for problems in (["image 7 is broken", "image 8 is broken"], [], ["image 9 is broken"]):
            made.validation_step(replace(batch, problems=problems), 0)
    assert len(judge.found) == 1, "no detections of an image in place of another"
    with pytest.raises(UserError, match="^image 7 is broken$"):
        made.on_validation_epoch_end()
    made.on_validation_epoch_start()
    made.on_validation_epoch_end()


@torch.no_grad()
def test_a_stage_whose_detections_are_not_finite_is_named(tmp_path: Path):
    judge = Judge()
    made, batch = judged(tmp_path, first=judge), random_batch([0, 0])
    batch.image_ids[:] = [41, 42]
    made.model.stages[0].mask.logits.bias[:] = float("nan")
    with pytest.raises(UserError, match="^stage 1 gives NaN or infinite masks for image 41: the weights are broken"):
        made.validation_step(batch, 0)
    assert judge.found == []


def test_processes_meet_on_their_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between GPUs only what lies on them can be sent."""
    met, made, device = list[Any](), judged(tmp_path), torch.device("meta")
    monkeypatch.setattr(ranks, "together", lambda place: met.append(place) or contextlib.nullcontext())
    made._device = device
    made.on_validation_epoch_end()
    with made._together(random_batch([0])):
        pass
    made._trace = SimpleNamespace(
        step=3,
        batch=random_batch([0]),
        is_good=lambda: False,
        broken_output=lambda criterion: None,
        broken_gradient=lambda: NonFiniteError("gradients overflow"),
    )
    with pytest.raises(UserError, match=r"^gradients overflow at step 3 \(image 0\)"):
        made._judge()
    assert met == [device] * 3
    made._recent = [torch.ones(2, 4)]  # of a checkpoint, on the host
    assert made._recent_losses().device == device


@pytest.mark.parametrize("name", ["scores", "boxes", "masks", "embeddings"])
def test_which_detections_are_not_finite(name: str):
    values = {"scores": torch.ones(2), "boxes": torch.ones(2, 4), "masks": torch.ones(2, 3, 3), "embeddings": None}
    good: Any = SimpleNamespace(**values)
    values[name] = torch.tensor([[1.0, float("nan")]])
    bad: Any = SimpleNamespace(**values)
    assert fault_of([good, good], [3, 4], 5) is None
    with pytest.raises(ValueError, match="shorter"):
        fault_of([good], [3, 4], 5)
    assert str(fault_of([good, bad], [3, 4], 5)) == (
        f"stage 5 gives NaN or infinite {name} for image 4: the weights are broken, or trainer.precision is too low "
        "for them; go back to an earlier checkpoint"
    )
