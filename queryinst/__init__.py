"""QueryInst ("Instances as Queries", ICCV 2021): a Lightning and Hydra experiment framework.

import queryinst
result = queryinst.load("outputs/RUN/best.ckpt").predict("photo.jpg", score=0.5)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from queryinst.inference.predictor import Predictor

__version__ = "0.1.0"


def load(path: str | Path, device: str = "auto", precision: str = "fp32", allow: Sequence[str] = ()) -> "Predictor":
    """A checkpoint of a training run or of `queryinst.convert`, or published weights by name, ready to predict.

    Args:
        path: `best.ckpt` of a run's folder, a `.safetensors` file, or a name of `queryinst.zoo` such as
            `mmdet:1x_pro100`, whose weights are fetched once.
        device: "auto" for the accelerator that there is, or torch's name of a device.
        precision: "fp32", or "bf16": faster where the device computes in it, and a little less exact.
        allow: modules of your own that may be imported for parts that the checkpoint names; without it none is.

    Raises:
        UserError: there is no such file, device or precision, the file holds something else, or cannot be fetched.
    """
    from queryinst.checkpoints.load import load as read  # with torch, for which `import queryinst` does not wait
    from queryinst.inference.predictor import Predictor

    return Predictor(read(path, allow), device, precision)
