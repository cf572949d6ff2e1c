"""A pytest plugin for `run.py`: the fastest tests first, none that takes long, a temporary folder that is removed."""

import json
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import pytest

LONGEST = 10.0  # seconds: what only a test notices that takes longer is noticed too late, and every survivor would wait


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.option.basetemp = tempfile.mkdtemp(prefix="mutant-")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.option.basetemp, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        seconds = json.loads(Path("mutmut-stats.json").read_text())["duration_by_test"]
    except OSError:  # the first run, which measures them
        return
    items[:] = [item for item in items if seconds.get(item.nodeid, 0.0) < LONGEST]
    of_file: Counter[Path] = Counter()  # kept together, since fixtures are made once a file
    for item in items:
        of_file[item.path] += seconds.get(item.nodeid, 0.0)
    items.sort(key=lambda item: (of_file[item.path], item.path, seconds.get(item.nodeid, 0.0)))
