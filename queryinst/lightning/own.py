"""The user's own metrics, callbacks and loggers, as a configuration names them."""

import contextlib
import re
import traceback
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from queryinst.errors import Stopped, UserError, fullness
from queryinst.part_config import several
from queryinst.parts import Metric
from queryinst.slots import make, said
from queryinst.structures import Detections

KINDS: dict[str, type] = {"callback": pl.Callback, "logger": Logger}
RESERVED = re.compile(r"(segm|bbox|boundary)_\w*|stage_\d+|association_\w*")  # first words of our own metrics' names


class OwnMetrics:
    """The metrics of a setting `metrics`, called as one.

    Args:
        nodes: the setting.
        content: the validation set as a COCO dictionary.

    Raises:
        UserError: a metric cannot be made or, in use, fails or gives something else than numbers.
    """

    def __init__(self, nodes: dict[str, Any], content: Any) -> None:
        self.content = content
        self.metrics: dict[str, Metric] = {}
        for part in several("metrics", "metric", nodes):
            if RESERVED.fullmatch(part.word):
                raise UserError(f"{part.key}: names like this one are those of our own metrics; choose another")
            self.metrics[part.word] = make(part, content)

    def reset(self) -> None:
        for name, metric in self.metrics.items():
            _guarded(name, metric, "reset")

    def update(self, image_ids: list[int], found: list[Detections]) -> UserError | None:
        """What fails is returned: other processes may have fewer batches, and all of them must hear of it together."""
        try:
            for name, metric in self.metrics.items():
                _guarded(name, metric, "update", image_ids, found)
        except UserError as error:
            return error
        return None

    def compute(self) -> dict[str, float]:
        """Every number by `NAME/KEY`."""
        made: dict[str, float] = {}
        for name, metric in self.metrics.items():
            values = _guarded(name, metric, "compute")
            try:
                made |= {f"{name}/{key}": float(value) for key, value in values.items()}
            except (AttributeError, TypeError, ValueError):
                raise UserError(
                    f"metrics.{name}: compute() must give numbers by their names; got {values!r} (queryinst/parts.py: "
                    "Metric)"
                ) from None
        return made


def _guarded(name: str, metric: Metric, method: str, *arguments: Any) -> Any:
    try:
        return getattr(metric, method)(*arguments)
    except Exception as error:  # whatever the user's code does
        raise UserError(f"metrics.{name} fails: {said(error)}") from error


def instantiate(nodes: dict[str, Any], kind: str) -> dict[str, Any]:
    """The callbacks or loggers (`kind`: "callback", "logger") of a setting `extra`, by their keys. Raises UserError."""
    made = {}
    for part in several(f"{'callbacks' if kind == 'callback' else kind}.extra", kind, nodes):
        one = made[part.key] = make(part)
        if not isinstance(one, KINDS[kind]):
            wanted, got = KINDS[kind].__name__, type(one).__name__
            raise UserError(f"{part.key}.name={part.name} is no Lightning {wanted}; got {got}")
    return made


@contextlib.contextmanager
def blamed(made: dict[str, Any]) -> Iterator[None]:
    """Raise UserError, with its key, where one of the callbacks and loggers of `instantiate` fails inside."""
    try:
        yield
    except (UserError, Stopped):
        raise
    except Exception as error:  # whatever the user's code does
        found = None if fullness(error) or isinstance(error, BrokenPipeError) else _culprit(error, made)
        if not found:
            raise
        raise UserError(
            f"{found[0]} fails in {found[1]}: {said(error)}; with HYDRA_FULL_ERROR=1 before the command you see how it "
            "came there"
        ) from error


def _culprit(error: Exception, made: dict[str, Any]) -> tuple[str, str] | None:
    """Of the objects `made` the key of the one whose method an error came through, and the method's name."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    for variable in ("self", "callback", "logger"):  # Lightning's and our loops know a method without `self` by these
        for frame in frames:
            for key, one in made.items():
                if frame.f_locals.get(variable) is one:
                    return key, str(frame.f_locals.get("hook_name", frame.f_code.co_name))
    return None
