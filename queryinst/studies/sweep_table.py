"""What became of the jobs of a sweep, or what they will cost: a table, and the exit code that says it."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from queryinst.config import TrainConfig
from queryinst.studies.call import call
from queryinst.studies.identity import identity, run_folder
from queryinst.studies.job import RESULT
from queryinst.studies.plan import Plan, plan
from queryinst.studies.sweep import Record, records

WIDTH = 200  # characters, where there is no terminal


def report() -> int:
    """Print what became of the jobs of this command.

    Returns:
        0 where all are finished, pruned or planned, 1 where one failed or was stopped.
    """
    found = records()
    if not found:
        return 0
    console = _console()
    dry = any(record.plan for record in found)
    console.print("", _plans(found) if dry else _outcomes(found))
    for record in found:
        if record.said:
            console.print(Text(f"\n{_name(record)}: {record.status}\n  " + record.said.replace("\n", "\n  ")))
    pruned = sum(record.status == "pruned" for record in found)
    done = sum(record.status in ("finished", "planned") for record in found)
    also = f", {pruned} pruned" if pruned else ""
    console.print(
        f"\n{done} of {len(found)} jobs {'planned' if dry else 'finished'}{also}; records and logs: {call()['folder']}"
    )
    if dry:
        _say_missing(found)
    if dry and not all(Plan(**record.plan).minutes for record in found if record.plan):
        console.print("no hours: no finished run on the same data to estimate them from")
    elif not dry and done:
        console.print(f"compare them: python -m queryinst.compare {Path(call()['folder']).name}")
    return 0 if done + pruned == len(found) else 1


def report_plan(config: TrainConfig) -> None:
    """Print which run a configuration is, and what it will cost."""
    folder = run_folder(config, identity(config))
    record = Record([config.name], folder.as_posix(), "planned", "", 0, plan=asdict(plan(config, folder)))
    _console().print(_plans([record]))
    _say_missing([record])


def _say_missing(found: Sequence[Record]) -> None:
    """That the data of planned runs is not here, which does not keep them from being planned."""
    for missing in dict.fromkeys(Plan(**record.plan).missing for record in found if record.plan):
        if missing:
            print(f"note: without its data this cannot be trained here: {missing}", flush=True)


def _console() -> Console:
    return Console(
        file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH, markup=False
    )  # settings have brackets


def _outcomes(found: Sequence[Record]) -> Table:
    table = _table("job", "run", "status", "mask AP", "box AP", "minutes")
    for record in found:
        result = Path(record.folder) / RESULT if record.status == "finished" else None
        status = record.status + " before" * record.before
        table.add_row(_name(record), Path(record.folder).name, status, *_numbers(result))
    return table


def _numbers(result: Path | None) -> list[str]:
    """Mask AP, box AP and minutes of a finished run."""
    if not result:
        return ["", "", ""]
    try:
        content = json.loads(result.read_text())
        aps = [content["metrics"]["segm_AP"], content["metrics"].get("bbox_AP")]  # of video there is no box AP
        return [*("-" if ap is None else f"{ap:.3f}" for ap in aps), f"{content['minutes']:.1f}"]
    except (OSError, ValueError, KeyError, TypeError):
        return ["damaged", "", ""]


def _plans(found: Sequence[Record]) -> Table:
    table = _table("job", "run", "state", "M parameters", "GFLOPs", "hours")
    total = 0.0
    for record in found:
        if not record.plan:
            table.add_row(_name(record), "", record.status)
            continue
        plan = Plan(**record.plan)
        hours = None if plan.minutes is None else plan.minutes / 60
        total += (hours or 0) * (plan.state != "finished")
        size = (f"{plan.parameters / 1e6:.2f}", f"{plan.flops / 1e9:.2f}", "" if hours is None else f"{hours:.2f}")
        table.add_row(_name(record), Path(record.folder).name, plan.state, *size)
    if total:
        table.add_section()
        table.add_row("not finished, together", "", "", "", "", f"{total:.2f}")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < 3 else "right", overflow="fold")
    return table


def _name(record: Record) -> str:
    return " ".join(record.overrides) or "run"
