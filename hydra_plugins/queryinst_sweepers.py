"""Where Hydra finds our sweepers: it makes none that is defined outside of the name space `hydra_plugins`."""

from queryinst.studies import grid, search


class Grid(grid.Grid):
    """All combinations of the values given."""


class Search(search.Search):
    """Trials that Optuna chooses."""
