"""Finished runs, found by the name of their study, as folders, or as result.json files."""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from queryinst.errors import UserError, nearest

RESULT, CONFIG, CURVES, MATCHES, ELASTIC = "result.json", "config.yaml", "metrics.csv", "matches.npz", "elastic.json"
STUDIES = "studies"  # below the output folder
OF_CLASS = "segm_AP/"  # before the name of a class: its metric
NEEDED = {
    "id": str,
    "identity": dict,
    "config": dict,
    "metrics": dict,
    "minutes": float,
    "parameters": int,
    "flops": int,
}


@dataclass(frozen=True)
class Run:
    """One finished run: its folder and what result.json says."""

    folder: Path
    result: dict[str, Any]
    overrides: tuple[str, ...] = ()  # of the study's job

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def seed(self) -> int:
        return int(self.result["identity"].get("seed", 0))

    @property
    def classes(self) -> list[str]:
        """Their names, in the order of the labels."""
        return [name.removeprefix(OF_CLASS) for name in self.result["metrics"] if name.startswith(OF_CLASS)]

    def metric(self, name: str) -> float:
        """A metric of the final evaluation; NaN where there was nothing to find."""
        return _number(self.result["metrics"].get(name))

    @property
    def seconds(self) -> float:
        """Of one image in the final evaluation; NaN in runs of older versions."""
        return _number(self.result.get("seconds_per_image"))

    def stages(self, metric: str) -> list[float]:
        """A metric after each stage; empty in runs of older versions."""
        return [_number(stage.get(metric)) for stage in self.result.get("stages") or []]

    def curve(self, metric: str) -> dict[int, float]:
        """A metric by step from metrics.csv; empty without that file. Raises UserError where it cannot be read."""
        path = self.folder / CURVES
        if not path.is_file():
            return {}
        try:
            with path.open(newline="") as file:
                rows = [(row["step"], row.get(metric)) for row in csv.DictReader(file)]
            return {int(step): float(value) for step, value in rows if value}
        except (OSError, ValueError, KeyError, csv.Error) as error:
            raise UserError(f"{path} is damaged ({error}): mend or delete it; curves are drawn from it") from None

    @property
    def seconds_per_step(self) -> float:
        """Of training alone, without evaluations; NaN without metrics.csv."""
        speeds = self.curve("train/images_per_second").values()
        batch = _number((self.result["config"].get("data") or {}).get("batch_size"))
        return batch * mean(1 / speed for speed in speeds) if speeds and all(speeds) else math.nan

    def learned(self, metric: str) -> list[tuple[float, float]]:
        """A metric by minutes of training, without those of evaluations; empty without metrics.csv."""
        minutes = self.seconds_per_step / 60
        return [] if math.isnan(minutes) else [((step + 1) * minutes, v) for step, v in self.curve(metric).items()]

    def elastic(self) -> list[dict[str, Any]]:
        """Rows of elastic.json: the trained network, run with fewer stages or proposals; empty where there is none."""
        path = self.folder / ELASTIC
        if not path.is_file():
            return []
        rows = _json(path).get("rows")
        wanted = ("stages", "proposals", "segm_AP", "bbox_AP", "gflops", "seconds_per_image")
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= set(wanted) for row in rows):
            raise UserError(f"{path} is damaged: its `rows` need {', '.join(wanted)}; make it again, or delete it")
        return [{name: _number(row[name]) for name in wanted} for row in rows]


@dataclass
class Found:
    """The runs to compare, and what was left out and why."""

    runs: list[Run] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # a sentence each
    studies: list[str] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)  # of the studies


def find(names: Sequence[str], output: Path) -> Found:
    """The finished runs behind names of studies, run folders, folders of run folders, and result.json files.

    Raises:
        UserError: a name that is none of these, a damaged result.json, or fewer than two finished runs.
    """
    found = Found()
    for name in names:
        for run, fault in _of_name(name, output, found):
            if fault:
                found.left_out.append(fault)
            if run and all(run.folder.resolve() != other.folder.resolve() for other in found.runs):
                same = next((o for o in found.runs if o.result["identity"] == run.result["identity"]), None)
                if same:
                    found.left_out.append(f"{run.folder}: the same settings and seed as {same.folder}")
                else:
                    found.runs.append(run)
    if len(found.runs) < 2:
        left = f" (left out: {'; '.join(found.left_out)})" if found.left_out else ""
        got = f"only {found.runs[0].folder} is finished" if found.runs else "there is no finished run"
        raise UserError(f"compare needs two finished runs or more; in {', '.join(names)} {got}{left}")
    return found


def _of_name(name: str, output: Path, found: Found) -> Iterator[tuple[Run | None, str]]:
    """What one argument leads to: a run, or a sentence on one that is not finished."""
    path = Path(name)
    for study in (output / STUDIES / name, path):
        if study.is_dir() and study.resolve().parent.name == STUDIES:
            found.studies.append(study.name)
            found.folders.append(study)
            yield from _of_study(study, output)
            return
    if path.is_file() and path.suffix == ".json":
        yield _run(path.parent, path), ""
    elif (path / RESULT).is_file():
        yield _run(path), ""
    elif path.is_dir():
        yield from _of_folder(path)
    else:
        known = sorted(study.name for study in (output / STUDIES).glob("*") if study.is_dir())
        listed = (
            f"the studies in {output / STUDIES} are {', '.join(known)}"
            if known
            else (f"there is no study in {output / STUDIES}")
        )
        raise UserError(f"'{name}' is no study, no folder and no result.json; {listed}{nearest(name, known)}")


def _of_folder(path: Path) -> Iterator[tuple[Run | None, str]]:
    folders = sorted({file.parent for name in (RESULT, CONFIG) for file in (*path.glob(name), *path.glob(f"*/{name}"))})
    if not folders:
        raise UserError(f"{path} holds no run: wanted a run's folder with {RESULT}, or a folder of such folders")
    runs = []
    for folder in folders:
        if (folder / RESULT).is_file():
            runs.append(_run(folder))
        else:
            yield None, f"{folder}: not finished (no {RESULT})"
    # Names of folders are hashes: in the order of the settings, the first is one that somebody would call the first.
    yield from ((run, "") for run in sorted(runs, key=lambda run: natural(run.result["identity"])))


def _of_study(study: Path, output: Path) -> Iterator[tuple[Run | None, str]]:
    """The runs of a study's records (`studies/sweep.py`), in the order of its jobs."""
    jobs = [(path.stem, _json(path)) for path in sorted(study.glob("*.json"))]
    if not jobs:
        raise UserError(f"the study {study} has no job that began; start it with python -m queryinst.train -m")
    for stem, job in sorted(jobs, key=lambda entry: _place(*entry)):
        overrides = tuple(str(word) for word in job.get("overrides") or ())
        folder = Path(str(job.get("folder") or stem))
        folder = here if (here := output / folder.name).is_dir() else folder  # a study may have been moved
        if (folder / RESULT).is_file():
            yield _run(folder, overrides=overrides), ""
        else:
            yield None, f"{folder} of {study.name} ({' '.join(overrides)}): {job.get('status') or 'not finished'}"


def _place(stem: str, job: dict[str, Any]) -> tuple[float, str]:
    """Of a job in its study: by its number, else by its settings."""
    number = job.get("number", stem)
    return float(number) if str(number).isdecimal() else math.inf, str(job.get("overrides"))


def _run(folder: Path, file: Path | None = None, overrides: tuple[str, ...] = ()) -> Run:
    path = file or folder / RESULT
    result = _json(path)
    for key, kind in NEEDED.items():
        if not isinstance(result.get(key), (int, float) if kind is float else kind):
            raise UserError(
                f"{path} is damaged: `{key}` is {'wrong' if key in result else 'missing'}; "
                "delete the file, and the train command of that run evaluates it again"
            )
    return Run(folder, result, overrides)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, or leave its run out") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no JSON object): delete it, or leave its run out")
    return content


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def natural(value: Any) -> Any:
    """A key that sorts values of any JSON type: nothing, numbers by size, texts, lists."""
    if value is None:
        return (0, 0.0, "", ())
    if isinstance(value, int | float):
        return (1, float(value), "", ())
    if isinstance(value, dict):
        return (3, 0.0, "", tuple((key, natural(value[key])) for key in sorted(value)))
    if isinstance(value, list | tuple):
        return (3, 0.0, "", tuple(natural(item) for item in value))
    return (2, 0.0, str(value), ())
