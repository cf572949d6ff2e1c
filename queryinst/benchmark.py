"""`python -m queryinst.benchmark data|masks`: speed and memory against the plain way, both measured in one run.

python -m queryinst.benchmark data            images a second and bytes of targets, against v2 transforms on bitmaps
python -m queryinst.benchmark data --open     also opening an annotation file as large as COCO's training set (minutes)
python -m queryinst.benchmark masks           masks to COCO run-length codes, against paste and encode

Everything measured is generated, in a temporary folder.
"""

import argparse
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m queryinst.benchmark", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    data = parts.add_parser("data", help="the data set: images a second, bytes of targets, opening a large file")
    data.add_argument("--images", type=_positive, default=24, help="generated images of each kind")
    data.add_argument("--instances", type=_positive, nargs="+", default=[7, 20, 60], help="objects an image")
    data.add_argument("--rounds", type=_positive, default=5, help="times that each way is timed")
    data.add_argument("--open", action="store_true", help="also open a large annotation file")
    data.add_argument("--open-images", type=_positive, default=118_000, help="images of that file")
    data.add_argument("--open-annotations", type=_positive, default=860_000, help="annotations of that file")
    masks = parts.add_parser("masks", help="masks to COCO run-length codes")
    masks.add_argument("--masks", type=_positive, default=100)
    masks.add_argument("--height", type=_positive, default=800)
    masks.add_argument("--width", type=_positive, default=1333)
    masks.add_argument("--rounds", type=_positive, default=5, help="times that each way is timed")
    arguments = parser.parse_args()
    _one_thread()
    if arguments.part == "masks":
        from queryinst.benchmarks.masks import report as of_masks

        print(of_masks(arguments))
    else:
        _data(arguments)


def _data(arguments: argparse.Namespace) -> None:
    from queryinst.benchmarks import data, opening

    with tempfile.TemporaryDirectory() as folder:
        print(data.report(arguments, Path(folder)), flush=True)
        if arguments.open:
            print(opening.report(arguments, Path(folder)))


def _one_thread() -> None:
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


if __name__ == "__main__":
    main()
