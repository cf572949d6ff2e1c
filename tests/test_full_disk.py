"""A disk that is full: one sentence, exit code 2, and what was whole before stays so. On a file system of that size."""

import errno
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import SHORT, TINY, Run

from queryinst.errors import UserError
from queryinst.studies import results
from queryinst.studies.files import write_whole

Disk = Callable[[str], Path]
COMMAND = [*TINY, "output=disk", "logger=[csv,tensorboard]"]


@pytest.fixture
def disk(workplace: Path) -> Iterator[Disk]:
    """Gives `disk` below the working directory a size; what is on it stays."""
    place = workplace / "disk"
    place.mkdir()

    def of_size(size: str) -> Path:
        how = ["-o", f"size={size},remount" if place.is_mount() else f"size={size}"]
        done = subprocess.run(["mount", "-t", "tmpfs", *how, "tmpfs", str(place)], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("a small file system cannot be mounted here")
        return place

    yield of_size
    if place.is_mount():
        subprocess.run(["umount", str(place)], check=True)


def failed(run: Run, *words: str) -> str:
    """What a command says that ends because of it."""
    code, text = run(*words)
    assert code == 2, text
    assert "Traceback" not in text
    assert "Error executing job" not in text
    assert text.count("error: ") == 1
    return text[text.index("error: ") :]


def test_a_run_keeps_its_checkpoints_and_goes_on_where_there_is_room_again(disk: Disk, run: Run):
    """The last checkpoint, 19 MB, and the best one, a third of that, fit, and not another last one beside them."""
    place = disk("38m")
    said = failed(run, "train", *COMMAND)
    (folder,) = place.iterdir()
    last = folder.relative_to(Path.cwd()) / "last.ckpt"
    assert said == (
        f"error: the checkpoint {last} cannot be written (no space left); the last good one stays: {last}. Make room, "
        "and the same command goes on\n"
    )
    assert torch.load(last, weights_only=True)["global_step"] == 6
    assert not list(folder.glob("*.partial"))
    disk("400m")
    code, text = run("train", *COMMAND)
    assert code == 0, text
    assert "resumed at step 6" in text
    assert json.loads((folder / "result.json").read_text())["steps"] == 12


def test_a_run_for_which_there_is_no_room_leaves_nothing(disk: Disk, run: Run):
    place = disk("4k")
    assert failed(run, "train", *COMMAND).endswith(
        " cannot be written: no space left. Make room, and the same command goes on; what was whole before is so "
        "still\n"
    )
    assert list(place.iterdir()) == []


def test_settings_and_results_that_do_not_fit_leave_the_old_ones(disk: Disk):
    place = disk("8k")
    results.write(place / "result.json", {"a": 1})
    with pytest.raises(UserError, match=r"result\.json cannot be written: no space left"):
        results.write(place / "result.json", {"a": "b" * 9000})
    with pytest.raises(OSError, match="No space left"):
        write_whole(place / "result.json", "c" * 9000)
    assert json.loads((place / "result.json").read_text()) == {"a": 1}
    assert [path.name for path in place.iterdir()] == ["result.json"]


def test_data_for_which_there_is_no_room_is_not_there(disk: Disk, run: Run):
    place = disk("100k")
    said = failed(run, "doctor", "data=shapes_tiny", "data.root=disk/shapes")
    assert said.startswith("error: disk/shapes cannot be written: no space left. ")
    assert list(place.iterdir()) == []


def test_predictions_and_records_name_what_does_not_fit(disk: Disk, run: Run, untrained: Path):
    place = disk("100k")
    said = failed(
        run, "predict", f"checkpoint={untrained}", "source=data/shapes_tiny/images/val", "output=disk/seen", "score=0"
    )
    assert said.startswith("error: disk/seen")
    pictures = {path.name: path.stat().st_size for path in place.rglob("*.png")}
    assert 0 not in pictures.values()
    said = failed(run, "doctor", "data=shapes_tiny", "picture=disk/seen/a.png")
    assert said.startswith("error: disk/seen/a.png cannot be written: no space left. ")


def test_a_sweep_without_room_for_its_records(disk: Disk, run: Run):
    disk("4k")
    assert "no space left" in failed(run, "train", "-m", *SHORT, "output=disk", "seed=0,1", "dry_run=true")


def test_a_step_that_failed_is_told_also_where_it_cannot_be_kept(
    workplace: Path, run: Run, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    said = failed(run, "train", *SHORT, "optimizer.lr=1e30", "optimizer.clip_norm=0", "schedule.warmup_iterations=0")
    assert "at step 1 (image " in said
    assert "; the batch and the weights cannot be kept in outputs/" in said
    assert "(no space left)" in said
    assert not list(workplace.rglob("failed-step-*"))
