"""A comparison as a whole: from runs to table, statements, plots and notes."""

import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from queryinst import __version__
from queryinst.studies.compare import figures, search, table
from queryinst.studies.compare.figures import Plot
from queryinst.studies.compare.groups import Group, baseline, group, kinds_of
from queryinst.studies.compare.noise import Difference, Noise
from queryinst.studies.compare.runs import CURVES, MATCHES, Found, Run

VALIDATION = (
    "data.val",
    "trainer.max_val_batches",
    *(f"data.shapes.{key}" for key in ("val", "side", "seed")),
    *(f"data.video.shapes.{key}" for key in ("val", "side", "seed", "frames")),
)


@dataclass(frozen=True)
class Comparison:
    """Everything that is written, logged and printed."""

    name: str
    command: str
    groups: list[Group]
    base: Group
    columns: list[table.Column]
    rows: list[table.Row]
    differences: list[Difference]
    plots: list[Plot]
    warnings: list[str]  # what makes the numbers doubtful
    notes: list[str]  # what is missing, and how to read the rest
    left_out: list[str]
    elastic: list[dict[str, Any]]
    versions: dict[str, str]  # of this comparison; those of the runs are theirs

    @property
    def runs(self) -> list[tuple[Group, Run]]:
        return [(one, run) for one in self.groups for run in one.runs]


def compare(found: Found, name: str, command: str, base_label: str | None, resamples: int) -> Comparison:
    """Compare finished runs.

    Args:
        found: the runs.
        name: of the comparison.
        command: that asked for it, for the page.
        base_label: label of the group that the others are held against; None: that of the first run.
        resamples: rows of the bootstrap.

    Raises:
        UserError: there is no such group, or a file of a run is damaged.
    """
    groups = group(found.runs)
    base = baseline(groups, base_label, found.runs[0])
    noise = Noise(groups, resamples)
    for run in found.runs:
        if (run.folder / MATCHES).is_file():
            noise.check(run)
    differences = [noise.difference(one, base, kind) for one in groups if one is not base for kind in kinds_of(groups)]
    columns, made = table.rows(groups)
    searches = [one for folder in found.folders if (one := search.read(folder))]
    return Comparison(
        name=name,
        command=command,
        groups=groups,
        base=base,
        columns=columns,
        rows=made,
        differences=differences,
        plots=[*(plot for one in searches for plot in search.draw(one)), *figures.draw(groups, base, noise)],
        warnings=_warnings(found.runs),
        notes=[*map(search.note, searches), *_notes(found.runs, groups, differences, resamples)],
        left_out=found.left_out,
        elastic=[{"group": one.label, **row} for one in groups for row in figures.elastic_rows(one)],
        versions={"queryinst": __version__, "python": platform.python_version(), "numpy": np.__version__}
        | {"matplotlib": importlib.metadata.version("matplotlib")},
    )


def _warnings(runs: Sequence[Run]) -> list[str]:
    results = [run.result for run in runs]
    texts = []
    shown = [result["identity"].get("pictures.val") for result in results]
    others = _differ(picture for picture in shown if picture)  # runs from before pictures counted do not say
    if others or _differ(json.dumps([r["identity"].get(key) for key in VALIDATION]) for r in results):
        texts.append("The runs were evaluated on different validation images: their APs do not compare.")
    git = [result.get("git") or {} for result in results]
    if _differ(str(state.get("revision")) for state in git):
        texts.append("The runs were made by different revisions of the code (see the runs below).")
    dirty = [run.name for run, state in zip(runs, git, strict=True) if state.get("dirty")]
    if dirty:
        texts.append(f"The code had changes that were not committed in {_listed(dirty, len(runs), 'every run')}.")
    if _differ(json.dumps(result.get("versions"), sort_keys=True) for result in results):
        texts.append("The runs were made with different versions of packages (see the runs below).")
    if _differ(json.dumps(result.get("hardware"), sort_keys=True) for result in results):
        texts.append("The runs were made on different hardware: minutes and milliseconds do not compare.")
    return texts


def _notes(
    runs: Sequence[Run], groups: Sequence[Group], differences: Sequence[Difference], resamples: int
) -> list[str]:
    texts = []
    lacking = (
        (MATCHES, "noise of images is not known for them", lambda run: (run.folder / MATCHES).is_file()),
        (CURVES, "no learning curves", lambda run: (run.folder / CURVES).is_file()),
        ("`stages` in result.json", "no AP after each stage", lambda run: bool(run.stages("segm_AP"))),
        ("`seconds_per_image` in result.json", "no milliseconds", lambda run: not math.isnan(run.seconds)),
    )
    for what, so, has in lacking:
        without = [run.name for run in runs if not has(run)]
        if without:
            texts.append(f"No {what} in {_listed(without, len(runs), 'any run')}: {so}.")
    if len(groups) == 1:
        texts.append("All runs have the same settings but for the seed: there is nothing to hold them against.")
    if differences:
        texts.append(
            "A 95 % interval leaves one true zero in twenty out"
            + (f"; here are {len(differences)} comparisons." if len(differences) > 1 else ".")
        )
    if any(one.images for one in differences):
        texts.append(
            f"Noise of images: {resamples} resamples of the validation images, the same for both of a pair, APs "
            "averaged over seeds; the networks are held fixed."
        )
    if any(one.seeds is not None for one in differences):
        texts.append(
            "Noise of seeds: standard deviation within groups, pooled over all groups with several seeds, with "
            "Student's t."
        )
    return texts


def _differ(values: Iterable[str]) -> bool:
    return len(set(values)) > 1


def _listed(names: Sequence[str], total: int, everyone: str) -> str:
    if len(names) == total:
        return everyone
    return f"{len(names)} of {total} runs ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def of_name(found: Found, words: Sequence[str]) -> str:
    """A name for a comparison: the studies', or the folders'."""
    folders = (Path(word).resolve() for word in words)
    places = (folder.parent if folder.name == "runs" else folder for folder in folders)  # of `experiments/STUDY/runs`
    names = found.studies or [place.name.removesuffix(".json") for place in places]
    joined = "+".join(dict.fromkeys(names))
    return joined if len(joined) <= 60 else f"{names[0][:50]}+{len(names) - 1}"
