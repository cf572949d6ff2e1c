"""`python -m queryinst.benchmark PART`: speed and memory against the plain way, both measured in one run.

python -m queryinst.benchmark data            images a second and bytes of targets, against v2 transforms on bitmaps
python -m queryinst.benchmark data --open     also opening an annotation file as large as COCO's training set (minutes)
python -m queryinst.benchmark masks           masks to COCO run-length codes, against paste and encode

Everything measured is generated. The result is printed and, in a checkout or with --to FOLDER, written as JSON and as
Markdown, named after the part and the hardware.
"""

import argparse
import importlib
import shlex
import sys
from pathlib import Path

FOLDER = Path("experiments/benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m queryinst.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    _data(parts.add_parser("data", help="the data set: images a second, bytes of targets, opening a large file"))
    _masks(parts.add_parser("masks", help="masks to COCO run-length codes"))
    for part in parts.choices.values():
        part.add_argument("--rounds", type=_positive, default=5, help="times that each way is timed")
        part.add_argument("--to", type=Path, help=f"folder for JSON and Markdown; in a checkout {FOLDER}")
    _measure(parser.parse_args())


def _data(part: argparse.ArgumentParser) -> None:
    part.set_defaults(threads=1)
    part.add_argument("--images", type=_positive, default=24, help="generated images of each kind")
    part.add_argument("--instances", type=_positive, nargs="+", default=[7, 20, 60], help="objects an image")
    part.add_argument("--open", action="store_true", help="also open a large annotation file")
    part.add_argument("--open-images", type=_positive, default=118_000, help="images of that file")
    part.add_argument("--open-annotations", type=_positive, default=860_000, help="annotations of that file")


def _masks(part: argparse.ArgumentParser) -> None:
    part.set_defaults(threads=1)
    part.add_argument("--masks", type=_positive, default=100)
    part.add_argument("--height", type=_positive, default=800)
    part.add_argument("--width", type=_positive, default=1333)


def _measure(arguments: argparse.Namespace) -> None:
    import cv2
    import torch

    from queryinst.benchmarks import frame

    cv2.setNumThreads(0)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    part = importlib.import_module(f"queryinst.benchmarks.{arguments.part}")
    results = part.run(arguments)
    text = part.markdown(results)
    print(text)
    folder = arguments.to or (FOLDER if FOLDER.parent.is_dir() else None)
    if folder:
        command = shlex.join(["python", "-m", "queryinst.benchmark", *sys.argv[1:]])
        record = frame.record(arguments.part, command, results, getattr(arguments, "device", "cpu"))
        print("\nwritten to", " and ".join(map(str, frame.save(folder, record, text))))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


if __name__ == "__main__":
    main()
