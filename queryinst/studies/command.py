"""The shell around every command: compose with Hydra, check, run, and say in one sentence what the user got wrong."""

from queryinst.studies.ending import ending  # first of all: it knows of Ctrl+C while the rest is imported

# isort: split
import contextlib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from queryinst.config import TrainConfig
from queryinst.errors import Stopped, UserError
from queryinst.rules import check
from queryinst.settings import walk
from queryinst.slots import check_parts, search_here
from queryinst.studies import call, suited, sweep, sweep_table, sweepers
from queryinst.studies.basis import standing
from queryinst.studies.explain import check_overrides, explained
from queryinst.studies.own_split import with_split
from queryinst.studies.paths import expand, quoted
from queryinst.studies.processes import end_with_parent, settle
from queryinst.studies.sources import CONF, Sources
from queryinst.trainer_config import TrainerConfig
from queryinst.zoo import in_zoo, published

suited.register()

__all__ = ["CONF", "command", "compose", "typed"]


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
            with contextlib.chdir(HydraConfig.get().runtime.cwd):  # whatever hydra.job.chdir: paths are the user's
                if sweeps and sweep.in_sweep():
                    _job(composed, schema)
                    return
                try:
                    config = typed(composed, schema)
                    if sweeps:
                        sweep.check_asked(config)
                    trainer = getattr(config, "trainer", TrainerConfig())  # other commands are one process
                    settle(trainer.devices, trainer.num_nodes)
                    task(config)
                except (UserError, Stopped, OSError) as error:  # past Hydra, which would say that a job has failed
                    raised.append(error)

        run.schema = schema  # type: ignore[attr-defined]  # for the sweepers, which check jobs before the first one

        @functools.wraps(task)
        def main() -> None:
            raised.clear()
            with ending():
                os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
                _announce(config_name, schema)
                end_with_parent()
                search_here()
                words = sys.argv[1:]
                if sweeps:
                    sweepers.register()
                sources = Sources(_full(words, schema), task)
                call.begin(task, words, sources.lasting)
                try:
                    with explained(schema, sources):
                        check_overrides(sources)
                        sys.argv[1:] = [*sources.flags, *sources.overrides]  # argparse wants overrides side by side
                        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(run)()
                except KeyboardInterrupt:
                    sweep_table.report()
                    raise
                if raised:
                    raise raised[0]
                if call.is_sweep():
                    sys.exit(sweep_table.report())

        return main

    return decorate


def _announce(config_name: str, schema: type[Any]) -> None:
    """Have Hydra know the schema of a configuration, where it does not know it already."""
    store, name = ConfigStore.instance(), f"{config_name}_schema"
    known = store.repo.get(f"{name}.yaml")
    if known is None or OmegaConf.get_type(known.node) is not schema:
        store.store(name=name, node=schema)


@functools.cache
def _fresh(schema: type[Any]) -> DictConfig:
    """A schema as OmegaConf has it, made once; a merge changes a copy of it."""
    return OmegaConf.structured(schema)


def _full(words: Sequence[str], schema: type[Any]) -> list[str]:
    """The words of a command line as Hydra is to read them."""
    words = quoted(words, schema)
    return standing(words) if issubclass(schema, TrainConfig) else words


def _job(composed: DictConfig, schema: type[Any]) -> None:
    """One job of a sweep. What is wrong with its settings does not keep the others from running."""
    if not call.is_sweep():
        raise UserError(
            "a sweep needs what our `config` says of it: begin the defaults of your configuration with `- config`"
        )
    try:
        config, fault = typed(composed, schema), ""
    except UserError as error:
        config, fault = None, str(error)
    sweep.run_job(config, fault)


def typed(composed: DictConfig, schema: type[Any]) -> Any:
    """A composed configuration as an instance of its dataclass, every range checked. Raises UserError."""
    with explained(schema, Sources([])):  # it reads what is chosen by looking at the data
        missing = sorted(OmegaConf.missing_keys(composed))
    if missing:
        meaning = {key: entry.metadata["meaning"] for key, entry, _ in walk(schema())}.get(missing[0], "a value")
        raise UserError(f"{missing[0]} must be given ({meaning}): add {missing[0]}=VALUE to the command")
    with explained(schema, Sources([])):
        # onto a fresh schema: Hydra lets `+key=value` add to a node what its dataclass does not have
        config: Any = OmegaConf.to_object(
            OmegaConf.merge(
                _fresh(schema),  # type: ignore[arg-type]  # a class has a hash
                OmegaConf.to_container(composed, resolve=True),
            )
        )
        if isinstance(config, TrainConfig):
            config.chosen |= suited.reasons(composed)
    expand(config)
    check(config)
    check_parts(config)
    for key in ("checkpoint", "weights"):
        if in_zoo(name := str(getattr(config, key, ""))):
            published(name)
    if isinstance(config, TrainConfig):
        config.data = with_split(config.data)
    return config


def compose(config_name: str, schema: type[Any], overrides: list[str]) -> Any:
    """The configuration that a command line would give, for tests and notebooks; it may have `--config-dir`.

    Raises:
        UserError: what the command would say.
    """
    _announce(config_name, schema)
    sources = Sources(_full(overrides, schema))
    check_overrides(sources)
    place = str(Path(sources.place).absolute())
    with hydra.initialize_config_dir(version_base="1.3", config_dir=place), explained(schema, sources):
        return typed(hydra.compose(sources.name or config_name, sources.searched()), schema)
