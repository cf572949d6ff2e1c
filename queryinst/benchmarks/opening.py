"""Opening an annotation file as large as COCO's training set: seconds and memory, each in a process of its own."""

import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any, NamedTuple

from queryinst.benchmarks import scenes
from queryinst.benchmarks.frame import Results, table


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
    return Opening(time.perf_counter() - begin, peak(), len(source.images))


def peak() -> int:
    """Bytes of the most memory that this process has held."""
    # getrusage would count what this process was before it began a program of its own
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def resident() -> int:
    """Bytes of memory that this process holds now; 0 where there is no /proc."""
    return _status("VmRSS")


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


def measure(path: Path, images: int, annotations: int) -> Results:
    """Generate a file at `path`, open it twice, and let a loader process read all of it."""
    scenes.write_annotations(path, images, annotations)
    times = {name: open_in_process(path)._asdict() for name in ("first time", "again")}
    own, shared = serve_in_process(path)
    size = path.stat().st_size
    return {"images": images, "annotations": annotations, "size": size, "times": times, "own": own, "shared": shared}


def markdown(results: Results) -> str:
    """Seconds and memory of opening, then what a loader process holds."""
    rows = [
        (name, f"{times['seconds']:.1f} s", f"{times['peak'] / 2**30:.2f} GiB")
        for name, times in results["times"].items()
    ]
    megabytes = results["size"] / 1e6
    opened = f"opening {results['images']} images, {results['annotations']} annotations, {megabytes:.0f} MB of JSON"
    holds = (
        f"a loader process that has read all of it holds {results['own'] / 1e6:.0f} MB more, "
        f"and shares {results['shared'] / 1e6:.0f} MB"
    )
    return "\n\n".join([opened, table(["", "seconds", "peak memory"], rows), holds])
