"""Our sweepers, made known to Hydra: the grid in the place of its own, and the search."""

import sys
from types import ModuleType

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

SPACE = "hydra_plugins.queryinst"  # Hydra makes no sweeper whose module has another beginning


def register() -> None:
    """To be called before Hydra reads a command. An `override` in `config.yaml` would count more than a study's."""
    from queryinst.studies import grid, search  # which compose jobs, as the command that calls this does

    plugins = Plugins.instance()  # makes Hydra's own
    space = ModuleType(SPACE)
    for kind in (grid.Grid, search.Search):
        ours = type(kind.__name__, (kind,), {"__module__": SPACE, "__doc__": kind.__doc__})
        setattr(space, kind.__name__, ours)
        plugins.register(ours)
    sys.modules[SPACE] = space
    sys.modules.setdefault("hydra_plugins", ModuleType("hydra_plugins")).queryinst = space  # type: ignore[attr-defined]
    basic = {"_target_": f"{SPACE}.Grid", "max_batch_size": None, "params": None}
    ConfigStore.instance().store("basic", basic, "hydra/sweeper", provider="queryinst")
