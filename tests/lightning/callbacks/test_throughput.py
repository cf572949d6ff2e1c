"""Images a second, the share of time without a batch, and minutes over all resumptions."""

from types import SimpleNamespace
from typing import Any

import pytest

from queryinst.lightning.callbacks import throughput as module
from queryinst.lightning.callbacks.throughput import Throughput
from queryinst.lightning.module import LOG_EVERY


class Clock:
    """A clock that stands still unless told otherwise."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def epoch(throughput: Any, clock: Clock, world: int) -> dict[str, float]:
    """Steps of 0.3 s, of which the batch is waited for 0.1 s; 4 images each."""
    logged: dict[str, float] = {}
    trainer = SimpleNamespace(world_size=world, global_step=LOG_EVERY)
    watched = SimpleNamespace(log=lambda name, value, **how: None)
    conductor = SimpleNamespace(write=lambda metrics, step: logged.update(metrics, step=step), log=watched.log)
    throughput.on_train_start(trainer, conductor)
    throughput.on_train_epoch_start(trainer, conductor)
    for index in range(LOG_EVERY):
        clock.now += 0.1
        throughput.on_train_batch_start(trainer, conductor, SimpleNamespace(images=range(4)), index)
        clock.now += 0.2
        throughput.on_train_batch_end(trainer, conductor, None, None, index)
    return logged


@pytest.mark.parametrize("world", [1, 2])
def test_speed_and_wait(clock: Clock, world: int):
    logged = epoch(Throughput(), clock, world)
    assert logged["train/images_per_second"] == pytest.approx(world * 4 / 0.3)
    assert logged["train/data_wait"] == pytest.approx(1 / 3)
    assert logged["step"] == LOG_EVERY - 1


def test_minutes_add_up_over_resumptions(clock: Clock):
    first = Throughput()
    epoch(first, clock, 1)
    assert first.elapsed() == pytest.approx(0.3 * LOG_EVERY)
    state = first.state_dict()
    clock.now += 1000
    second = Throughput()
    second.load_state_dict(state)
    epoch(second, clock, 1)
    assert second.elapsed() == pytest.approx(0.6 * LOG_EVERY)
