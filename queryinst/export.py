"""`python -m queryinst.export CHECKPOINT DESTINATION`: a trained model as one file that runs without this package.

python -m queryinst.export outputs/RUN/best.ckpt model.onnx                        for onnxruntime, any machine
python -m queryinst.export outputs/RUN/best.ckpt model.pt2                         for torch.export.load
python -m queryinst.export mmdet:1x_pro100 model.onnx --max-detections 100         published weights, fetched once

Bytes go in, at any size and any number of images; boxes, scores, labels and masks come out. The file knows its classes
and the size that images should have; it is kept only if it finds what the network finds. `experiments/export` runs it.
"""

import argparse
import importlib.util
from pathlib import Path

from queryinst import __version__
from queryinst.errors import UserError
from queryinst.studies.ending import ending

PACKAGES = {".onnx": ("onnx", "onnxruntime", "onnxscript"), ".pt2": ()}  # what each kind of file needs to be made


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m queryinst.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "checkpoint", type=Path, help="of a training run or of queryinst.convert, or published weights by name"
    )
    parser.add_argument("destination", type=Path, help="the .onnx or .pt2 file to write; it must not exist")
    parser.add_argument(
        "--max-detections", type=int, help="detections an image; as many as the model's own evaluation by default"
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="of your own, which may be imported for the parts that the checkpoint names",
    )
    arguments = parser.parse_args()
    with ending():
        _check(arguments.destination, arguments.max_detections)
        from queryinst.checkpoints.exported import export

        given = (arguments.checkpoint, arguments.destination, arguments.max_detections, __version__, arguments.allow)
        for line in export(*given):
            print(line, flush=True)


def _check(destination: Path, max_detections: int | None) -> None:
    """Raise UserError for what can be seen to go wrong before torch is imported."""
    if destination.suffix not in PACKAGES:
        raise UserError(f"the result is an ONNX or a torch.export file: name {destination} with .onnx or .pt2")
    if destination.exists():
        raise UserError(f"{destination} exists already; delete it, or give another name")
    if max_detections is not None and max_detections < 1:
        raise UserError(f"--max-detections must be at least 1, got {max_detections}")
    missing = [name for name in PACKAGES[destination.suffix] if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"{', '.join(missing)}, which an ONNX file needs, cannot be found: pip install 'queryinst[export]', "
            f"or name the destination .pt2"
        )


if __name__ == "__main__":
    main()
