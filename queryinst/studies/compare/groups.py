"""Runs that differ in nothing but the seed are a group, named by what sets it apart from the others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from queryinst.errors import UserError, nearest
from queryinst.studies.compare.runs import Run, natural

DIGESTS = ("data.train", "data.val", "weights", "backbone.weights")  # settings that count by what a file holds
DIGEST_OF = ("parts.", "pictures.")  # beginnings of others: the source of a part, the pictures of a data set
KINDS = {"segm": "mask AP", "bbox": "box AP", "boundary": "boundary AP"}
LONG = 3  # settings in a label; with more, the words of the study's command say it better


@dataclass(frozen=True)
class Group:
    """Runs of the same settings, one a seed."""

    label: str
    settings: dict[str, Any]  # those that vary among the groups, readable
    runs: tuple[Run, ...]
    keys: tuple[str, ...]  # full names of the settings that vary, without those that only a digest tells apart

    def mean(self, metric: str) -> float:
        """Over the seeds; NaN where a run has no such number."""
        return mean(run.metric(metric) for run in self.runs)

    def spread(self, metric: str) -> float:
        """Sample standard deviation over the seeds; NaN with one seed."""
        return stdev_or_nan([run.metric(metric) for run in self.runs])


def kinds_of(groups: Sequence[Group]) -> dict[str, str]:
    """Those of `KINDS` that a group has an AP of: of video there are no boxes, of earlier runs no boundaries."""
    return {kind: words for kind, words in KINDS.items() if not all(math.isnan(g.mean(f"{kind}_AP")) for g in groups)}


def is_digest(key: str) -> bool:
    return key in DIGESTS or key.startswith(DIGEST_OF)


def stdev_or_nan(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of fewer than two values, or where one is NaN."""
    return stdev(values) if len(values) > 1 and not any(map(math.isnan, values)) else math.nan


def group(runs: Sequence[Run]) -> list[Group]:
    """Groups in the order of their settings, numbers by size; runs of a group by seed."""
    identities = [_flat(run.result["identity"]) for run in runs]
    keys = [key for key in dict.fromkeys(key for values in identities for key in values) if key != "seed"]
    varying = [key for key in keys if len({repr(values.get(key)) for values in identities}) > 1]
    # `data.side` is the generators' word for `data.shapes.side` and `data.video.shapes.side`
    for place in ("data.shapes", "data.video.shapes"):
        varying = [key for key in varying if f"{place}.{key.removeprefix('data.')}" not in varying]
    varying = _without_doubles(varying, identities)
    together: dict[str, list[int]] = {}
    for index, values in enumerate(identities):
        together.setdefault(repr([values.get(key) for key in varying]), []).append(index)
    members = sorted(together.values(), key=lambda rows: [natural(identities[rows[0]].get(key)) for key in varying])
    settings = _readable([[runs[index] for index in rows] for rows in members], varying, keys)
    labels = _labels(settings, [[runs[index] for index in rows] for rows in members])
    named = tuple(key for key in varying if not is_digest(key))
    return [
        Group(label, of_group, tuple(sorted((runs[index] for index in rows), key=lambda run: run.seed)), named)
        for label, of_group, rows in zip(labels, settings, members, strict=True)
    ]


def baseline(groups: Sequence[Group], label: str | None, first: Run) -> Group:
    """The group that the others are held against: the one of that label, or the one of the first run.

    Raises:
        UserError: no group has that label.
    """
    if label is None:
        return next(one for one in groups if any(run is first for run in one.runs))
    for one in groups:
        if one.label == label:
            return one
    labels = [one.label for one in groups]
    raise UserError(f"--baseline takes one of {'; '.join(labels)}; got '{label}'{nearest(label, labels)}")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _without_doubles(varying: list[str], identities: Sequence[dict[str, Any]]) -> list[str]:
    """The settings that vary, without digests that say nothing more.

    These are that of a part whose name varies with its source, of the pictures of other annotations, and of pictures
    where a run is from before they counted.
    """

    def kinds(*keys: str) -> int:
        return len({repr([values.get(key) for key in keys]) for values in identities})

    def doubled(key: str) -> bool:
        if key.startswith("parts."):
            name = f"{key.removeprefix('parts.')}.name"
            return name in varying and kinds(name) == kinds(name, key)
        if key.startswith("pictures."):
            old, data = any(key not in values for values in identities), key.replace("pictures.", "data.")
            return old or (data in varying and kinds(data) == kinds(data, key))
        return False

    return [key for key in varying if not doubled(key)]


def _readable(members: list[list[Run]], varying: list[str], keys: list[str]) -> list[dict[str, Any]]:
    """For each group its varying settings: shortest names that say which, files by name instead of digest."""
    settings: list[dict[str, Any]] = [{} for _ in members]
    for key in varying:
        if key == "data.train" and "data.val" in varying:
            continue  # another data set altogether: once is enough
        name = {"data.train": "train_data", "data.val": "data" if "data.train" in varying else "val_data"}.get(
            key, _short(key, keys)
        )
        values = [_value(runs[0], key) for runs in members]
        if is_digest(key):
            names = [_file(runs[0], key) for runs in members]
            clear = len(set(names)) == len(set(values))
            values = [
                None if value is None else file if clear else f"{file}@{str(value)[:6]}"
                for value, file in zip(values, names, strict=True)
            ]
        for of_group, value in zip(settings, values, strict=True):
            of_group[name] = value
    return settings


def _value(run: Run, key: str) -> Any:
    """Of a setting that counts; where it counts only when it is set, its default."""
    value = _flat(run.result["identity"]).get(key)
    return _flat(run.result["config"]).get(key) if value is None else value


def _short(key: str, keys: Sequence[str]) -> str:
    """The end of a dotted key, as much of it as no other key ends with."""
    parts = key.split(".")
    for start in range(len(parts) - 1, 0, -1):
        end = ".".join(parts[start:])
        if not any(other != key and (other == end or other.endswith(f".{end}")) for other in keys):
            return end
    return key


def _file(run: Run, key: str) -> str:
    """Name of the file or folder behind a digest."""
    config: Any = run.result["config"]
    if key.startswith("parts."):
        return str(_flat(config).get(f"{key.removeprefix('parts.')}.name"))
    if key.startswith("pictures."):
        key = f"data.{key.removeprefix('pictures.')}_images"
        return Path(str(_flat(config).get(key))).name
    for part in ("data", "root") if key.startswith("data.") else key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return Path(str(config)).name if config else "none"


def _labels(settings: list[dict[str, Any]], members: list[list[Run]]) -> list[str]:
    """One a group, all different."""
    if len(members) == 1:
        return [str(members[0][0].result.get("name") or "all runs")]
    labels = [", ".join(f"{key}={show(value)}" for key, value in of_group.items()) for of_group in settings]
    if len(settings[0]) > LONG:
        words = [
            {" ".join(word for word in run.overrides if not word.startswith("seed=")) for run in runs}
            for runs in members
        ]
        said = [of_group.pop() if len(of_group) == 1 else "" for of_group in words]
        if len(set(said)) == len(said):
            return [text or "default" for text in said]
    return labels


def show(value: Any) -> str:
    """A setting's value as one writes it on the command line."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{','.join(show(item) for item in value)}]"
    return str(value)
