"""One sentence for what Hydra and OmegaConf find wrong in a command line or a YAML file."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from queryinst.errors import UserError, nearest
from queryinst.settings import kind_of, walk
from queryinst.studies.sources import Sources

KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}


def check_overrides(sources: Sources) -> None:
    """What Hydra takes in silence, or fails at with a traceback. Raises UserError."""
    groups = sources.groups()
    for word in sources.overrides:
        key, _, value = word.partition("=")
        if key in ("experiment", "study"):
            raise UserError(f"{'a recipe' if key == 'experiment' else 'a study'} is added, not changed: write +{word}")
        group = key.lstrip("~")
        if group in groups and group != "logger" and (key.startswith("~") or re.fullmatch(r"null|[\d.]+", value)):
            raise UserError(f"{group} takes one of {', '.join(sources.options(group))}; got '{word}'")
        files = sources.files(f"{key.lstrip('+')}/{value}") if key.lstrip("+") in groups else []
        if len(files) > 1:
            raise UserError(f"{word} could be any of {', '.join(files)}: give yours a name of its own")


@contextlib.contextmanager
def explained(schema: type[Any], sources: Sources) -> Iterator[None]:
    """A block in which what Hydra and OmegaConf find wrong becomes a UserError; a fault of another kind stays."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, UserError):  # of a setting that is chosen by looking at the data
            cause = cause.__cause__ or cause.__context__  # OmegaConf leaves out the cause, but under a debugger
        if cause:
            raise cause from None
        raise UserError(explain(error, schema, sources)) from None
    except AssertionError as error:
        sentence = _below_nothing(error, sources, schema)
        if not sentence:
            raise
        raise UserError(sentence) from None


def _below_nothing(error: AssertionError, sources: Sources, schema: type[Any]) -> str | None:
    """One sentence where OmegaConf stumbled over a setting below a part that may be empty, and is; otherwise None."""
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    if not frame or not frame.tb_frame.f_globals["__name__"].startswith("omegaconf"):
        return None
    optional = [key for key, entry, value in walk(schema()) if value is None and kind_of(entry)]
    for word in sources.overrides:
        name = word.lstrip("+~").partition("=")[0]
        if any(name.startswith(f"{key}.") for key in optional):
            part = name.rpartition(".")[0]
            group, _, inner = part.partition(".")
            contents = {option: sources.load(group, option) for option in sources.options(group)}
            options = [
                option
                for option, content in contents.items()  # a file of the group itself, or of all settings
                if any(OmegaConf.select(content, key) is not None for key in (inner, part))
            ]
            choose = f": choose {' or '.join(f'{group}={option}' for option in options)}" if options else ""
            return f"{name} cannot be set, since {part} is empty here{choose}"
    return None


def explain(error: Exception, schema: type[Any], sources: Sources) -> str:
    """One sentence for what Hydra or OmegaConf found wrong."""
    text = str(error) + (f"\n{error.__cause__}" if error.__cause__ else "")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _missing(str(error.missing_cfg_file), sources)
    where = _first(r"In '([^']+)'", text)
    file = next(iter(sources.files(where)), None) if where else None
    place = f" in {file}" if file else ""
    unknown = _first(r"[Kk]ey '([^']+)' (?:is )?not in", text) or _first(
        r"Could not (?:override|append to|delete from) config(?: key)? '?([\w.@/]+)", text
    )
    several = _first(r"Ambiguous value for argument '([^']+)'", text)
    if several:
        return f"{several} has several values: add -m to run one after another, or write [..] for a list"
    swept = _first(r"Sweep parameters '([^']+)' requires --multirun", text)
    if swept:
        return f"{swept} has several values: add -m to run one after another"
    key = _first(r"full_key: ([\w.\[\]]+)", text) or _first(r"Could not override '([^']+)'", text) or unknown
    if unknown or "Could not override" in text:
        if re.search(r"\.(extra|args|terms|costs|steps)\.|^metrics\.", str(key)):
            return f"unknown setting '{key}'{place}; to add it, write +{key}=VALUE"
        of_sweepers = _of_sweepers(sources)
        if key in of_sweepers:
            return f"{key} is a setting of another sweeper than this one: add hydra/sweeper={of_sweepers[str(key)]}"
        known = [*(name for name, _, _ in walk(schema())), *_nodes(schema()), *sources.groups(), *of_sweepers]
        return f"unknown setting '{key}'{place}{nearest(str(key), known)}"
    wrong = _first(r"Value (.+) could not be converted", text) or _first(r"(Invalid .+)", text)
    if key and wrong:
        return f"{key}{place}: {_lowered(text, wrong)}"
    return (
        "the command line cannot be read: "
        + " ".join(line.strip() for line in text.splitlines() if line.strip() and "https:" not in line)[:300]
    )


def _of_sweepers(sources: Sources) -> dict[str, str]:
    """Their settings, each with the sweeper that has it."""
    options = sources.options("hydra/sweeper")
    names = ((str(name), option) for option in options for name in sources.load("hydra/sweeper", option))
    return {f"hydra.sweeper.{name}": option for name, option in names}


def _missing(name: str, sources: Sources) -> str:
    """Of a file that Hydra looked for, what could have been meant."""
    group, _, option = name.removesuffix(".yaml").rpartition("/")
    options, groups = sources.options(group), sources.groups()
    if not group:
        return f"there is no configuration '{option}'; --config-name takes one of {', '.join(options)}"
    if options:
        return f"{group} has no option '{option}'; it has {', '.join(options)}{nearest(option, options)}"
    return f"there is no group of settings '{group}'{nearest(group, groups)}; the groups are {', '.join(groups)}"


def _lowered(text: str, wrong: str) -> str:
    target = _first(r"could not be converted to (\w+)", text)
    return f"value {wrong} cannot be read as {KINDS.get(target, target)}" if target else wrong


def _first(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found.group(1) if found else None


def _nodes(config: Any) -> Iterator[str]:
    """The dotted names of the nodes above the leaves."""
    for key, _, _ in walk(config):
        while "." in key:
            key = key.rpartition(".")[0]
            yield key
