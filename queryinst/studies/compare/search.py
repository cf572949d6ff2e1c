"""What a search has found: the best so far over its trials, and which settings mattered, as the search wrote it."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from queryinst.errors import UserError
from queryinst.studies.compare.figures import Plot
from queryinst.studies.compare.groups import show
from queryinst.visualize import plots

TRIALS = "search/trials.json"  # in a study that is a search


@dataclass(frozen=True)
class Search:
    """The trials of a search, in their order."""

    name: str
    metric: str
    direction: str
    importance: dict[str, float]
    trials: list[dict[str, Any]]

    @property
    def values(self) -> list[tuple[int, float]]:
        """Of the trials that were trained to the end."""
        return [(int(trial["number"]), float(trial["value"])) for trial in self.trials if trial["value"] is not None]

    @property
    def pruned(self) -> list[tuple[int, float]]:
        """Of those that were pruned, what their last evaluation gave."""
        ends = ((trial["number"], trial["reports"]) for trial in self.trials if trial["state"] == "pruned")
        return [(int(number), float(reports[max(reports, key=int)])) for number, reports in ends if reports]

    @property
    def best(self) -> list[tuple[int, float]]:
        """The best so far after each trial that has a value."""
        better = max if self.direction == "maximize" else min
        numbers = [number for number, _ in self.values]
        return list(zip(numbers, itertools.accumulate((value for _, value in self.values), better), strict=True))


def read(study: Path) -> Search | None:
    """The search in a study's folder; None where it is none. Raises UserError where its file is damaged."""
    path = study / TRIALS
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        found = Search(study.name, content["metric"], content["direction"], content["importance"], content["trials"])
        _ = found.best, found.pruned, note(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): the command of the search writes it again") from None
    return found


def draw(search: Search) -> Iterator[Plot]:
    """Its plots."""
    if search.values:
        yield Plot(
            f"{search.name}_best_so_far",
            f"{search.name}: best so far",
            "Each trial of the search, pruned ones by their last evaluation, and the best until then.",
            plots.best_so_far(search.values, search.pruned, search.best, search.metric),
        )
    if search.importance:
        order = sorted(search.importance.items(), key=lambda entry: -entry[1])
        yield Plot(
            f"{search.name}_importance",
            f"{search.name}: importance of the settings",
            "How much each setting accounts for a trial being among the best (PED-ANOVA), of the values searched.",
            plots.bars([key for key, _ in order], {"share": [part for _, part in order]}, {}, {"share": 0}, "share"),
        )


def note(search: Search) -> str:
    """What to keep in mind of a search."""
    states = [trial["state"] for trial in search.trials]
    counts = "".join(f", {states.count(state)} {state}" for state in dict.fromkeys(states))
    text = f"Search {search.name}: {len(states)} trials{counts}."
    if search.best:
        value = search.best[-1][1]
        best = next(trial for trial in search.trials if trial["value"] == value)
        chosen = " ".join(f"{key}={show(setting)}" for key, setting in best["params"].items())
        text += (
            f" Best: trial {best['number']}, {search.metric} {value:.3f}, {chosen}. It was chosen by the images it is "
            "judged on: other seeds and other images will give less."
        )
    return text
