"""A run whose checkpoints are of other layers, because somebody has changed the code, says which tensor it is."""

from pathlib import Path

import pytest
import torch
from conftest import SHORT, Run

NAME = "model.stages.0.box.cls.bias"


@pytest.mark.parametrize("file", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("change", ["shape", "missing", "surplus"])
def test_it_is_one_sentence(trained: Path, run: Run, file: str, change: str):
    (trained / "result.json").unlink()
    content = torch.load(trained / file, weights_only=True)
    state = content["state_dict"]
    if change == "shape":
        state[NAME] = torch.zeros(9, 2)
    elif change == "missing":
        del state[NAME]
    else:
        state["model.other"] = torch.zeros(3)
    torch.save(content, trained / file)
    before = (trained / "last.ckpt").read_bytes()
    code, text = run("train", *SHORT)
    prefix = "model." * (file == "last.ckpt")
    place = trained.relative_to(Path.cwd()) / file
    differing = {
        "shape": f"{prefix}stages.0.box.cls.bias is (9, 2) there and (8,) here",
        "missing": f"{prefix}stages.0.box.cls.bias is missing there and (8,) here",
        "surplus": f"{prefix}other is (3,) there and missing here",
    }
    assert code == 2
    assert text.splitlines()[-1] == (
        f"error: {place} does not fit the network: {differing[change]}; the code of its layers has changed since. Go "
        "back to the code that the run was begun with (its folder's revisions.txt may say which), or delete "
        f"{place.parent} to train it again"
    )
    assert "Traceback" not in text
    assert (trained / "last.ckpt").read_bytes() == before
