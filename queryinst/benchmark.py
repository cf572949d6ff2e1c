"""`python -m queryinst.benchmark PART`: speed and memory against the plain way, both measured in one run.

python -m queryinst.benchmark inference       image to COCO run-length codes, against the published way, part by part
python -m queryinst.benchmark inference --batches 1 2 4 --sizes 800x1216 640x960 --stages       and sweeps (minutes)
python -m queryinst.benchmark data            images a second and bytes of targets, against v2 transforms on bitmaps
python -m queryinst.benchmark data --open     also opening an annotation file as large as COCO's training set (minutes)
python -m queryinst.benchmark masks           masks to COCO run-length codes, against paste and encode
python -m queryinst.benchmark train           a training step: seconds and memory by part (4 minutes on two cores)
python -m queryinst.benchmark evaluation      detections to metrics: run-length codes, two backends of COCO's numbers

Everything measured is generated, and the same command runs on a GPU (--device cuda). The result is printed and, in a
checkout or with --to FOLDER, written as JSON and as Markdown, named after the part and the hardware.
"""

import argparse
import importlib
import shlex
import sys
from pathlib import Path

from queryinst.studies.ending import ending

FOLDER = Path("experiments/benchmark")


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m queryinst.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    _inference(parts.add_parser("inference", help="one image to detections and codes: time, operations, share of peak"))
    _data(parts.add_parser("data", help="the data set: images a second, bytes of targets, opening a large file"))
    _masks(parts.add_parser("masks", help="masks to COCO run-length codes"))
    _train(parts.add_parser("train", help="a training step: seconds and memory by part"))
    _evaluation(parts.add_parser("evaluation", help="detections to metrics"))
    for part in parts.choices.values():
        part.add_argument("--rounds", type=_positive, default=5, help="times that each way is timed")
        part.add_argument("--to", type=Path, help=f"folder for JSON and Markdown; in a checkout {FOLDER}")
    with ending():
        _measure(parser.parse_args())


def _inference(part: argparse.ArgumentParser) -> None:
    part.add_argument("--backbone", default="resnet50")
    part.add_argument("--proposals", type=_positive, nargs="+", default=[100, 300], help="of the network, and kept")
    part.add_argument("--sizes", type=_size, nargs="+", default=["800x1216"], help="height x width of an image")
    part.add_argument("--batches", type=_positive, nargs="+", default=[1], help="images at a time, of the first size")
    part.add_argument("--stages", action="store_true", help="also with fewer stages and proposals")
    part.add_argument("--threads", type=_positive, help="of the processor; by default as many as PyTorch takes")
    part.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")


def _data(part: argparse.ArgumentParser) -> None:
    part.set_defaults(threads=1)
    part.add_argument("--images", type=_positive, default=24, help="generated images of each kind")
    part.add_argument("--instances", type=_positive, nargs="+", default=[7, 20, 60], help="objects an image")
    part.add_argument("--open", action="store_true", help="also open a large annotation file")
    part.add_argument("--open-images", type=_positive, default=118_000, help="images of that file")
    part.add_argument("--open-annotations", type=_positive, default=860_000, help="annotations of that file")


def _masks(part: argparse.ArgumentParser) -> None:
    part.set_defaults(threads=1)
    part.add_argument("--masks", type=_positive, nargs="+", default=[1, 10, 100, 300], help="masks of an image")
    part.add_argument("--height", type=_positive, default=800)
    part.add_argument("--width", type=_positive, default=1216)


def _train(part: argparse.ArgumentParser) -> None:
    part.add_argument("--proposals", type=_positive, nargs="+", default=[100, 300])
    part.add_argument("--precision", choices=("fp32", "bf16"), nargs="+", default=["fp32"])
    part.add_argument("--compile", action="store_true", help="also with torch.compile (minutes more for compiling)")
    part.add_argument("--batch", type=_positive, nargs="+", default=[1], help="images a step")
    part.add_argument("--sizes", type=_size, nargs="+", default=["800x1216"], help="height x width, multiples of 32")
    part.add_argument("--objects", type=_positive, default=10, help="objects an image")
    part.add_argument("--backbone", default="resnet50", choices=("resnet18", "resnet50", "resnet101", "swin_t", "tiny"))
    part.add_argument("--device", default="cpu", help="cpu, cuda or cuda:1")
    part.add_argument("--threads", type=_positive, help="CPU threads; PyTorch's choice by default")


def _evaluation(part: argparse.ArgumentParser) -> None:
    part.set_defaults(threads=1)
    part.add_argument("--images", type=_positive, default=500)
    part.add_argument("--objects", type=_positive, default=7, help="objects an image")
    part.add_argument("--detections", type=_positive, default=100, help="detections an image")


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


def _size(text: str) -> str:
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 and int(side) % 32 == 0 for side in sides):
        raise argparse.ArgumentTypeError(f"{text} is not HEIGHTxWIDTH in multiples of 32, such as 800x1216")
    return text


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


if __name__ == "__main__":
    main()
