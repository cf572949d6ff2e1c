"""What a search may choose: the sweeps of a command line (`interval`, `choice`, `range`, `glob`) as distributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException

from queryinst.errors import UserError

if TYPE_CHECKING:  # an extra
    from optuna.distributions import BaseDistribution
    from optuna.trial import Trial


@dataclass
class Space:
    """The words of a command, of which some stand for many values.

    An interval is continuous, of whole numbers as `int(interval(1,5))`, which has both ends; `tag(log, ...)` draws on a
    logarithmic scale; a range is numbers in steps, without its end, as in a grid; a choice, or values with commas, has
    no order; a glob is a choice among the options of a group.
    """

    words: dict[str, str] = field(default_factory=dict)  # by key; for what varies as it was written
    varied: dict[str, "BaseDistribution"] = field(default_factory=dict)

    @classmethod
    def of(cls, overrides: Sequence[Override]) -> "Space":
        """The space of a command's overrides, of which a later one of a key counts. Raises UserError."""
        space = cls()
        for override in overrides:
            key = override.get_key_element()
            space.varied.pop(key, None)
            if override.is_sweep_override():
                space.words[key] = override.get_value_string()
                space.varied[key] = _distribution(override)
            else:
                space.words[key] = override.get_value_element_as_str() if override.value_type else ""
        if not space.varied:
            raise UserError(
                "a search needs something to choose: give a setting an interval, a range or a choice, such as "
                "'optimizer.lr=tag(log,interval(1e-5,1e-3))'"
            )
        return space

    def fixed(self) -> dict[str, str]:
        """What does not vary."""
        return {key: value for key, value in self.words.items() if key not in self.varied}

    def suggest(self, trial: "Trial") -> None:
        """Let the sampler choose for a trial."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        for key, kind in self.varied.items():
            if isinstance(kind, CategoricalDistribution):
                trial.suggest_categorical(key, kind.choices)
            elif isinstance(kind, IntDistribution):
                trial.suggest_int(key, kind.low, kind.high, step=kind.step, log=kind.log)
            elif isinstance(kind, FloatDistribution):
                trial.suggest_float(key, kind.low, kind.high, step=kind.step, log=kind.log)

    def overrides(self, chosen: Mapping[str, Any]) -> list[str]:
        """The words of one trial."""
        # Steps add up to 0.30000000000000004, which would be another run than 0.3.
        stepped = {key for key, kind in self.varied.items() if isinstance(getattr(kind, "step", None), float)}
        texts = {key: f"{value:.12g}" if key in stepped else str(value) for key, value in chosen.items()}
        words = {**self.words, **texts}
        return [key if key.startswith("~") and not value else f"{key}={value}" for key, value in words.items()]


def _distribution(override: Override) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep, log = override.value(), False
    if isinstance(sweep, IntervalSweep | RangeSweep):
        log = "log" in sweep.tags
    try:
        if isinstance(sweep, IntervalSweep):
            low, high = sweep.start or 0, sweep.end or 0
            if type(low) is int and type(high) is int:  # only a cast makes them so
                return IntDistribution(low, high, log=log)
            return FloatDistribution(float(low), float(high), log=log)
        if isinstance(sweep, RangeSweep):
            values = sorted(sweep.range())
            step = abs(sweep.step)
            if all(isinstance(value, int) for value in values) and isinstance(step, int):
                return IntDistribution(values[0], values[-1], step=step, log=log)
            low, high = (float(f"{value:.12g}") for value in (values[0], values[-1]))  # sums of decimal steps
            return FloatDistribution(low, high, step=float(step), log=log)
        options = list(dict.fromkeys(override.sweep_iterator(transformer=Transformer.str)))
        return CategoricalDistribution([str(option) for option in options])
    except (ValueError, IndexError, HydraException) as error:
        reason = "there is no value in it" if isinstance(error, IndexError) else str(error).rstrip(".")
        raise UserError(f"{override.input_line} cannot be searched: {reason}") from None
