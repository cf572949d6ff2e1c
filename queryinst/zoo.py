"""The model zoo: published weights that have a name, `PUBLISHER:NAME`, with their address, checksum and published AP.

NAME is that of the recipe in `conf/experiment` that trains the same network.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from queryinst.errors import UserError, nearest

OPENMMLAB = "https://download.openmmlab.com/mmdetection/v2.0/queryinst"
PADDLE = "https://bj.bcebos.com/v1/paddledet/models"
DRIVE = "https://drive.google.com/file/d"
VAL2017 = 5000  # images of COCO val2017, which every published AP here is of


@dataclass(frozen=True)
class Published:
    """Weights that somebody has published."""

    name: str  # PUBLISHER:NAME
    url: str  # of the file, or of a page for people where `page`
    file: str  # its name; the first 8 hexadecimal digits of its SHA-256 are in it where the publisher does that
    box: float  # published AP of boxes in points, with one decimal
    mask: float  # published AP of masks
    page: bool = False  # whether a browser is needed

    @property
    def publisher(self) -> str:
        return self.name.partition(":")[0]

    @property
    def checksum(self) -> str:
        """How the file's SHA-256 begins, 8 hexadecimal digits; empty where the publisher does not say."""
        found = re.search(r"-([0-9a-f]{8})\.pth$", self.file)
        return found[1] if found else ""


def _mmdet(name: str, config: str, stamp: str, box: float, mask: float) -> Published:
    """MMDetection, configs/queryinst/metafile.yml: a folder a configuration, which the file's name repeats."""
    file = f"{config}_{stamp}.pth"
    return Published(f"mmdet:{name}", f"{OPENMMLAB}/{config}/{file}", file, box, mask)


def _paddle(name: str, file: str, box: float, mask: float) -> Published:
    """PaddleDetection, configs/queryinst/README.md: no checksums."""
    return Published(f"paddle:{name}", f"{PADDLE}/{file}", file, box, mask)


def _hustvl(name: str, drive: str, box: float, mask: float) -> Published:
    """hustvl/QueryInst, README.md: on Google Drive, which asks people before it gives a file of this size."""
    return Published(f"hustvl:{name}", f"{DRIVE}/{drive}/view", f"{name}.pth", box, mask, page=True)


# fmt: off
ZOO = {published.name: published for published in (
    _mmdet("1x_pro100", "queryinst_r50_fpn_1x_coco", "20210907_084916-5a8f1998", 42.0, 37.5),
    _mmdet("ms_3x_pro100", "queryinst_r50_fpn_mstrain_480-800_3x_coco", "20210901_103643-7837af86", 44.8, 39.8),
    _mmdet("ms_crop_3x_pro300", "queryinst_r50_fpn_300_proposals_crop_mstrain_480-800_3x_coco",
           "20210904_101802-85cffbd8", 47.5, 41.7),
    _mmdet("r101_ms_3x_pro100", "queryinst_r101_fpn_mstrain_480-800_3x_coco", "20210904_104048-91f9995b", 46.4, 41.0),
    _mmdet("r101_ms_crop_3x_pro300", "queryinst_r101_fpn_300_proposals_crop_mstrain_480-800_3x_coco",
           "20210904_153621-76cce59f", 49.0, 42.9),
    _paddle("1x_pro100", "queryinst_r50_fpn_1x_pro100_coco.pdparams", 42.1, 37.8),
    _paddle("ms_crop_3x_pro300", "queryinst_r50_fpn_ms_crop_3x_pro300_coco.pdparams", 47.9, 42.1),
    _hustvl("ms_crop_3x_pro300", "1D4Goiwb8BrDBVKkC35xm4ihUpSuF_tCF", 46.9, 41.4),
    _hustvl("r101_ms_crop_3x_pro300", "1EYFdoKfMt99uVL2z4hTcSIVA__Z04NKE", 48.0, 42.4),
    _hustvl("swin_l_ms_crop_50e_pro300", "1tqkpaArF0a0WVEolsCC8yrvgoydY7_Ha", 56.1, 48.9),
)}
# fmt: on
OFFLINE = "QUERYINST_OFFLINE"  # environment: where it is set, neither published weights nor a start is fetched
PUBLISHERS = ("mmdet", "paddle", "hustvl")


def in_zoo(path: str | Path) -> bool:
    """Whether this is `PUBLISHER:NAME`, known or not, and no path of a file."""
    return str(path).partition(":")[0] in PUBLISHERS and ":" in str(path)


def published(name: str | Path) -> Published:
    """Weights by their name. Raises UserError, with the names that there are, where it is none of them."""
    if str(name) not in ZOO:
        near = nearest(str(name), ZOO) or ";"
        raise UserError(f"no published weights are called '{name}'{near} known are {', '.join(ZOO)}")
    return ZOO[str(name)]
