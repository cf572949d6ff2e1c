"""What fine-tuning begins with: published weights where they can be had, else those of ImageNet, else nothing."""

import functools
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from queryinst.checkpoints.by_name import local
from queryinst.errors import UserError
from queryinst.library_names import DOWNLOADS, library_of
from queryinst.slots import RESNETS, SWINS
from queryinst.zoo import OFFLINE

PUBLISHED = {100: "mmdet:ms_3x_pro100", 300: "mmdet:ms_crop_3x_pro300"}  # ResNet-50's best of MMDetection, by queries


ROOM = 1.5  # queries for each object of the fullest image: several try for each before one has it


class Start(NamedTuple):
    """Where the weights of a network come from."""

    kind: str  # published, ImageNet or nothing
    weights: str | None  # of the whole network
    backbone: str | None  # of the backbone alone
    why: str


@functools.cache
def find(published: str | None, backbone: str) -> Start:
    """The best start that can be had now; what is not here is fetched.

    Args:
        published: weights of the whole network by name, if there are any for it.
        backbone: as `backbone.name`.
    """
    gone = missing(published) if published else "none are published of this network"
    if published and not gone:
        return Start("published", published, None, "published weights can be had")
    word = DOWNLOADS.get(library_of(backbone), "imagenet" if backbone in (*RESNETS, *SWINS) else None)
    if word is None:
        return Start("nothing", None, None, f"nobody publishes weights of {backbone}")
    if fault := _imagenet(backbone):
        return Start("nothing", None, None, "; ".join((gone, fault) if published else (fault,)))
    return Start("ImageNet", None, word, gone)


@functools.cache
def missing(published: str) -> str:
    """Why published weights cannot be had; empty where they are here, if need be after fetching them."""
    try:
        local(published)
    except UserError as error:
        return str(error)
    return ""


def _imagenet(backbone: str) -> str:
    """Fetch the weights of a backbone of torchvision's; why they cannot be had, if so. timm fetches its own later."""
    if library_of(backbone) == "timm":
        return f"those of {backbone} are timm's to fetch, and {OFFLINE} is set" if os.environ.get(OFFLINE) else ""
    import torch
    import torchvision

    try:
        url = str(torchvision.models.get_model_weights(backbone.rpartition(":")[2])["IMAGENET1K_V1"].url)
    except (ValueError, KeyError):
        return f"torchvision has no ImageNet weights for {backbone}"
    file = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    try:
        if not file.exists():
            if os.environ.get(OFFLINE):
                raise OSError(f"{OFFLINE} is set")
            file.parent.mkdir(parents=True, exist_ok=True)
            checksum = re.search(r"-([0-9a-f]{8,})\.", file.name)
            torch.hub.download_url_to_file(url, str(file), checksum and checksum[1], progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # RuntimeError: another checksum
        return f"the ImageNet weights of {backbone} cannot be had ({error}): save {url} as {file}"
    return ""
