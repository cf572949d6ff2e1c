"""A training step with further queries: their losses beside the network's own, which are what they were."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, random_batch, small_model
from test_trace import conductor, fit

from queryinst.config import ModelConfig, OptimizerConfig, PostprocessConfig, ScheduleConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.lightning import groups
from queryinst.lightning.module import QueryInstModule, Training
from queryinst.models.groups import Group
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.models.signals import Signals
from queryinst.signals_config import DenoisingConfig, OneToManyConfig, RecollectionConfig, SignalsConfig
from queryinst.structures import Batch, Targets
from queryinst.video_config import AssociationConfig

DENOISING, MANY = DenoisingConfig(number=8), OneToManyConfig(num_proposals=9, times=2)
EACH = {
    "denoising": SignalsConfig(denoising=DENOISING),
    "one_to_many": SignalsConfig(one_to_many=MANY),
    "recollection": SignalsConfig(recollection=RecollectionConfig()),
}
ALL = SignalsConfig(DENOISING, MANY, RecollectionConfig())
CRITERION = Criterion(CriterionConfig())


def module(config: SignalsConfig, model: QueryInst) -> QueryInstModule:
    training = Training(CRITERION, OptimizerConfig(), ScheduleConfig(), 2, 10)
    signals = Signals(config, ModelConfig(**SMALL), 3, model.stages[0].box)
    return QueryInstModule(model, {}, PostprocessConfig(), training, signals=signals)


def still(model: QueryInst) -> QueryInst:
    """In training, and no call changes what the next one gives: BatchNorm has its statistics."""
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()
    return model


@pytest.mark.parametrize("name", EACH)
@pytest.mark.parametrize("counts", [[2, 1], [0, 0], [0, 3]])
def test_losses_have_a_row_more_and_the_others_are_as_before(name: str, counts: list[int]):
    model, batch = still(small_model()), random_batch(counts)
    plain, more = module(SignalsConfig(), model).losses(batch), module(EACH[name], model).losses(batch)
    assert [len(plain), len(more)] == [2, 3]
    torch.testing.assert_close(more[:2], plain, rtol=1e-4, atol=1e-5)
    assert more[2, 0] >= 0
    assert (more[2] > 0).any() == (name != "denoising" or sum(counts) > 0)
    assert more.isfinite().all()


def test_a_group_weighs_as_much_as_it_is_given():
    model, batch = still(small_model()), random_batch([2, 1])
    once, thrice = (module(SignalsConfig(one_to_many=replace(MANY, weight=weight)), model) for weight in (1.0, 3.0))
    assert once.signals
    assert thrice.signals
    thrice.signals.load_state_dict(once.signals.state_dict())
    torch.testing.assert_close(3 * once.losses(batch)[2], thrice.losses(batch)[2])


def test_without_masks_a_group_learns_none_and_terms_of_ones_own_are_left_out():
    class Term:
        def __call__(self, stages: Any, masks: Any, *_: Any) -> torch.Tensor:
            assert len(masks) == len(stages)
            return torch.ones(len(stages))

    model, batch = still(small_model()), random_batch([2, 1])
    criterion = Criterion(CriterionConfig())
    criterion.further = {"own": (3.0, Term())}
    for masks in (True, False):
        group = Group("recollection", None, masks=masks)
        output = model(batch.images, batch.sizes, [group])
        assigned = groups.match(criterion, [group], output, batch)
        row = groups.judge(model, criterion, [group], output, assigned, batch).losses[-1]
        assert (row[3] > 0, row[4] > 0) == (masks, masks)
        assert (row[:3] > 0).all()


def test_given_matches_are_taken_in_each_stage():
    model, batch = still(small_model()), random_batch([2, 1])
    conductor = module(SignalsConfig(denoising=replace(DENOISING, label_noise=0.0)), model)
    assert conductor.signals
    (group,) = conductor.signals(batch.targets, batch.sizes)
    output = model(batch.images, batch.sizes, [group])
    (own,), (given,), _ = groups.match(CRITERION, [group], output, batch)
    assert own.query.shape == (2, 3)
    assert group.given
    assert torch.equal(given.query, group.given.query.repeat(2, 1))
    assert torch.equal(given.target, group.given.target.repeat(2, 1))


def test_video_learns_its_embeddings_from_its_own_queries_alone():
    model = still(small_model(association=AssociationConfig(width=8)))
    batch = random_batch([2, 2])
    batch = replace(batch, targets=replace(batch.targets, tracks=torch.tensor([0, 1, 1, 2])))
    losses = module(ALL, model).losses(batch)
    assert losses.shape == (5, 5)
    assert (losses[:2, 4] > 0).all()
    assert not losses[2:, 4].any()


@pytest.mark.parametrize("name", [*EACH, "all"])
def test_at_test_nothing_is_left_of_them(name: str):
    """The same weights, names and detections to the last bit; what learns beside the network is not in it."""
    model, batch = small_model(), random_batch([2, 1])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    conductor = module({**EACH, "all": ALL}[name], model)
    assert list(model.state_dict()) == list(before)
    assert {key for key in conductor.state_dict() if key.startswith("model.")} == {f"model.{key}" for key in before}
    plain = small_model()
    plain.load_state_dict(model.state_dict())
    found = []
    with torch.no_grad():
        for network in (model.eval(), plain.eval()):
            output = network(batch.images, batch.sizes)
            found.append(detect(network, output, batch.sizes, batch.original_sizes, PostprocessConfig()))
    for ours, theirs in zip(*found, strict=True):
        for column in ("boxes", "scores", "labels", "masks"):
            assert torch.equal(getattr(ours, column), getattr(theirs, column))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("counts", [[2, 1], [0, 0]])
def test_everything_that_learns_is_learned_in_any_precision(tmp_path: Path, precision: str, counts: list[int]):
    made = conductor(tmp_path, ALL)
    assert {name for name, _ in made._learning() if name.startswith("signals.")} == {
        "signals.denoising.labels.weight",
        "signals.one_to_many.queries.boxes",
        "signals.one_to_many.queries.features",
    }
    gradients: dict[str, bool] = {}

    def look(name: str, parameter: torch.nn.Parameter) -> None:
        parameter.register_post_accumulate_grad_hook(lambda _: gradients.update({name: True}))

    for name, parameter in made._learning():
        look(name, parameter)
    fit(made, [random_batch(counts, seed=step) for step in range(2)], precision=precision)
    trained = {name for name, parameter in made._learning() if parameter.requires_grad}
    assert set(gradients) == trained, "also where there is nothing to find: processes wait for each other's gradients"
    optimized = {id(one) for group in made.trainer.optimizers[0].param_groups for one in group["params"]}
    assert optimized == {id(parameter) for name, parameter in made._learning() if name in trained}


def test_a_batch_is_its_images():
    """Queries that only another image needs change nothing: two images lose what each loses alone."""
    model, batch = still(small_model()), random_batch([3, 1])
    config = DenoisingConfig(number=1, box_noise=0.0, label_noise=0.0, negatives=False)
    conductor = module(SignalsConfig(denoising=config), model)
    together = conductor.losses(batch)[2]
    total = torch.zeros(4)
    for image, place in ((0, slice(0, 3)), (1, slice(3, 4))):
        every = {name: getattr(batch.targets, name)[place] for name in ("boxes", "labels", "masks", "mask_boxes")}
        count, one = batch.targets.counts[image], slice(image, image + 1)
        alone = Batch(batch.images[one], batch.sizes[one], batch.sizes[one], [0], Targets(**every, counts=[count]), [])
        total += count * conductor.losses(alone)[2]
    torch.testing.assert_close(together, total / 4, rtol=1e-4, atol=1e-5)
