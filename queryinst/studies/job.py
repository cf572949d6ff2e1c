"""One run: its folder, skipping or resuming it, and result.json. Training itself is in `lightning/training.py`."""

import contextlib
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
from omegaconf import OmegaConf

from queryinst.config import TrainConfig
from queryinst.errors import Pruned, UserError, room
from queryinst.locks import held
from queryinst.slots import NETWORK, outside, place
from queryinst.studies.files import write_whole
from queryinst.studies.identity import identity, run_folder, run_id
from queryinst.studies.judge import judge
from queryinst.studies.processes import is_first
from queryinst.studies.revision import differing, take_part

if (
    TYPE_CHECKING
):  # torch and Lightning take seconds to import: a command that has nothing to train does not wait for them
    from queryinst.data.datamodule import CocoDataModule
    from queryinst.lightning.training import Trained

RESULT = "result.json"  # exists when a run is finished
LAST = "last.ckpt"  # exists when a run is begun
IN_USE = (*NETWORK, "reader", "metric")  # slots of parts that a trained network needs
CONFIG, LOCK = "config.yaml", ".lock"


def run(config: TrainConfig) -> Path:
    """Train and evaluate, or go on where the same run was interrupted, or say that it is finished.

    Returns:
        the run's folder.

    Raises:
        UserError: anything the user can mend. Nothing that was there before is lost.
    """
    values = identity(config)
    folder = run_folder(config, values)
    if (folder / RESULT).exists():
        if is_first():
            _report_finished(folder)
        return folder
    data = _data(config)
    with _held(folder):
        from queryinst.lightning.callbacks.pruning import Pruning
        from queryinst.lightning.training import train
        from queryinst.studies import results

        if is_first():
            resumed = (folder / LAST).exists()
            if resumed and (changed := differing(folder)):
                print(changed, file=sys.stderr)
            revisions = take_part(folder, resumed)
            write_whole(folder / CONFIG, OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config))))
        description = results.describe(config, values, run_id(values))
        judged = judge()
        more = [Pruning(judged, judged.metric)] if judged else []
        try:
            trained = train(config, data, folder, run_id(values), more)
        except Pruned as end:
            if is_first():
                print(end, flush=True)
            raise
        if is_first():
            results.write(folder / RESULT, description | {"revisions": revisions} | dataclasses.asdict(trained))
            _report(config, folder, trained, data.categories.names)
    return folder


def _data(config: TrainConfig) -> "CocoDataModule":
    """The data, opened and checked before anything is written."""
    from queryinst.data.datamodule import data_module
    from queryinst.data.notes import notes
    from queryinst.structures import COUNTED

    data = data_module(config)
    data.prepare_data()
    data.check()
    if is_first():
        for split, judged in (("train", None), ("val", COUNTED)):
            for note in notes(data.file(split), config.model.num_proposals, judged):
                print(f"note: {note}", flush=True)
    return data


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Make the run folder and keep other processes out of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = any(path.name != LOCK for path in folder.iterdir())
        (folder / LOCK).touch()
    except OSError as error:
        raise UserError(f"the run folder {folder} cannot be written ({error.strerror}); set output=FOLDER") from None
    try:
        with held(folder / LOCK) if is_first() else contextlib.nullcontext():
            try:
                with room(folder):
                    yield
            except UserError:  # leave nothing where nothing came about
                worth = ("*.ckpt", "failed-step-*", "wandb/*run-*")  # W&B knows of the run already
                kept = before or any(any(folder.glob(pattern)) for pattern in worth)
                if is_first() and not kept:
                    shutil.rmtree(folder)
                raise
    except filelock.Timeout:
        raise UserError(
            f"another process is training this run right now ({folder}); wait for it, or change a setting"
        ) from None


def _report(config: TrainConfig, folder: Path, trained: "Trained", names: tuple[str, ...]) -> None:
    source = "VIDEO" if config.data.video else "IMAGE_OR_FOLDER"
    own = dict.fromkeys(place(part)[0] for part in outside(config) if part.slot in IN_USE)
    allow = f" 'allow=[{','.join(own)}]'" if own else ""  # quoted: some shells take brackets for a pattern
    from queryinst.lightning.kinds import table

    print(f"\n{table(trained.metrics, names)}\n\ntrained in {trained.minutes:.1f} minutes; everything is in {folder}\n")
    print(f"look at it      python -m queryinst.predict checkpoint={folder / trained.best}{allow} source={source}")
    print(f"stage by stage  python -m queryinst.evaluate checkpoint={folder / trained.best}{allow} all_stages=true")
    if config.data.shapes or (config.data.video and config.data.video.shapes):  # else it was that
        print("your own data   python -m queryinst.train data=coco data.root=FOLDER")
    sys.stdout.flush()


def _report_finished(folder: Path) -> None:
    try:
        metrics: dict[str, Any] = json.loads((folder / RESULT).read_text())["metrics"]
        kinds = [(word, f"{kind}_AP") for word, kind in (("mask", "segm"), ("box", "bbox")) if f"{kind}_AP" in metrics]
        found = ", ".join(f"{word} AP {metrics[name] or 0:.3f}" for word, name in kinds)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder / RESULT} is damaged ({error}): delete it, and the same command evaluates the run again"
        ) from None
    print(f"this run is finished: {folder}, {found}")
    if changed := differing(folder):
        print(changed)
    print(f"change a setting (seed=1, say) for another run, or delete {folder} to train it again")
