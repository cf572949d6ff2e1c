"""What a run says while it goes, in a terminal and without one."""

import io
from types import SimpleNamespace
from typing import Any

import torch
from rich.console import Console

from queryinst.lightning.callbacks.progress import RunProgress, _clock


def trainer(step: int, **metrics: float) -> Any:
    """What the bar reads of a Trainer: 2 epochs of 10 steps."""
    return SimpleNamespace(
        global_step=step,
        current_epoch=step // 10,
        max_epochs=2,
        num_training_batches=10,
        accumulate_grad_batches=1,
        callback_metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )


def test_without_a_terminal_a_line_an_epoch_says_where_and_how_long():
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    progress: Any = RunProgress(console)
    progress.on_train_start(trainer(0), None)
    for step in range(1, 10):
        progress.on_train_batch_end(trainer(step), None, None, None, step)
    assert console.file.getvalue() == "", "nothing within a short epoch"
    progress._begun -= 30
    progress.on_validation_end(trainer(9, **{"val/segm_AP": 0.25, "val/bbox_AP": 0.5}), None)
    progress.on_train_epoch_end(trainer(9, **{"train/loss": 7.125, "train/images_per_second": 41.0}), None)
    text = console.file.getvalue()
    assert "epoch 1/2  step 9/20  loss 7.12  mask AP 0.250  box AP 0.500  41 images/s" in text
    assert "0:37 left, until " in text, "30 seconds for 9 steps leave 37 for 11"


def test_without_a_terminal_a_long_epoch_says_so_every_minute():
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    progress: Any = RunProgress(console)
    progress.on_train_start(trainer(0), None)
    progress._said -= 61
    progress.on_train_batch_end(trainer(1), None, None, None, 0)
    progress.on_train_batch_end(trainer(2), None, None, None, 1)
    assert console.file.getvalue().count("epoch 1/2") == 1


def test_a_resumed_run_estimates_from_its_own_steps():
    console = Console(file=io.StringIO(), force_terminal=False, width=200)
    progress: Any = RunProgress(console)
    progress.on_train_start(trainer(10), None)
    progress._begun -= 10
    progress.on_train_epoch_end(trainer(15), None)
    assert "0:10 left" in console.file.getvalue()


def test_in_a_terminal_there_is_one_bar_and_text_goes_above_it():
    console = Console(file=io.StringIO(), force_terminal=True, width=150)
    progress: Any = RunProgress(console)
    progress.on_train_start(trainer(0), None)
    progress.on_train_batch_end(trainer(1, **{"train/loss": 3.5}), None, None, None, 0)
    progress.say("folder [not markup]")
    progress.on_train_epoch_end(trainer(10), None)
    progress.teardown(trainer(20), None, "fit")
    text = console.file.getvalue()
    assert "epoch 1/2  step 1/20" in text
    assert "loss 3.50" in text
    assert "folder [not markup]" in text


def test_other_ranks_are_silent():
    console = Console(file=io.StringIO(), force_terminal=False)
    progress: Any = RunProgress(console)
    progress.disable()
    progress.on_train_start(trainer(0), None)
    progress.say("anything")
    progress.print("anything")
    progress.on_train_epoch_end(trainer(10), None)
    assert console.file.getvalue() == ""


def test_clock():
    assert [_clock(seconds) for seconds in (0.4, 61, 3599.6, 90061)] == ["0:00", "1:01", "1:00:00", "25:01:01"]
