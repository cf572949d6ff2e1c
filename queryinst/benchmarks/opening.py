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
    # getrusage would count what this process was before it began a program of its own
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _status(field: str) -> int:
    """Bytes of a field of Linux's account of this process; 0 elsewhere."""
    status = Path("/proc/self/status")
    return 1024 * int(status.read_text().partition(f"{field}:")[2].split()[0]) if status.exists() else 0


def serve_in_process(path: Path) -> tuple[int, int]:
    """Bytes that a loader process holds more after it was sent an open file and has read each image's annotations.

    Its own (copied), and those of mapped files, which all processes share. Both 0 where there is no /proc.
    """
    from queryinst.data.coco import CocoFile

    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before = pool.apply(_held, (None,))
        after = pool.apply(_held, (CocoFile(path, path.parent),))
    return after[0] - before[0], after[1] - before[1]


def _held(source: Any) -> tuple[int, int]:
    """Bytes of this process's own memory and of the files that it maps, after reading all annotations of a source."""
    import queryinst.data.coco  # noqa: F401  counted before as after

    for image in source.images if source else ():
        source.annotations(image)
    return _status("RssAnon"), _status("RssFile")


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
    own, shared = serve_in_process(path)
    lines.append(
        f"  a loader process that has read all of it holds {own / 1e6:.0f} MB more, and shares {shared / 1e6:.0f} MB"
    )
    return "\n".join(lines)
