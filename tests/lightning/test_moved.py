"""A run folder that was moved goes on as it would have where it was."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, Run

from queryinst.errors import Stopped
from queryinst.lightning.callbacks.keep_last import KeepLast

COMMAND = [*TINY, "callbacks.pictures=0"]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stopped")


@pytest.fixture
def stopped(workplace: Path, run: Run, monkeypatch: pytest.MonkeyPatch, kept: Path) -> Path:
    """The folder of a run that was stopped after the first of two epochs, whose best mask AP was 0.9. Made once."""
    for folder in kept.iterdir():
        return Path(shutil.copytree(folder, workplace / "outputs" / folder.name))
    whole = KeepLast.on_train_epoch_end

    def leave(self: KeepLast, trainer: Any, module: Any) -> None:
        whole(self, trainer, module)
        raise Stopped(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(KeepLast, "on_train_epoch_end", leave)
        code, text = run("train", *COMMAND)
    assert code == 128 + signal.SIGTERM, text
    (folder,) = workplace.glob("outputs/*")
    content = torch.load(folder / "last.ckpt", weights_only=True)
    (state,) = (state for key, state in content["callbacks"].items() if "ModelCheckpoint" in key)
    score = torch.tensor(0.9)
    state |= {
        "best_model_score": score,
        "kth_value": score,
        "best_k_models": dict.fromkeys(state["best_k_models"], score),
    }
    torch.save(content, folder / "last.ckpt")
    shutil.copytree(folder, kept / folder.name)
    return folder


@pytest.mark.parametrize("place", ["outputs", "elsewhere/runs"])
def test_the_best_checkpoint_is_kept_where_the_folder_is_now(stopped: Path, run: Run, place: str):
    if place != "outputs":
        Path("elsewhere").mkdir()
        shutil.move(stopped.parent, place)
    folder = Path(place) / stopped.name
    before = (folder / "best.ckpt").read_bytes()
    code, text = run("train", *COMMAND, f"output={place}")
    assert code == 0, text
    assert "resumed at step 6" in text
    assert "Warning" not in text
    assert (folder / "best.ckpt").read_bytes() == before
    assert [path.name for path in sorted(folder.glob("*.ckpt"))] == ["best.ckpt", "last.ckpt"]
    assert place == "outputs" or not Path("outputs").exists(), "nothing is written where it was"


def test_a_best_checkpoint_that_is_gone_is_not_missed(stopped: Path, run: Run):
    """Or the last weights would count as the best, whatever came of the epochs between."""
    (stopped / "best.ckpt").unlink()
    code, text = run("train", *COMMAND)
    assert code == 0, text
    assert torch.load(stopped / "best.ckpt", weights_only=True)["global_step"] == 12
