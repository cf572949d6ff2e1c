"""The documented W&B sweep: what an agent would start for sampled values is a command that composes."""

import itertools
from typing import Any

import pytest
import yaml
from conftest import ROOT
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from queryinst.config import TrainConfig
from queryinst.settings import walk
from queryinst.studies.command import compose

FILE = ROOT / "experiments" / "wandb_sweep" / "sweep.yaml"
SWEEP: dict[str, Any] = yaml.safe_load(FILE.read_text())
PARAMETERS: dict[str, dict[str, Any]] = SWEEP["parameters"]


def samples(parameter: dict[str, Any]) -> list[Any]:
    """The ends of a range, or all values."""
    if "value" in parameter:
        return [parameter["value"]]
    return parameter["values"] if "values" in parameter else [parameter["min"], parameter["max"]]


def agents_command(values: dict[str, Any]) -> list[str]:
    """As `wandb agent` puts it together."""
    made = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    words = []
    for word in create_sweep_command(list(SWEEP["command"])):
        words += made.get(word[2:-1], ["/usr/bin/env"]) if word.startswith("${") else [word]
    return words


def test_the_file_is_what_wandb_reads():
    assert SWEEP.keys() <= {"name", "project", "program", "command", "method", "metric", "run_cap", "parameters"}
    assert SWEEP["method"] in ("bayes", "grid", "random")
    assert SWEEP["metric"] == {"name": "val/segm_AP", "goal": "maximize"}
    assert (ROOT / SWEEP["program"]).is_file()
    for name, parameter in PARAMETERS.items():
        kind = parameter.get("distribution", "constant" if "value" in parameter else "categorical")
        asked = {"constant": {"value"}, "categorical": {"values"}}.get(kind, {"distribution", "min", "max"})
        assert kind in ("constant", "categorical", "uniform", "log_uniform_values"), name
        assert parameter.keys() == asked, name


@pytest.mark.parametrize("values", list(itertools.zip_longest(*map(samples, PARAMETERS.values()))))
def test_what_an_agent_starts_composes(values: tuple[Any, ...]):
    drawn = [samples(p)[0] if v is None else v for v, p in zip(values, PARAMETERS.values(), strict=True)]
    wanted = dict(zip(PARAMETERS, drawn, strict=True))
    words = agents_command(wanted)
    assert words[:4] == ["/usr/bin/env", "python", "-m", "queryinst.train"]
    config = compose("config", TrainConfig, words[4:])
    settings = {key: value for key, _, value in walk(config)}
    assert {name: settings[name] for name in wanted} == wanted
    assert config.logger.wandb.enabled
    assert config.logger.csv


def test_numbers_as_a_sampler_gives_them_compose():
    """Small ones in Python's exponents, long ones, and a truth value."""
    wanted = {"optimizer.lr": 3.1e-05, "optimizer.weight_decay": 0.00012345678901234567, "backbone.checkpointing": True}
    config = compose("config", TrainConfig, agents_command(wanted)[4:])
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (3.1e-05, 0.00012345678901234567)
    assert config.backbone.checkpointing is True
