"""Kill a training run at random moments, start it again with the same command, and compare with one never killed.

    python experiments/exact_resume/kill.py --kills 20 [--work FOLDER] [SETTING=VALUE ...]

Weights, optimizer, schedule, metrics.csv and TensorBoard's curves must be the same to the last bit (what measures time
is left out). Every trial has its own number of loader processes before and after the kill. SETTINGs go to every run.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TIMED = ("train/images_per_second", "train/data_wait")
COMMAND = [
    *(sys.executable, "-m", "queryinst.train", "data=shapes_tiny", "schedule.epochs=3", "schedule.warmup_iterations=2"),
    *("data.batch_size=2", "trainer.checkpoint_every=3", "callbacks.pictures=0", "trainer.threads=1"),
]


def start(work: Path, settings: list[str], workers: int) -> subprocess.Popen[bytes]:
    """A training run in its own process group, so that its loader processes end with it."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [*COMMAND, *settings, f"data.num_workers={workers}"]
    with (work / "log.txt").open("ab") as log:
        return subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=log, start_new_session=True)


def wait_for_training(work: Path, process: subprocess.Popen[bytes]) -> float:
    """Seconds until the first metrics are written: from here on there is something to lose."""
    begun = time.monotonic()
    while process.poll() is None and not list((work / "outputs").glob("*-*/metrics.csv")):
        time.sleep(0.01)
    return time.monotonic() - begun


def outcome(work: Path) -> dict[str, Any]:
    """Everything that must not depend on how often a run was ended."""
    (folder,) = (work / "outputs").glob("*-*")
    checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
    with (folder / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k not in TIMED and v} for row in csv.DictReader(file)]
    curves = {}
    if (folder / "tensorboard").exists():
        events = EventAccumulator(str(folder / "tensorboard")).Reload()
        curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "current_model_state")
    return {
        **{key: checkpoint[key] for key in kept if key in checkpoint},
        "metrics.csv": [row for row in rows if row.keys() != {"step"}],
        "curves": {tag: points for tag, points in curves.items() if tag not in TIMED},
    }


def same(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Where two outcomes differ."""
    if isinstance(ours, torch.Tensor):
        return [] if torch.equal(ours, theirs) else [where]
    if isinstance(ours, dict):
        if ours.keys() != theirs.keys():
            return [f"{where}: {sorted(map(str, ours.keys() ^ theirs.keys()))}"]
        return [place for key in ours for place in same(ours[key], theirs[key], f"{where}.{key}")]
    if isinstance(ours, list | tuple):
        if len(ours) != len(theirs):
            return [f"{where}: {len(ours)} and {len(theirs)} entries"]
        pairs = enumerate(zip(ours, theirs, strict=True))
        return [place for index, (a, b) in pairs for place in same(a, b, f"{where}[{index}]")]
    return [] if ours == theirs else [f"{where}: {ours!r} and {theirs!r}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--work", type=Path, default=Path(tempfile.mkdtemp(prefix="exact_resume-")))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=("SIGKILL", "SIGTERM", "SIGUSR1"), default="SIGKILL")
    arguments, settings = parser.parse_known_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    chance, work = random.Random(arguments.seed), arguments.work
    shutil.rmtree(work / "outputs", ignore_errors=True)
    process = start(work, settings, 0)
    wait_for_training(work, process)
    begun = time.monotonic()
    if process.wait():
        sys.exit(f"the run that is never killed failed: see {work / 'log.txt'}")
    span, expected = time.monotonic() - begun, outcome(work)
    print(f"never killed: {expected['global_step']} steps in {span:.1f} s", flush=True)
    different = 0
    for trial in range(arguments.kills):
        shutil.rmtree(work / "outputs")
        moment, before, after = chance.uniform(0, 0.9) * span, chance.choice((0, 2)), chance.choice((0, 2))
        process = start(work, settings, before)
        wait_for_training(work, process)
        time.sleep(moment)
        os.killpg(process.pid, getattr(signal, arguments.signal))
        code = process.wait()
        left = sorted(path.name for path in (work / "outputs").glob("*-*/*.*"))
        if start(work, settings, after).wait():
            sys.exit(f"the run did not go on: see {work / 'log.txt'}")
        differences = same(outcome(work), expected)
        different += bool(differences)
        verdict = f"differs: {differences[:3]}" if differences else "the same"
        print(
            f"{trial + 1:3} after {moment:5.2f} s of training, exit code {code}, workers {before} then {after}, "
            f"found {', '.join(left) or 'nothing'}: {verdict}",
            flush=True,
        )
    print(f"{arguments.kills - different} of {arguments.kills} ended the same")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
