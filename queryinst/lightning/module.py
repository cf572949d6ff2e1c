"""The conductor: which object does what in a training and a validation step."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from queryinst.config import OptimizerConfig, PostprocessConfig, ScheduleConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion.matcher import NonFiniteError
from queryinst.errors import UserError
from queryinst.lightning import groups
from queryinst.lightning.broken import fault_of, keep
from queryinst.lightning.kinds import Evaluator
from queryinst.lightning.optimizer import learning_rate, optimizer
from queryinst.lightning.own import OwnMetrics
from queryinst.lightning.trace import Trace
from queryinst.models.postprocess import detect
from queryinst.models.pyramid_proposals import PyramidProposals
from queryinst.models.queryinst import QueryInst
from queryinst.models.signals import Signals
from queryinst.ops import ranks
from queryinst.structures import Batch, Detections, StageOutput

LOG_EVERY = 20  # steps between logged training losses, each the mean since the one before


class QueryInstModule(pl.LightningModule):
    """Trains and evaluates a QueryInst.

    Args:
        model: the network.
        evaluators: stage to the evaluator of its detections; -1 is the last stage. The metrics of -1 are logged as
            `val/segm_AP` and so on, those of stage s as `val/stage_{s + 1}/segm_AP`.
        postprocess: how detections are made.
        training: criterion, optimizer, schedule and batch size; None for evaluation only.
        record: plain values kept in every checkpoint (configuration, categories): all that it takes to use it.
        folder: of the run; where the inputs of a failed step are kept.
        own_metrics: the user's, of what the last stage finds.
        signals: what else is learned from.
    """

    def __init__(
        self,
        model: QueryInst,
        evaluators: Mapping[int, Evaluator],
        postprocess: PostprocessConfig,
        training: "Training | None" = None,
        record: dict[str, Any] | None = None,
        folder: Path = Path("."),
        own_metrics: OwnMetrics | None = None,
        signals: Signals | None = None,
    ) -> None:
        super().__init__()
        self.model, self.evaluators, self.postprocess = model, evaluators, postprocess
        self.own_metrics = own_metrics or OwnMetrics({}, None)
        self.signals = signals  # learns with the network, and is no part of it
        self.training_parts, self.record, self.folder = training, record or {}, folder
        self.seed = int(self.record.get("config", {}).get("seed", 0))
        self._recent: list[Tensor] = []  # losses since they were logged
        self._trace: Trace | None = None  # of the last batch that was trained on
        self._norm = torch.zeros(())  # of all gradients of this step
        self._row: dict[str, Tensor | float] = {}  # what is to be logged of this step, where it is one that is
        self._fault: UserError | None = None  # of this process, in this evaluation
        self.stages: list[StageOutput] = []  # of the last validation batch, for callbacks
        self.metrics: dict[str, float] = {}  # of the last evaluation, NaN where there was nothing to find

    def losses(self, batch: Batch) -> Tensor:
        """Weighted losses of a batch: a row a stage, then one a group of further queries; a column a term."""
        assert self.training_parts
        criterion = self.training_parts.criterion
        further = self.signals(batch.targets, batch.sizes) if self.signals else []
        output = self.model(batch.images, batch.sizes, further)
        with self._together(batch):
            self.training_parts.inspect(batch)
            assigned = groups.match(criterion, further, output, batch)
        self._judge()  # the step before: the matching has waited for all that the device had to do for it
        losses, masks, images = groups.judge(self.model, criterion, further, output, assigned, batch)
        names = [f"the further queries of signals.{group.name}" for group in further]
        names += ["the proposals of an image"] if output.candidates else []
        self._trace = Trace(self.global_step, batch, output.stages, masks, images, losses, names)
        if not self._waits:
            self._judge()
        return losses

    @property
    def _waits(self) -> bool:
        """Whether the host waits for the device to see a number. Only the matching of a training step makes it."""
        return self.device.type != "cpu"

    def _judge(self) -> None:
        """Raise UserError where the last step's losses or gradients were not finite. They must have arrived."""
        trace = self._trace
        if trace is None or trace.is_good():
            return
        assert self.training_parts
        with ranks.together(self.device):
            if error := trace.broken_output(self.training_parts.criterion):
                raise UserError(self._keep(trace.batch, error, trace.step)) from error
        raise UserError(self._keep(trace.batch, trace.broken_gradient(), trace.step))

    @contextlib.contextmanager
    def _together(self, batch: Batch) -> Iterator[None]:
        """UserError here or on another process, and what it takes to repeat the step where its numbers are broken."""
        with ranks.together(self.device):
            try:
                yield
            except NonFiniteError as error:
                raise UserError(self._keep(batch, error, self.global_step)) from error

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Randomness inside the network (blocks that a Swin skips) follows from the step, so that resuming is exact."""
        place = [self.seed, self.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        losses = self.losses(batch)
        self._recent.append(losses.detach())
        if batch_idx % LOG_EVERY == 0:
            self._log_losses(self._recent_losses().mean(0))
            self._recent.clear()
        return losses.sum()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the weights from a gradient that is NaN or infinite, and raise UserError for it.

        At once where that costs nothing; where the host would have to wait for the device, the device leaves the step
        out, and the next step raises. The norm that tells is the L2 norm of all gradients before they are clipped by
        it; with the losses, it is logged.
        """
        assert self._trace
        scaled = self.trainer.precision == "16-mixed"  # the scaler leaves out a step with infinite gradients
        gradients = {name: p.grad for name, p in self._learning() if p.grad is not None}
        self._norm = self._trace.gradients(gradients, judge=not scaled)
        if self._row:
            self.write({**self._row, "train/grad_norm": self._norm}, self.trainer.global_step)
            self._row = {}
        if scaled:
            return
        if self._waits:  # what a GradScaler tells a fused optimizer
            optimizer.found_inf = (~self._trace.finite).float()  # type: ignore[attr-defined]
        else:
            self._judge()

    def _learning(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Every parameter of the network, and of what it learns from."""
        yield from self.model.named_parameters()
        if self.signals:
            yield from self.signals.named_parameters(prefix="signals")

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """As Lightning does it, but the norm is known already."""
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            torch.nn.utils.clip_grads_with_norm_([p for _, p in self._learning()], gradient_clip_val, self._norm)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """As Lightning does it, and then without the gradients: the next forward pass needs their memory."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()

    def on_train_epoch_start(self) -> None:
        self._recent.clear()

    def _recent_losses(self) -> Tensor:
        """(steps, S, terms), each the mean over all processes."""
        return ranks.mean(torch.stack([recent.to(self.device) for recent in self._recent]))

    def _log_losses(self, losses: Tensor) -> None:
        assert self.training_parts
        terms = self.training_parts.criterion.terms
        named: dict[str, Tensor | float] = {"train/loss": losses.sum(), "train/lr": self._learning_rate()}
        rows = [f"stage_{stage}" for stage in range(1, len(self.model.stages) + 1)]
        rows += self.signals.names if self.signals else []
        rows += ["proposals"] if isinstance(self.model.queries, PyramidProposals) else []
        for of, row in zip(rows, losses, strict=True):
            named |= {f"train/{of}/loss_{term}": value for term, value in zip(terms, row, strict=False)}
        self._row = named
        self.log("train/loss", losses.sum(), logger=False, batch_size=1)  # for those who watch

    def write(self, metrics: dict[str, Tensor | float], step: int) -> None:
        """Give metrics of one step to the loggers, once; Lightning would repeat them at every step of the epoch.

        A step is counted from 0. What follows it, an evaluation say, bears its number and not that of the next, which a
        resumed run begins with and writes again.
        """
        computed = {name: value for name, value in metrics.items() if isinstance(value, Tensor)}
        if computed:  # one copy from the device
            metrics = {**metrics, **dict(zip(computed, torch.stack(list(computed.values())).tolist(), strict=True))}
        for logger in self.trainer.loggers:
            logger.log_metrics({name: float(value) for name, value in metrics.items()}, step)

    def _learning_rate(self) -> float:
        """That of the last parameter group: the rest of the network, not the backbone."""
        return float(self.trainer.optimizers[0].param_groups[-1]["lr"])

    def _keep(self, batch: Batch, error: NonFiniteError, step: int) -> str:
        """Write what it takes to repeat a step that failed, and say so."""
        rank = f"-device-{self.global_rank}" if self.global_rank else ""  # all of them meet a broken gradient
        path = self.folder / f"failed-step-{step}{rank}.pt"
        return keep(path, batch, error, step, {"state_dict": self.model.state_dict(), "record": self.record})

    def validation_step(self, batch: Batch, batch_idx: int) -> list[Detections]:  # type: ignore[override]
        fault = UserError(batch.problems[0]) if batch.problems else None
        output = self.model(batch.images, batch.sizes)
        self.stages = output.stages
        for stage, evaluator in self.evaluators.items():
            found = detect(self.model, output, batch.sizes, batch.original_sizes, self.postprocess, stage)
            fault = fault or fault_of(found, batch.image_ids, stage % len(output.stages) + 1)
            if fault is None:
                evaluator.update(batch.image_ids, found)
        if fault is None:  # the last of them are the last stage's
            fault = self.own_metrics.update(batch.image_ids, found)
        if fault and not ranks.several():
            raise fault
        self._fault = self._fault or fault  # told at the end: another process may have fewer batches than this one
        return found

    def on_validation_epoch_start(self) -> None:
        self._fault = None
        for judge in (*self.evaluators.values(), self.own_metrics):
            judge.reset()

    def on_validation_epoch_end(self) -> None:
        with ranks.together(self.device):
            if self._fault:
                raise self._fault
        self.metrics = {}
        for stage, evaluator in self.evaluators.items():
            prefix = "" if stage == -1 else f"stage_{stage + 1}/"
            self.metrics |= {f"{prefix}{name}": value for name, value in evaluator.compute().items()}
        self.metrics |= self.own_metrics.compute()
        # Every rank has the same numbers already.
        # Lightning stops where the monitored value is missing: nothing to find (`max_val_batches`) counts as 0.
        defined = {name: value for name, value in self.metrics.items() if value == value}
        self.log_dict({f"val/{name}": value for name, value in {"segm_AP": 0.0, **defined}.items()})

    def configure_optimizers(self) -> Any:
        assert self.training_parts
        parts = self.training_parts
        # A fused optimizer takes the scale out of the gradients by itself, too late for clipping them.
        fused = self.trainer.precision != "16-mixed"
        learning = dict(self._learning())
        adamw = optimizer(self.model, parts.optimizer, parts.batch_size, fused, parts.thawing, learning)
        schedule = torch.optim.lr_scheduler.LambdaLR(adamw, learning_rate(parts.schedule, parts.steps_per_epoch))
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self._waits:
            torch.accelerator.synchronize()
        self._judge()  # no checkpoint hides a broken step
        checkpoint["queryinst"] = self.record
        checkpoint["recent_losses"] = list(self._recent_losses()) if self._recent else []

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._recent = checkpoint.get("recent_losses", [])


class Training:
    """What a module needs to train; `inspect` raises UserError for a batch that cannot be trained on."""

    def __init__(
        self,
        criterion: Criterion,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        batch_size: int,
        steps_per_epoch: int,
        inspect: Callable[[Batch], None] = lambda batch: None,
        thawing: Collection[str] = (),
    ) -> None:
        self.criterion, self.optimizer, self.schedule = criterion, optimizer, schedule
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.inspect, self.thawing = inspect, thawing  # names of what trains later, of the backbone's parameters

    def __deepcopy__(self, memo: dict[int, Any]) -> "Training":
        """A copy of the module, as of averaged weights, shares it: `inspect` leads to the data and the trainer."""
        return self
