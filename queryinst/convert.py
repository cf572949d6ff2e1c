"""`python -m queryinst.convert SOURCE DESTINATION`: weights of other projects, and our own, as one safetensors file.

python -m queryinst.convert queryinst_r50_fpn_1x_coco.pth r50.safetensors          MMDetection or hustvl/QueryInst
python -m queryinst.convert queryinst_r50_fpn_1x_pro100_coco.pdparams r50.safetensors      PaddleDetection
python -m queryinst.convert mmdet:1x_pro100 r50.safetensors                        published weights, fetched once
python -m queryinst.convert outputs/RUN/best.ckpt mine.safetensors                 a run of ours
python -m queryinst.convert ResNet50_cos_pretrained.pdparams backbone.safetensors  a backbone, for backbone.weights=FILE

The result serves `evaluate checkpoint=`, `predict checkpoint=` and `train weights=`. Nothing in the source is executed.
Published weights by name need no conversion: `checkpoint=` and `weights=` take the names as well.
"""

import argparse
from pathlib import Path

from queryinst.studies.ending import ending
from queryinst.zoo import ZOO


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m queryinst.convert",
        description=__doc__,
        epilog=f"names: {', '.join(ZOO)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "source", type=Path, help="weights of MMDetection, hustvl/QueryInst, PaddleDetection, torchvision, or a name"
    )
    parser.add_argument("destination", type=Path, help="the safetensors file to write; it must not exist")
    parser.add_argument(
        "--annotations", type=Path, help="COCO file that names the classes, where they are not COCO's eighty"
    )
    parser.add_argument(
        "--unaligned",
        action="store_true",
        help="weights trained with RoIAlign without the half-pixel shift (PaddleDetection after August 2024)",
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE", help="of your own, that parts may be imported from"
    )
    arguments = parser.parse_args()
    with ending():
        from queryinst.checkpoints.published import convert

        given = (arguments.source, arguments.destination, arguments.annotations, not arguments.unaligned)
        for line in convert(*given, arguments.allow):
            print(line)


if __name__ == "__main__":
    main()
