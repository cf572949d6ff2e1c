"""Where settings come from: the words of a command line as Hydra reads them, and the folders that it composes from.

Besides our `conf/` these are what `--config-dir` and `hydra.searchpath` add, or what `--config-path` puts in its place,
so that a group or an option of the user's own is known like ours, and by name where something is wrong.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import (
    create_automatic_config_search_path,
    detect_calling_file_or_module_from_task_function,
    get_args_parser,
)
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from omegaconf import DictConfig

from queryinst.errors import UserError

PACKAGE = Path(__file__).parents[1]
# In an installed wheel `conf` travels inside the package; in a checkout it lies beside it.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
OPTIONS = ("config_path", "config_dir", "config_name")  # Hydra's flags that decide what a run is


class Sources:
    """A command line taken apart, and the groups and options that it can choose from.

    Args:
        words: the command line without the program: Hydra's flags and overrides in any order.
        task: the function that is run; a relative `--config-path` is meant from its file, as everywhere in Hydra.

    Raises:
        UserError: a flag that Hydra does not have; where groups are asked for, a folder that is not there.
    """

    def __init__(self, words: Sequence[str], task: Callable[..., Any] | None = None) -> None:
        parser = get_args_parser()
        parser.error = _refuse  # type: ignore[method-assign]
        given = parser.parse_intermixed_args(list(words))
        self.overrides: list[str] = list(given.overrides)
        left, self.flags = list(self.overrides), []
        for word in words:
            if left and word == left[0]:
                left.pop(0)
            else:
                self.flags.append(word)
        self.name: str | None = given.config_name
        self.folder = None if given.config_dir is None else Path(given.config_dir).absolute()
        self.place: str = given.config_path or str(CONF)
        self.lasting = [f"--{key.replace('_', '-')}={getattr(given, key)}" for key in OPTIONS if getattr(given, key)]
        self._task = task

    @functools.cached_property  # opened where it is asked for: most configurations are right, and nothing is explained
    def _repository(self) -> Any:
        task = self._task
        if self.folder and not self.folder.is_dir():
            raise UserError(f"--config-dir={self.folder} is no folder: give one with groups such as experiment/ in it")
        called = detect_calling_file_or_module_from_task_function(task) if task else (None, None)
        place = self.place if task or "://" in self.place else str(Path(self.place).absolute())
        path = create_automatic_config_search_path(*called, place)
        if self.folder:
            path.prepend("command-line", f"file://{self.folder}", SearchPathQuery(provider="schema"))
        loader = ConfigLoaderImpl(path)
        more = [word for word in self.overrides if word.startswith("hydra.searchpath=")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Hydra warns of a folder that is missing; here it is an error
            try:
                _, repository = loader._parse_overrides_and_create_caching_repo(self.name, more)
            except HydraException:  # a list that cannot be read, of which Hydra will say so
                return loader.repository
        for source in repository.get_sources():
            if "searchpath" in source.provider and not source.available():
                raise UserError(
                    f"hydra.searchpath has '{source.scheme()}://{source.path}', which is not there: give folders as "
                    "file://FOLDER and packages as pkg://PACKAGE.FOLDER"
                )
        return repository

    def searched(self) -> list[str]:
        """The overrides, with `--config-dir` as one of them, where flags are not known."""
        if not self.folder:
            return self.overrides
        given = [word for word in self.overrides if word.startswith("hydra.searchpath=")]
        kept = [word for word in self.overrides if word not in given]
        more = f",{given[-1].partition('=')[2].strip()[1:-1]}" if given else ""
        return [*kept, f"hydra.searchpath=['file://{self.folder}'{more}]"]

    def groups(self) -> list[str]:
        """All groups of settings."""
        found = self._repository.get_group_options("", ObjectType.GROUP)
        return [name for name in found if name != "hydra" and name[0] not in "._"]

    def options(self, group: str) -> list[str]:
        """The options of a group; of none, the configurations themselves."""
        found = self._repository.get_group_options(group)
        return [name for name in found if name[0] != "_" and not name.endswith("_schema")]

    def load(self, group: str, option: str) -> DictConfig:
        """What the file of an option says."""
        return self._repository.load_config(f"{group}/{option}").config

    def files(self, name: str) -> list[str]:
        """The files that a `group/option` could be, the first of which is the one that counts."""
        places = [Path(source.path) for source in self._repository.get_sources() if source.is_config(name)]
        once = dict.fromkeys(place.resolve() if place.is_dir() else place for place in places)
        return [f"{place.name if place == CONF.resolve() else place}/{name}.yaml" for place in once]


def _refuse(message: str) -> NoReturn:
    raise UserError(f"the command line cannot be read: {message}")
