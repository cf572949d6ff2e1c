"""The shell around every command: compose with Hydra, check, run, and say in one sentence what the user got wrong."""

from queryinst.studies.ending import ending  # first of all: it knows of Ctrl+C while the rest is imported

# isort: split
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from queryinst.config import TrainerConfig
from queryinst.errors import Stopped, UserError, nearest
from queryinst.rules import check
from queryinst.settings import kind_of, walk
from queryinst.studies import sweep, sweep_table
from queryinst.studies.processes import end_with_parent, settle

KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}
PACKAGE = Path(__file__).parents[1]
# In an installed wheel `conf` travels inside the package; in a checkout it lies beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def command(
    config_name: str, schema: type[Any], sweeps: bool = False
) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Turn `task(config)` into a command line program; with `sweeps`, -m runs several (`queryinst.studies.sweep`).

    `config_name` is composed from `conf/`, checked against the dataclass `schema`, and given to the task as an instance
    of it. Nothing here imports torch. How it ends, and with which exit code, is in `queryinst.studies.ending`.
    """

    def decorate(task: Callable[[Any], None]) -> Callable[[], None]:
        raised: list[BaseException] = []

        @functools.wraps(task)
        def run(composed: DictConfig) -> None:
            if sweeps and sweep.in_sweep():
                _job(composed, schema)
                return
            try:
                config = typed(composed, schema)
                trainer = getattr(config, "trainer", TrainerConfig())  # other commands are one process
                settle(trainer.devices, trainer.num_nodes)
                task(config)
            except (UserError, Stopped, OSError) as error:  # past Hydra, which would say that a job has failed
                raised.append(error)

        @functools.wraps(task)
        def main() -> None:
            several = sweeps and any(word in ("-m", "--multirun") for word in sys.argv)
            raised.clear()
            with ending():
                os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
                ConfigStore.instance().store(name=f"{config_name}_schema", node=schema)
                end_with_parent()
                try:
                    _check_overrides(sys.argv[1:])
                    if several:
                        sys.argv[1:] = sweep.begin(sys.argv[1:])
                    hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run)()
                except (HydraException, OmegaConfBaseException) as error:
                    raise UserError(explain(error, schema)) from error
                except AssertionError as error:
                    sentence = _below_nothing(error, sys.argv[1:], schema)
                    if not sentence:
                        raise
                    raise UserError(sentence) from error
                except KeyboardInterrupt:
                    if several:
                        sweep_table.report()
                    raise
                if raised:
                    raise raised[0]
                if several:
                    sys.exit(sweep_table.report())

        return main

    return decorate


def _job(composed: DictConfig, schema: type[Any]) -> None:
    """One job of a sweep. What is wrong with its settings does not keep the others from running."""
    try:
        config, fault = typed(composed, schema), ""
    except UserError as error:
        config, fault = None, str(error)
    sweep.run_job(config, fault)


def _check_overrides(words: list[str]) -> None:
    """What Hydra takes in silence, or fails at with a traceback. Raises UserError."""
    for word in words:
        key, _, value = word.partition("=")
        if key in ("experiment", "study"):
            raise UserError(f"{'a recipe' if key == 'experiment' else 'a study'} is added, not changed: write +{word}")
        group = key.lstrip("~")
        if group in groups() and group != "logger" and (key.startswith("~") or re.fullmatch(r"null|[\d.]+", value)):
            options = ", ".join(sorted(path.stem for path in (CONF / group).glob("*.yaml")))
            raise UserError(f"{group} takes one of {options}; got '{word}'")


def typed(composed: DictConfig, schema: type[Any]) -> Any:
    """A composed configuration as an instance of its dataclass, every range checked. Raises UserError."""
    missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        meaning = {key: entry.metadata["meaning"] for key, entry, _ in walk(schema())}.get(missing[0], "a value")
        raise UserError(f"{missing[0]} must be given ({meaning}): add {missing[0]}=VALUE to the command")
    try:  # onto a fresh schema: Hydra lets `+key=value` add to a node what its dataclass does not have
        config = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.to_container(composed, resolve=True))
        )
    except OmegaConfBaseException as error:
        raise UserError(explain(error, schema)) from None
    check(config)
    return config


def compose(config_name: str, schema: type[Any], overrides: list[str]) -> Any:
    """The configuration that a command line would give, for tests and notebooks. Raises UserError."""
    ConfigStore.instance().store(name=f"{config_name}_schema", node=schema)
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        try:
            return typed(hydra.compose(config_name, overrides), schema)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error, schema)) from None
        except AssertionError as error:
            sentence = _below_nothing(error, overrides, schema)
            if not sentence:
                raise
            raise UserError(sentence) from None


def _below_nothing(error: AssertionError, words: list[str], schema: type[Any]) -> str | None:
    """One sentence where OmegaConf stumbled over a setting below a part that may be empty, and is; otherwise None."""
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    if not frame or not frame.tb_frame.f_globals["__name__"].startswith("omegaconf"):
        return None
    optional = [key for key, entry, value in walk(schema()) if value is None and kind_of(entry)]
    for word in words:
        name = word.lstrip("+~").partition("=")[0]
        if any(name.startswith(f"{key}.") for key in optional):
            part = name.rpartition(".")[0]
            group, *_, key = part.split(".")
            filled = re.compile(rf"^{'  ' * part.count('.')}{key}:", re.MULTILINE)  # in a file that sets `group:`
            options = sorted(p.stem for p in (CONF / group).glob("*.yaml") if filled.search(p.read_text()))
            choose = f": choose {' or '.join(f'{group}={option}' for option in options)}" if options else ""
            return f"{name} cannot be set, since {part} is empty here{choose}"
    return None


def explain(error: Exception, schema: type[Any]) -> str:
    """One sentence for what Hydra or OmegaConf found wrong in a command line or a YAML file."""
    text = str(error) + (f"\n{error.__cause__}" if error.__cause__ else "")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        if options:
            return f"{group} has no option '{option}'; it has {', '.join(options)}{nearest(option, options)}"
        return (
            f"there is no group of settings '{group}'{nearest(group, groups())}; the groups are {', '.join(groups())}"
        )
    where = _first(r"In '([^']+)'", text)
    place = f" in {CONF.name}/{where}.yaml" if where else ""
    unknown = _first(r"[Kk]ey '([^']+)' (?:is )?not in", text) or _first(
        r"Could not (?:override|append to|delete from) config(?: key)? '?([\w.@/]+)", text
    )
    several = _first(r"Ambiguous value for argument '([^']+)'", text)
    if several:
        return f"{several} has several values: add -m to run one after another, or write [..] for a list"
    key = _first(r"full_key: ([\w.\[\]]+)", text) or _first(r"Could not override '([^']+)'", text) or unknown
    if unknown or "Could not override" in text:
        if ".extra." in str(key):
            return f"unknown setting '{key}'{place}; to add it, write +{key}=VALUE"
        known = [*(name for name, _, _ in walk(schema())), *_nodes(schema()), *groups()]
        return f"unknown setting '{key}'{place}{nearest(str(key), known)}"
    wrong = _first(r"Value (.+) could not be converted", text) or _first(r"(Invalid .+)", text)
    if key and wrong:
        return f"{key}{place}: {_lowered(text, wrong)}"
    return (
        "the command line cannot be read: "
        + " ".join(line.strip() for line in text.splitlines() if line.strip() and "https:" not in line)[:300]
    )


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


def groups() -> list[str]:
    """The groups of `conf/`."""
    return sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
