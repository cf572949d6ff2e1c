"""The SLURM template: bash takes it, its command composes, and it goes back into the queue only when told."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

from queryinst.config import TrainConfig
from queryinst.studies.command import compose

SCRIPT = ROOT / "experiments" / "slurm" / "train.sbatch"
README = SCRIPT.parent / "README.md"


def arguments(text: str, module: str) -> list[str]:
    """What follows `MODULE` in a command of several lines, shell variables replaced by 8."""
    (found,) = re.findall(rf"{re.escape(module)}((?: [^\n`]*\\\n|[^\n`\\])+)", text.replace("\\\n", " "))
    return shlex.split(re.sub(r"\$\{\w+:-(\d+)\}", r"\1", found))


@pytest.mark.parametrize("path", [SCRIPT, README], ids=["sbatch", "torchrun"])
def test_the_command_composes(path: Path):
    words = arguments(path.read_text(), "-m queryinst.train")
    config = compose("config", TrainConfig, words)
    assert config.trainer.strategy == "ddp"
    assert config.trainer.devices == "8"
    assert config.trainer.num_nodes in (1, 2)


def test_trainer_ddp_composes():
    trainer = compose("config", TrainConfig, ["trainer=ddp"]).trainer
    assert (trainer.accelerator, trainer.devices, trainer.strategy) == ("gpu", "auto", "ddp")


def test_bash_takes_it():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


@pytest.mark.parametrize(("code", "requeued"), [(138, True), (0, False), (1, False), (2, False), (137, False)])
def test_it_is_put_back_into_the_queue_only_where_it_stopped_in_good_order(tmp_path: Path, code: int, requeued: bool):
    for name, line in (
        ("srun", f'echo "$@" > {tmp_path}/started; exit {code}'),
        ("scontrol", f"echo $@ > {tmp_path}/said"),
    ):
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{line}\n")
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "42", "SLURM_NNODES": "2"}
    ended = subprocess.run(["bash", str(SCRIPT)], env=environment, check=False).returncode
    assert "trainer.num_nodes=2" in (tmp_path / "started").read_text()
    assert (tmp_path / "said").exists() == requeued
    assert ended == (0 if requeued else code)
    if requeued:
        assert (tmp_path / "said").read_text() == "requeue 42\n"
