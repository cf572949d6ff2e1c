"""What all benchmarks share: a record of what was measured, where and how, written as JSON and as Markdown.

A part is a module of this package with two functions: `run(arguments)` measures and gives plain values,
`markdown(results)` tells them. Options are in `queryinst/benchmark.py`, which needs no torch to print them.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from queryinst.studies.results import git_state, hardware, versions, write

Results = dict[str, Any]


def record(part: str, command: str, results: Results, device: str = "cpu") -> dict[str, Any]:
    """What was measured (`results`, as the part gave them), by which command, on what, with which versions."""
    return {
        "part": part,
        "command": command,
        "hardware": {"name": name_of(hardware(), device), "device": device, **hardware()},
        "versions": versions(),
        "git": git_state(),
        "results": results,
    }


def save(folder: Path, content: Mapping[str, Any], text: str) -> list[Path]:
    """Write a record and its Markdown as `PART-HARDWARE.json` and `.md`, and return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    hardware_name = content["hardware"]["name"]
    path = folder / f"{content['part']}-{re.sub('[^a-z0-9]+', '-', hardware_name.lower()).strip('-')}"
    write(path.with_suffix(".json"), content)
    packages = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    path.with_suffix(".md").write_text(f"# {hardware_name}\n\n`{content['command']}`, {packages}\n\n{text}\n")
    return [path.with_suffix(".json"), path.with_suffix(".md")]


def name_of(found: Mapping[str, Any], device: str) -> str:
    """The hardware in a few words: the GPU, or the processor and how many of its threads took part."""
    if device.startswith("cuda"):
        return str(found["gpus"][int(device.partition(":")[2] or 0)])
    threads = found["threads"]
    return f"{found['processor']}, {threads} thread{'s' * (threads > 1)}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table that can be read as it is; the first column is aligned to the left, the others to the right."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(3, *(len(row[index]) for row in cells)) for index in range(len(columns))]
    rule = [("-" * width if index == 0 else "-" * (width - 1) + ":") for index, width in enumerate(widths)]
    aligned = [
        [
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in aligned)
