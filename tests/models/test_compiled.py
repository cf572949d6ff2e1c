"""Compiled, a training step is the same step: to the last bit as a graph, and to rounding in generated code."""

import copy
import dataclasses
import os
import shutil
import statistics
from collections.abc import Iterator

import pytest
import torch
from conftest import random_batch, small_model
from torch import Tensor

from queryinst.config import TrainConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.errors import UserError
from queryinst.models.backbone import TinyNet
from queryinst.models.compiled import compile_parts, require_compiler
from queryinst.models.queryinst import QueryInst
from queryinst.ops.roi import FeaturePyramid
from queryinst.structures import Batch, Matches
from queryinst.studies.command import compose
from queryinst.studies.identity import identity

# torch.compile looks at this attribute of every tensor by itself.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
EMPTY = ([0, 0], 64, 64)
SHAPES = [([2, 1], 64, 96), EMPTY, ([3, 2], 96, 64), ([4, 0], 64, 128), ([1, 2, 1], 96, 128), EMPTY]
KINK = 0.05  # of a tensor's largest gradient: what a ReLU may add that opens in one arithmetic and not in another


class Boxes:
    """Where RoIAlign reads: kept in the first step, and given again in those that are compared with it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._kept: list[Tensor] = []
        self._again: Iterator[Tensor] | None = None
        align = FeaturePyramid.align

        def given(pyramid: FeaturePyramid, boxes: Tensor, image: Tensor, size: int) -> Tensor:
            if self._again is None:
                self._kept.append(boxes.detach())
                return align(pyramid, boxes, image, size)
            return align(pyramid, next(self._again).to(boxes.dtype), image, size)

        monkeypatch.setattr(FeaturePyramid, "align", given)

    def keep(self) -> None:
        self._kept, self._again = [], None

    def again(self) -> None:
        self._again = iter(self._kept)


def step(model: QueryInst, batch: Batch, matches: Matches | None = None) -> tuple[Tensor, dict[str, Tensor], Matches]:
    """The losses, the gradients, and the matching they were computed with."""
    criterion = Criterion(CriterionConfig())
    model.zero_grad()
    output = model(batch.images, batch.sizes)
    matches = matches or criterion.match(output.stages, batch.targets, batch.sizes)
    masks = model.predict_masks(output, dict(enumerate(matches.rows(batch.targets.labels))))
    losses = criterion(output.stages, list(masks.values()), matches, batch.targets, batch.sizes)
    losses.sum().backward()
    gradients = {name: p.grad.detach() for name, p in model.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(model.parameters()))
    return losses.detach(), gradients, matches


def test_compiled_parts_are_the_same_network_in_all_sizes(monkeypatch: pytest.MonkeyPatch):
    """The graphs, run operation by operation: nothing of the network is lost, and no size needs another.

    Names of weights stay as they are, and a copy (averaged weights, say) is not compiled. The backbone has one block a
    stage here, for a second one is compiled as the first.
    """
    whole = TinyNet._stage
    monkeypatch.setattr(TinyNet, "_stage", staticmethod(lambda before, after: whole(before, after)[:1]))
    plain = small_model(num_stages=1)
    compiled = copy.deepcopy(plain)
    compile_parts(compiled, backend="aot_eager")
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert compiled.backbone._compiled_call_impl is not None
    assert copy.deepcopy(compiled).backbone._compiled_call_impl is None
    for number, (counts, height, width) in enumerate(SHAPES):
        batch = random_batch(counts, height, width, seed=number)
        # Without objects a head has no rows, which is compiled on its own.
        with torch.compiler.set_stance("default" if number < 2 else "fail_on_recompile"):
            losses, gradients, _ = step(compiled, batch)
        expected, plain_gradients, _ = step(plain, batch)
        assert torch.equal(losses, expected)
        assert all(torch.equal(gradients[name], gradient) for name, gradient in plain_gradients.items())
    for name, value in compiled.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value), name


def test_what_is_compiled_and_what_stays_as_written(monkeypatch: pytest.MonkeyPatch):
    """Each part for all sizes, by PyTorch's own compiler."""
    model = small_model()
    how: list[dict[str, object]] = []
    monkeypatch.setattr(torch, "compile", lambda function, **settings: how.append(settings) or function)
    compile_parts(model)
    compiled = {name for name, module in model.named_modules() if module._compiled_call_impl is not None}
    heads = {f"stages.{index}.{part}" for index in (0, 1) for part in ("box", "mask.dyn")}
    assert compiled == {"backbone", "neck", *heads}
    assert how == [{"dynamic": True, "backend": "inductor"}] * 6


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="torch.compile needs a C++ compiler")
def test_generated_code_errs_no_more_than_float32_does(monkeypatch: pytest.MonkeyPatch):
    """Against float64, with the same matching and boxes read: at most three times the error of float32 as written.

    A tensor's error is that over its largest gradient, the median of several batches: now and then a ReLU opens in one
    arithmetic and not in the other, which is no fault of either and moves a gradient by up to a percent. Errors below
    1e-4 are rounding whatever their ratio: sums over thousands of rows, in another order.
    """
    plain, boxes = small_model(), Boxes(monkeypatch)
    compiled, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    compile_parts(compiled)
    errors: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name, _ in plain.named_parameters()}
    for number, (counts, height, width) in enumerate([*SHAPES, *SHAPES]):
        exact.load_state_dict(plain.state_dict())
        batch = random_batch(counts, height, width, seed=number)
        boxes.keep()
        losses, gradients, matches = step(plain, batch)
        boxes.again()
        exact_losses, exact_gradients, _ = step(exact, batch, matches)
        boxes.again()
        compiled_losses, compiled_gradients, _ = step(compiled, batch, matches)
        torch.testing.assert_close(losses, exact_losses, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(compiled_losses, exact_losses, rtol=1e-4, atol=1e-5)
        for name, gradient in exact_gradients.items():
            for kept, of in zip(errors[name], (gradients, compiled_gradients), strict=True):
                kept.append(float((of[name] - gradient).abs().max() / gradient.abs().max().clamp(min=1e-30)))
        for name, value in compiled.state_dict().items():  # statistics of BatchNorm
            torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-4, atol=1e-5)
    for name, (written, generated) in errors.items():
        assert statistics.median(generated) <= max(3 * statistics.median(written), 1e-4), (name, written, generated)
        assert max(generated) < KINK, (name, written, generated)


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\n  \n  No compiler.  \nA trace of many lines", "No compiler."),
        ("x" * 400, "x" * 300),
        (" \n", "OSError"),
        ("", "OSError"),
    ],
)
def test_what_is_said_where_nothing_can_be_compiled(said: str, shown: str, monkeypatch: pytest.MonkeyPatch):
    """The first line that says something, cut short, or the name of what went wrong; and what to do."""
    devices: list[str] = []

    def compiler(function: object) -> object:
        assert function is torch.add

        def call(x: Tensor, y: int) -> Tensor:
            devices.append(x.device.type)
            raise OSError(said)

        return call

    monkeypatch.setattr(torch, "compile", compiler)
    with pytest.raises(UserError) as raised:
        require_compiler(torch.device("meta"))
    assert devices == ["meta"]
    assert str(raised.value) == (
        f"trainer.compile=true cannot compile for meta: {shown}; torch.compile needs a C++ compiler such as g++ on a "
        "CPU and Triton on a GPU: install it, or leave trainer.compile out"
    )
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.filterwarnings("ignore:dynamo_pgo force disabled:UserWarning")
def test_without_a_compiler_there_is_a_sentence():
    from torch._inductor import config

    missing = {"cpp.cxx": (None, "no-such-compiler"), "force_disable_caches": True}
    sentence = "trainer.compile=true cannot compile for cpu: .*no-such-compiler.*g\\+\\+ on a CPU"
    with config.patch(missing), pytest.raises(UserError, match=sentence):
        require_compiler(torch.device("cpu"))


def test_compilation_is_part_of_a_runs_identity_only_where_it_is_asked_for(workplace: object):
    plain = compose("config", TrainConfig, ["data=shapes_tiny"])
    assert "trainer.compile" not in identity(plain)
    compiled = dataclasses.replace(plain, trainer=dataclasses.replace(plain.trainer, compile=True))
    assert identity(compiled) == {**identity(plain), "trainer.compile": True}
