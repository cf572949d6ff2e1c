"""Paths on a command line as they are: Hydra's grammar stumbles over brackets, accents, commas and quotes."""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from queryinst.settings import walk

MEANT = ("null", "???", "")  # not the names of files
SEVERAL = ("-m", "--multirun", "hydra.mode=MULTIRUN")


def quoted(words: Sequence[str], schema: type[Any]) -> list[str]:
    """The words of a command line, with the value of each setting that is a path, or a list of names, quoted for Hydra.

    What Hydra reads as it is written stays. With -m, commas, `choice(...)` and the like go on to mean several values,
    unless the whole is a file.

    Args:
        words: the command line without the program.
        schema: the dataclass of its settings, where `path` and lists of text are known.
    """
    entries = {key: entry for key, entry, _ in walk(schema())}
    paths = {key for key, entry in entries.items() if entry.metadata.get("path")}
    lists = {key for key, entry in entries.items() if entry.type == list[str]}
    several = any(word in SEVERAL for word in words)
    made = []
    for word in words:
        key, equals, value = word.partition("=")
        name = key.lstrip("+")
        if equals and name in paths:
            word = f"{key}={_path(value, several)}"
        elif equals and name in lists and not several:
            word = f"{key}={_names(value)}"
        made.append(word)
    return made


def _path(value: str, several: bool) -> str:
    if value in MEANT:
        return value
    read = _read(value)
    if read is not None and (read.is_sweep_override() if several else False) and not Path(value).exists():
        return value
    as_it_is = read is not None and not read.is_sweep_override() and read.value() == value
    return value if as_it_is or _is_quoted(value) else quote(value)


def _names(value: str) -> str:
    """A list in brackets, or without them where that is forgotten."""
    read = _read(value)
    if value in MEANT or (read is not None and isinstance(read.value(), list) and not read.is_sweep_override()):
        return value
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    parts = [part.strip() for part in inner.split(",")]
    return f"[{','.join(part if _is_quoted(part) else quote(part) for part in parts)}]"


def _read(value: str) -> Any:
    """What Hydra makes of a value; None where it can make nothing of it."""
    try:
        return OverridesParser.create().parse_override(f"x={value}")
    except HydraException:
        return None


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" and _read(value) is not None


def quote(text: str) -> str:
    """Text as Hydra's grammar has it in quotes: a backslash counts only before a quote."""
    inner = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", inner) + "'"


def expand(config: Any) -> None:
    """Put the user's folder in place of `~` in every setting that is a path, in place."""
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if dataclasses.is_dataclass(value):
            expand(value)
        elif entry.metadata.get("path") and isinstance(value, str) and value.startswith("~"):
            setattr(config, entry.name, os.path.expanduser(value))
