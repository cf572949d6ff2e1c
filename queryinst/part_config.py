"""What a slot of the configuration takes: a part's name, and the settings that belong to that part alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from queryinst.errors import UserError, nearest
from queryinst.settings import REQUIRED, setting


@dataclass
class PartConfig:
    """A part that research exchanges; its contract is in `queryinst/parts.py`."""

    name: str = setting(REQUIRED, "a name of ours, or `module:Name` of your own")
    args: dict[str, Any] = setting({}, "settings of that part alone: +SLOT.args.NAME=VALUE")


@dataclass
class TermConfig(PartConfig):
    """A part whose numbers are added to those of others."""

    weight: float = setting(1.0, "factor on it", at_least=0)


WEIGHTED = ("loss_term", "matching_cost")  # slots whose parts are added to others


@dataclass(frozen=True)
class Used:
    """A part that a configuration names."""

    key: str  # of its setting, `model.mask_head`
    slot: str  # `mask_head`, see `queryinst.slots.SLOTS`
    name: str
    args: dict[str, Any]
    weight: float = 1.0

    @property
    def word(self) -> str:
        """What the user calls it, of several parts in a slot: `centre` of `criterion.terms.centre`."""
        return self.key.rpartition(".")[2]


def slot(kind: str, ours: str, meaning: str) -> Any:
    """A field for one part, by default the one of ours with this name; it defines a result once it is set."""
    metadata = {"meaning": meaning, "slot": kind, "identity": "set"}
    return field(default_factory=lambda: PartConfig(ours), metadata=metadata)


def slots(kind: str, meaning: str, identity: bool | str = "set") -> Any:
    """A field for any number of parts by names of the user's choice, in their order: +FIELD.NAME.name=module:Name."""
    made = setting({}, meaning, identity=identity)
    return field(default_factory=dict, metadata={**made.metadata, "slot": kind})


def opened(key: str, node: Any, schema: type[PartConfig] = PartConfig) -> Any:
    """One of `slots` as its dataclass. Raises UserError for what it does not have.

    A node of Hydra's kind, `_target_: package.module.Class` with the arguments beside it, means the same.
    """
    known = [entry.name for entry in fields(schema)]
    if not isinstance(node, dict):
        raise UserError(f"{key} is a part, with {', '.join(known)}; got {node!r}: write {key}.name=module:Name")
    if "_target_" in node:
        module, _, attribute = str(node["_target_"]).rpartition(".")
        return schema(f"{module}:{attribute}", {name: value for name, value in node.items() if name != "_target_"})
    for name in node:
        if name not in known:
            raise UserError(
                f"{key} has no setting '{name}'{nearest(str(name), known)}; its settings are {', '.join(known)}, and "
                f"those of the part itself are below {key}.args"
            )
    if not isinstance(node.get("name"), str):
        raise UserError(f"{key}.name must be given: module:Name of your own")
    if not isinstance(node.get("args", {}), dict):
        raise UserError(f"{key}.args takes settings by their names; got {node['args']!r}")
    weight = node.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise UserError(f"{key}.weight takes a number; got {weight!r}")
    if not 0 <= weight < math.inf:
        raise UserError(f"{key}.weight must be a finite number, at least 0; got {weight}")
    return schema(**{**node, "weight": float(weight)} if "weight" in node else node)


def several(key: str, slot: str, nodes: dict[str, Any]) -> Iterator[Used]:
    """The parts of a field of `slots`, in their order. Raises UserError."""
    for name, node in nodes.items():
        part = opened(f"{key}.{name}", node, TermConfig if slot in WEIGHTED else PartConfig)
        yield Used(f"{key}.{name}", slot, part.name, part.args, getattr(part, "weight", 1.0))


def used(config: Any, prefix: str = "") -> Iterator[Used]:
    """Every part that a configuration names, ours among them."""
    for entry in fields(config):
        key, value, kind = f"{prefix}{entry.name}", getattr(config, entry.name), entry.metadata.get("slot")
        if kind and isinstance(value, dict):
            yield from several(key, kind, value)
        elif kind:
            yield Used(key, kind, value.name, value.args)
        elif is_dataclass(value):
            yield from used(value, f"{key}.")
