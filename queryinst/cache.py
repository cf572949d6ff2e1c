"""The folder for what can be made or fetched again: indices of annotation files, published weights."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$QUERYINST_CACHE`; else `queryinst` below `$XDG_CACHE_HOME` or `~/.cache`. It need not exist."""
    own = os.environ.get("QUERYINST_CACHE")
    return Path(own or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "queryinst")).expanduser()
