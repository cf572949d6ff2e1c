"""The table of this study from the figures that `evaluate` wrote for every run, linked in three ways.

    python experiments/shapes_video/table.py outputs/shapes_video-*

A folder holds a run's result.json and by_embedding.json, by_iou.json and by_truth.json. Printed are a row for every run
and way of linking, means and standard deviations over the seeds, and the share of perfect association that is reached.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

WAYS = ("embedding", "iou", "truth")
COLUMNS = {
    "mask AP": "segm_AP",
    "mask AP, occlusion clips": "segm_AP_occlusion",
    "association accuracy": "association_accuracy",
    "the same, occlusion clips": "association_accuracy_occlusion",
    "AR10": "segm_AR10",
    "switches": "id_switches",
}


def text(name: str, values: list[float]) -> str:
    """One number, or mean and standard deviation of several."""
    digits = 0 if name == "id_switches" else 3
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def row(*cells: object) -> None:
    print("|", " | ".join(map(str, cells)), "|")


def main(folders: list[Path]) -> None:
    runs: dict[str, dict[int, dict[str, dict[str, float]]]] = defaultdict(dict)
    for folder in folders:
        identity = json.loads((folder / "result.json").read_text())["identity"]
        found = {way: json.loads((folder / f"by_{way}.json").read_text())["metrics"] for way in WAYS}
        runs[identity["model.association.head"]][identity["seed"]] = found
    heads = sorted(runs, reverse=True)  # query before plain

    row("head", "seed", "linked by", *COLUMNS)
    row(*["---"] * (3 + len(COLUMNS)))
    for head in heads:
        for seed, found in sorted(runs[head].items()):
            for way in WAYS:
                row(head, seed, way, *(text(name, [found[way][name]]) for name in COLUMNS.values()))
    for head in heads:
        for way in WAYS:
            several = [found[way] for found in runs[head].values()]
            cells = (text(name, [one[name] for one in several]) for name in COLUMNS.values())
            row(head, f"mean of {len(several)}", way, *cells)

    print()
    row("head", "share of the AP by truth that is reached", "seed by seed", "occlusion clips", "seed by seed")
    row(*["---"] * 5)
    for head in heads:
        cells = []
        for name in ("segm_AP", "segm_AP_occlusion"):
            shares = [found["embedding"][name] / found["truth"][name] for _, found in sorted(runs[head].items())]
            cells += [text(name, shares), ", ".join(text(name, [share]) for share in shares)]
        row(head, *cells)


if __name__ == "__main__":
    main([Path(folder) for folder in sys.argv[1:]])
