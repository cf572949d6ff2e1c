"""What a setting is: a dataclass field that knows its meaning, its range, and whether it defines a result."""

import copy
import dataclasses
import math
import operator
from collections.abc import Iterator
from dataclasses import field
from typing import Any, Optional, get_args

from queryinst.errors import UserError

REQUIRED: Any = "???"  # OmegaConf's mark of a value that must be given


def setting(
    default: Any,
    meaning: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] | None = None,
    identity: bool | str = True,
    path: bool = False,
) -> Any:
    """One field of a configuration dataclass.

    Args:
        default: value, or a list or dict that is copied for every instance.
        meaning: one line for people, with the unit.
        at_least, at_most, above: range of a number, or of each number of a list.
        choices: the values allowed.
        identity: whether the value defines the result of a run (and so its identity), or only how it gets there; "set"
            where it does so only when it is not the default, so that runs from before the setting keep their identity.
        path: whether it is a file or folder, taken from the command line as it is.
    """
    metadata = {
        "meaning": meaning,
        "at_least": at_least,
        "at_most": at_most,
        "above": above,
        "choices": choices,
        "identity": identity,
        "path": path,
    }
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def changes_of(schema: Any) -> Any:
    """A dataclass with the settings of another, each of which may be left out; see `changed`."""
    left_out = [
        (entry.name, Optional[entry.type], field(default=None, metadata=entry.metadata))  # noqa: UP045  # no | of a value
        for entry in dataclasses.fields(schema)
    ]
    return dataclasses.make_dataclass(f"{schema.__name__}Changes", left_out)


def changed(config: Any, changes: Any) -> Any:
    """A configuration with those settings of `changes_of` its dataclass that were given."""
    given = {entry.name: getattr(changes, entry.name) for entry in dataclasses.fields(changes)}
    return dataclasses.replace(config, **{name: value for name, value in given.items() if value is not None})


def walk(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Yield (dotted key, field, value) of every leaf below a configuration dataclass."""
    for entry in dataclasses.fields(config):
        key, value = f"{prefix}{entry.name}", getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            yield from walk(value, f"{key}.")
        else:
            yield key, entry, value


def check_ranges(config: Any) -> None:
    """Check every value by itself. Raises UserError with the key, what it got and what it takes."""
    for key, entry, value in walk(config):
        for number in value if isinstance(value, list) else [value]:
            _check_value(key, entry.metadata, number)


def _check_value(key: str, limits: Any, value: Any) -> None:
    if limits["choices"] and value is not None and value not in limits["choices"]:
        raise UserError(f"{key} takes one of {', '.join(limits['choices'])}; got '{value}'")
    if value == "":
        raise UserError(f"{key} is empty; leave it out, or write {key}=null where nothing is meant")
    if not isinstance(value, int | float):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key} takes a finite number; got {value}")
    for name, holds in (("at_least", operator.ge), ("at_most", operator.le), ("above", operator.gt)):
        if limits[name] is not None and not holds(value, limits[name]):
            raise UserError(
                f"{key} must be {name.replace('_', ' ')} {limits[name]}; got {str(value)[:30]} ({limits['meaning']})"
            )


def kind_of(entry: dataclasses.Field[Any]) -> Any:
    """The dataclass that a field holds, or may hold; None where it is a value."""
    return next((kind for kind in (entry.type, *get_args(entry.type)) if dataclasses.is_dataclass(kind)), None)


def restore(schema: Any, values: dict[str, Any]) -> Any:
    """A dataclass from the plain dict that `dataclasses.asdict` made of it. Raises UserError for an unknown setting."""
    known = {entry.name: entry for entry in dataclasses.fields(schema)}
    for name in values:
        if name not in known:
            raise UserError(
                f"the checkpoint's configuration has a setting '{name}' that {schema.__name__} does not know: "
                "another version of queryinst made it"
            )
    made = {}
    for name, value in values.items():
        inner = kind_of(known[name])
        made[name] = restore(inner, value) if inner and isinstance(value, dict) else value
    return schema(**made)
