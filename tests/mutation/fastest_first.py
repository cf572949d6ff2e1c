"""A pytest plugin for `run.py`: the fastest tests first, so that a mutant is killed soon."""

import json
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        seconds = json.loads(Path("mutmut-stats.json").read_text())["duration_by_test"]
    except OSError:  # the first run, which measures them
        return
    items.sort(key=lambda item: seconds.get(item.nodeid, 0.0))
