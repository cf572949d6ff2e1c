"""Opening an annotation file as large as COCO's training set: seconds and memory, each in a process of its own."""

import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

from queryinst.benchmarks import scenes


class Opening(NamedTuple):
    """What it took to open a file, and how many images and objects to learn it has."""

    seconds: float
    peak: int  # bytes, of the whole process
    images: int


def open_in_process(path: Path) -> Opening:
    """Open a file in a fresh process; imports are not counted in the seconds."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_open, (path,))


def _open(path: Path) -> Opening:
    from queryinst.data.coco import CocoFile

    begin = time.perf_counter()
    source = CocoFile(path, path.parent)
    return Opening(time.perf_counter() - begin, _peak(), len(source.images))


def _peak() -> int:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what this process was before it began a program of its own
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def report(arguments: Any, folder: Path) -> str:
    """What the command prints."""
    path = folder / "instances.json"
    scenes.write_annotations(path, arguments.open_images, arguments.open_annotations)
    lines = [
        f"opening {arguments.open_images} images, {arguments.open_annotations} annotations, "
        f"{path.stat().st_size / 1e6:.0f} MB of JSON"
    ]
    for name in ("first time", "again"):
        opening = open_in_process(path)
        lines.append(f"  {name:<12}{opening.seconds:8.1f} s, peak {opening.peak / 2**30:.2f} GiB")
    return "\n".join(lines)
