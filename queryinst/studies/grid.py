"""A grid: all combinations of the values given, as by Hydra's sweeper, with every job known before the first starts."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, open_dict, read_write

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.settings import walk
from queryinst.studies.call import label
from queryinst.studies.command import typed
from queryinst.studies.identity import identity, run_folder

FILES = ("weights", "backbone.weights")  # settings that count by what a file holds


class Grid(BasicSweeper):
    """Hydra's sweeper, which refuses what would make two jobs one run, or is no grid."""

    def __init__(self, max_batch_size: int | None = None, params: dict[str, str] | None = None) -> None:
        # BasicSweeper's own names its class, which Hydra makes anew where it looks for plugins a second time.
        self.max_batch_size, self.params = max_batch_size, params or {}
        self.overrides, self.batch_index = None, 0

    def setup(self, *, task_function: Any, **known: Any) -> None:
        self.schema = task_function.schema
        super().setup(task_function=task_function, **known)

    def split_arguments(self, overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:  # type: ignore[override]
        """The jobs in batches. Raises UserError where they cannot be all run."""
        for override in overrides:
            if override.is_interval_sweep():
                raise UserError(
                    f"{override.input_line} is an interval, which has no list of values: give some, or let a search "
                    "choose by adding +study=search"
                )
        batches = BasicSweeper.split_arguments(overrides, max_batch_size)
        refuse_twice([(words, self.config_of(words)) for batch in batches for words in batch])
        return batches

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """All jobs have been composed already."""

    def config_of(self, words: Sequence[str]) -> TrainConfig | None:
        """The configuration of a job; None where its settings are wrong, of which the job will say so."""
        return config_of(self, self.schema, words)


def config_of(sweeper: Any, schema: type[Any], words: Sequence[str]) -> TrainConfig | None:
    """The configuration of a job of a sweeper; None where its settings are wrong, of which the job will say so."""
    composed: DictConfig = sweeper.hydra_context.config_loader.load_sweep_config(sweeper.config, list(words))
    with hydra_config(composed), contextlib.suppress(UserError):
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        return typed(composed, schema)
    return None


@contextlib.contextmanager
def hydra_config(composed: DictConfig) -> Iterator[None]:
    """A block in which `HydraConfig` is that of a composed configuration, as it is within a job."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(composed)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def refuse_twice(jobs: Sequence[tuple[Sequence[str], TrainConfig | None]]) -> None:
    """Two jobs of a sweep that are the same run would train it at the same time, or one of them for nothing.

    Raises:
        UserError: there are two, with what they differ in.
    """
    once = set()
    for words, _ in jobs:
        if tuple(words) in once:
            raise UserError(f"the sweep has {' '.join(label(words)) or 'a job'} twice: give each value once")
        once.add(tuple(words))
    alike: dict[str, list[tuple[Sequence[str], TrainConfig]]] = {}
    for words, config in jobs:
        if isinstance(config, TrainConfig):  # other commands have no runs
            alike.setdefault(_quickly(config), []).append((words, config))
    for several in alike.values():
        seen: dict[str, tuple[Sequence[str], TrainConfig]] = {}
        for words, config in several if len(several) > 1 else []:
            try:
                folder = run_folder(config, identity(config)).as_posix()
            except UserError:  # of which the job will say so
                continue
            if folder in seen:
                raise UserError(_same((words, config), seen[folder], folder))
            seen[folder] = words, config


def _quickly(config: TrainConfig) -> str:
    """What two configurations of one run have in common; to read no file, without what counts by content."""
    values = {key: value for key, entry, value in walk(config) if entry.metadata["identity"] and key not in FILES}
    return json.dumps([config.output, config.name, values], sort_keys=True, default=repr)


def _same(one: tuple[Sequence[str], TrainConfig], other: tuple[Sequence[str], TrainConfig], folder: str) -> str:
    names = [" ".join(label(words)) for words, _ in (other, one)]
    values = [{key: value for key, _, value in walk(config)} for _, config in (other, one)]
    differ = sorted(key for key in values[0].keys() | values[1].keys() if values[0].get(key) != values[1].get(key))
    what = ", ".join(differ)
    why = f"differ in {what} only, which is no part of what a run is" if differ else "mean the same"
    return f"two jobs of the sweep are one run, {folder}: '{names[0]}' and '{names[1]}' {why}; leave one out"
