"""A run that a search prunes: it ends at an epoch's end, is no failure, and goes on as if nothing had been."""

import json
from pathlib import Path

import pytest
import torch
from conftest import SHORT

from queryinst.config import TrainConfig
from queryinst.errors import Pruned
from queryinst.studies import job
from queryinst.studies.command import compose


class Prunes:
    """A judge that ends a run after some epoch."""

    metric = "segm_AP"

    def __init__(self, after: int) -> None:
        self.after = after
        self.asked: list[int] = []

    def __call__(self, epoch: int, value: float) -> bool:
        assert 0 <= value <= 1
        self.asked.append(epoch)
        return epoch >= self.after


def test_a_pruned_run_goes_on(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    words = [*SHORT, "schedule.epochs=2", "trainer.max_train_batches=2", "trainer.max_val_batches=1"]
    config = compose("config", TrainConfig, words)
    judge = Prunes(after=1)
    monkeypatch.setattr(job, "judge", lambda: judge)
    with pytest.raises(Pruned, match=r"^pruned after epoch 1, with segm_AP 0\.\d+$") as raised:
        job.run(config)
    assert raised.value.code == 3
    (folder,) = Path("outputs").iterdir()
    assert judge.asked == [1]
    assert not (folder / "result.json").exists()
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 2
    assert "pruned after epoch 1, with segm_AP" in capsys.readouterr().out

    judge = Prunes(after=2)  # the last evaluation is reported as well, and prunes nothing
    job.run(config)
    assert judge.asked == [2]
    metrics = json.loads((folder / "result.json").read_text())["metrics"]
    resumed = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    monkeypatch.setattr(job, "judge", lambda: None)
    again = job.run(compose("config", TrainConfig, [*words, "output=again"]))
    assert json.loads((again / "result.json").read_text())["metrics"] == metrics
    whole = torch.load(again / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
