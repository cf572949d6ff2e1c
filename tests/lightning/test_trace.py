"""A step waits for the device once, and broken numbers are named all the same."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import SMALL, random_batch, small_model
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from queryinst.config import ModelConfig, OptimizerConfig, PostprocessConfig, ScheduleConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.errors import UserError
from queryinst.lightning.module import QueryInstModule, Training
from queryinst.lightning.optimizer import optimizer as make_optimizer
from queryinst.lightning.trainer import quiet
from queryinst.models.signals import Signals
from queryinst.ops.roi import FeaturePyramid
from queryinst.signals_config import DenoisingConfig, OneToManyConfig, RecollectionConfig, SignalsConfig
from queryinst.structures import Batch

STEPS = 5
# Operations whose result the host must see before it can go on.
HOST = ("_local_scalar_dense", "nonzero", "_unique2", "unique_dim", "masked_select", "equal", "repeat_interleave")


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU, by what is called, wherever the tensors are."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        lengths = name == "repeat_interleave" and "Tensor" in func._overloadname
        picks = name.startswith("index") and any(
            i is not None and i.dtype in (torch.bool, torch.uint8)
            for i in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ())
        )
        if (name in HOST and name != "repeat_interleave") or lengths or picks:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


class Copies(TorchFunctionMode):
    """Counts copies from and to the device that the host waits for; on a CPU they do not reach the dispatcher."""

    def __init__(self, counts: "Counter[str]") -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        to_host = name == "to" and "cpu" in args[1:] and not kwargs.get("non_blocking")
        from_host = name == "tensor" or name.startswith("new_tensor")
        if name in ("cpu", "tolist", "pin_memory") or to_host or from_host:
            self.counts[name] += 1
        return func(*args, **kwargs)


class ByStep(pl.Callback):
    """What was counted at each step, from one batch's end to the next."""

    def __init__(self, counts: "Counter[str]") -> None:
        self.counts, self.steps = counts, list[dict[str, int]]()

    def on_train_batch_end(self, *_: Any) -> None:
        self.steps.append(dict(self.counts))
        self.counts.clear()


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done where the tensors are not on the host."""
    monkeypatch.setattr(QueryInstModule, "_waits", True)
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    monkeypatch.setattr(FeaturePyramid, "align", lambda self, boxes, *place: self._pool(boxes.detach(), *place))


def conductor(folder: Path, config: SignalsConfig | None = None) -> QueryInstModule:
    training = Training(Criterion(CriterionConfig()), OptimizerConfig(), ScheduleConfig(), 2, STEPS)
    model = small_model()
    signals = Signals(config or SignalsConfig(), ModelConfig(**SMALL), 3, model.stages[0].box)
    return QueryInstModule(model, {}, PostprocessConfig(), training, {"run": "x"}, folder, None, signals)


def fit(
    module: QueryInstModule, batches: list[Batch], *callbacks: pl.Callback, resume: Path | None = None, **settings: Any
) -> None:
    quiet()
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    chosen = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "gradient_clip_val": 0.1,
        "enable_model_summary": False,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
    }
    trainer = pl.Trainer(**{**chosen, **silent, **settings}, callbacks=list(callbacks))  # type: ignore[arg-type]
    loader: DataLoader[Batch] = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, loader, loader, ckpt_path=resume, weights_only=True)


def batches() -> list[Batch]:
    return [random_batch([2, 1], seed=step) for step in range(STEPS)]


ALL = SignalsConfig(DenoisingConfig(), OneToManyConfig(num_proposals=9, times=2), RecollectionConfig())


@pytest.mark.parametrize("signals", [None, ALL], ids=["plain", "all signals"])
def test_a_step_waits_for_the_device_once(tmp_path: Path, on_device: None, signals: SignalsConfig | None):
    """Whoever adds an `.item()`, a boolean index or a constant from the host to a training step fails here."""
    waits = Waits()
    by_step = ByStep(waits.counts)
    with waits, Copies(waits.counts):
        fit(conductor(tmp_path, signals), batches(), by_step)
    assert len(by_step.steps) == STEPS
    for counts in by_step.steps[1:]:  # the first is logged, and makes the optimizer's state
        assert counts == {"cpu": 1}, "the costs of the matching, and nothing else"


def test_what_is_counted():
    x, counts = torch.arange(3.0), Counter[str]()
    waits = Waits()
    waits.counts = counts
    with waits, Copies(counts):
        bool(x.isfinite().all())
        x[x > 1]
        x.nonzero()
        x.cpu()
        torch.tensor(1.0)
        x.to("cpu", non_blocking=True)
        x.to("cpu")
    assert counts == {"_local_scalar_dense": 1, "index": 1, "nonzero": 1, "cpu": 1, "tensor": 1, "to": 1}


class Break(pl.Callback):
    """Makes a gradient NaN at a step, and keeps the weights from before it."""

    def __init__(self, step: int) -> None:
        self.step, self.before = step, dict[str, torch.Tensor]()

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        if trainer.global_step == self.step:
            weight = pl_module.get_parameter("model.stages.0.box.reg.bias")
            assert weight.grad is not None
            weight.grad[0] = float("nan")
            self.before = {name: value.clone() for name, value in pl_module.named_parameters()}


@pytest.mark.parametrize("step", [2, STEPS - 1])
def test_a_broken_gradient_changes_no_weight_and_is_named_by_the_next_step(tmp_path: Path, on_device: None, step: int):
    """Or, where it was the last step, by the checkpoint after it. The batch that is kept is the broken step's own."""
    module, every, breaking = conductor(tmp_path), batches(), Break(step)

    class Keep(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / "last.ckpt")

    sentence = rf"1 gradients are .*, first that of stages\.0\.box\.reg\.bias, at step {step} \(image 0, 1\)"
    with pytest.raises(UserError, match=sentence):
        fit(module, every, breaking, Keep())
    assert breaking.before
    for name, value in module.named_parameters():
        assert torch.equal(value, breaking.before[name]), name
    content = torch.load(tmp_path / f"failed-step-{step}.pt", weights_only=True)
    assert torch.equal(content["images"], every[step].images)
    assert not (tmp_path / "last.ckpt").exists()


def test_a_broken_loss_without_objects_is_named_by_the_next_step(tmp_path: Path, on_device: None):
    """Nothing is matched, so that no cost shows it."""
    module = conductor(tmp_path)
    module.model.stages[1].box.cls.bias.data[0] = float("nan")
    with pytest.raises(UserError, match=r"stage 2 gives NaN or infinite logits at step 0 \(image 0\)"):
        fit(module, [random_batch([0, 0])] * 2)


@pytest.mark.parametrize("clip", [0.1, None])
def test_the_deferred_step_is_the_plain_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: float | None):
    """To the last bit: with numbers that are good it makes no difference who looks at them when."""
    weights = []
    for deferred in (False, True):
        torch.manual_seed(0)
        module = conductor(tmp_path)
        monkeypatch.setattr(QueryInstModule, "_waits", deferred)
        fit(module, batches(), gradient_clip_val=clip)
        weights.append(module.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_one_norm_serves_logging_and_clipping(tmp_path: Path):
    """The same as Lightning's clipping, to the last bit."""
    ours, theirs = [conductor(tmp_path) for _ in range(2)]
    theirs.load_state_dict(ours.state_dict())
    theirs.configure_gradient_clipping = (  # type: ignore[method-assign]
        lambda *given, **named: pl.LightningModule.configure_gradient_clipping(theirs, *given, **named)
    )
    for module in (ours, theirs):
        fit(module, batches())
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_a_gradient_scaler_gets_an_optimizer_that_leaves_unscaling_to_it(tmp_path: Path):
    """Lightning refuses to clip the gradients of one that does not."""
    module = conductor(tmp_path)
    for precision, fused in (("32-true", True), ("bf16-mixed", True), ("16-mixed", False)):
        module._trainer = type("Fake", (), {"precision": precision})()  # type: ignore[assignment]
        assert module.configure_optimizers()["optimizer"].defaults["fused"] == fused
    assert make_optimizer(module.model, OptimizerConfig(), 2).defaults["fused"]
