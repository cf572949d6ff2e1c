# `make help` lists the targets. Everything happens in a virtual environment in this folder, .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help env train test test-slow mutants check format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

env: $(VENV)/.ready  ## make the environment: pinned versions of everything, in .venv

$(VENV)/.ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; got " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

train: env  ## train the default on the embedded data; ARGS="seed=1" changes settings
	$(BIN)/python -m queryinst.train $(ARGS)

test: env  ## the tests, without the slow ones
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder \
		--durations 20 $(ARGS)

test-slow: env  ## the slow tests
	$(BIN)/python -m pytest -m slow $(ARGS)

mutants: env  ## which small changes of the code no test notices; 6 to 18 minutes a part where it was timed, goes on where it was; ARGS="ops data"
	$(BIN)/python tests/mutation/run.py $(ARGS)

check: env  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: env  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and caches; data and outputs stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info
