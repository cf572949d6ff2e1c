"""Our settings as Lightning has them."""

from pathlib import Path

import pytest
from pytorch_lightning.plugins import TorchSyncBatchNorm
from pytorch_lightning.plugins.environments import SLURMEnvironment

from queryinst.config import OptimizerConfig, ScheduleConfig
from queryinst.errors import UserError
from queryinst.lightning.trainer import build_trainer
from queryinst.trainer_config import TrainerConfig


@pytest.mark.parametrize("wanted", [True, False])
def test_synchronised_batchnorm_reaches_lightning(tmp_path: Path, wanted: bool):
    config = TrainerConfig(accelerator="cpu", devices="2", strategy="ddp", sync_batchnorm=wanted)
    trainer = build_trainer(config, OptimizerConfig(), ScheduleConfig(), [], [], tmp_path)
    assert trainer.world_size == 2
    assert isinstance(trainer.strategy._layer_sync, TorchSyncBatchNorm) == wanted  # type: ignore[attr-defined]


def test_lightning_does_not_requeue_a_job_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It would write a checkpoint of its own kind, and prefer that to `last.ckpt`."""
    for name in ("PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    for name in ("NTASKS", "NTASKS_PER_NODE", "JOB_ID"):
        monkeypatch.setenv(f"SLURM_{name}", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "queryinst")
    config = TrainerConfig(accelerator="cpu", strategy="ddp")
    trainer = build_trainer(config, OptimizerConfig(), ScheduleConfig(), [], [], tmp_path)
    environment = trainer.strategy.cluster_environment  # type: ignore[attr-defined]
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue


def test_a_number_of_tasks_that_lightning_does_not_take_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    config = TrainerConfig(accelerator="cpu", devices="4", strategy="ddp")
    with pytest.raises(UserError, match=r"^this job of SLURM does not suit Lightning: .* Use `--ntasks-per-node=4`"):
        build_trainer(config, OptimizerConfig(), ScheduleConfig(), [], [], tmp_path)
