"""What the commands besides training are asked for. Every setting of a model and its training is in `config.py`."""

from dataclasses import dataclass, field
from typing import Any

from queryinst.config import DataConfig
from queryinst.part_config import slots
from queryinst.settings import REQUIRED, changes_of, setting
from queryinst.trainer_config import ACCELERATORS
from queryinst.video_config import TrackerConfig

TrackerChanges = changes_of(TrackerConfig)
CHECKPOINT = "checkpoint of a training run, a file of queryinst.convert, or published weights such as mmdet:1x_pro100"


@dataclass
class EvaluateConfig:
    """`python -m queryinst.evaluate`"""

    checkpoint: str = setting(REQUIRED, CHECKPOINT, path=True)
    allow: list[str] = setting([], "modules of your own that may be imported for the parts that the checkpoint names")
    images: str | None = setting(None, "folder of images; empty: the run's validation images", path=True)
    annotations: str | None = setting(None, "COCO file; empty: the run's validation set", path=True)
    all_stages: bool = setting(False, "evaluate every stage's own boxes, scores and masks, not only the last")
    elastic: bool = setting(False, "evaluate the model also with fewer stages and fewer proposals, as it is")
    proposals: list[int] = setting(
        [], "with elastic, how many go on after the first stage; empty: all, 3/4, 1/2 and 1/4", at_least=1
    )
    batch_size: int | None = setting(None, "images at a time; empty: as in training", at_least=1)
    num_workers: int = setting(2, "loader processes", at_least=0)
    precision: str = setting(
        "run",
        "`run`: network and arithmetic of the run, which repeats its metrics to the last digit; `fp32`, `bf16`: the "
        "network prepared for use (BatchNorm folded, channels last), which is sooner",
        choices=("run", "fp32", "bf16"),
    )
    tracker: Any = field(default_factory=TrackerChanges)  # of a model for video; what is left out is as in training
    max_detections: int | None = setting(
        None,
        "detections of a class in an image that are judged, and at least as many are kept; empty: COCO's 100",
        at_least=11,
        at_most=100_000,
    )
    crowd: str | None = setting(
        None, "what `iscrowd: 1` means in the annotations; empty: as in training", choices=("regions", "objects")
    )
    backend: str = setting("pycocotools", "who computes average precision", choices=("pycocotools", "faster_coco_eval"))
    boundary: bool = setting(True, "Boundary AP too (arXiv 2103.16562), always by pycocotools; not of video")
    metrics: dict[str, Any] = slots("metric", "further metrics: +metrics.NAME.name=module:Name")
    expect: str | None = setting(
        None,
        "AP in points that should come out, MASK or BOX/MASK, or `published`: that of published weights by name; where "
        "it does not, the exit code is 1",
    )
    tolerance: float = setting(0.2, "with expect, points that AP may differ, up or down", at_least=0, at_most=100)
    output: str | None = setting(None, "write the metrics to this JSON file", path=True)
    accelerator: str = setting("auto", "what to compute on", choices=ACCELERATORS)


@dataclass
class PredictConfig:
    """`python -m queryinst.predict`"""

    checkpoint: str = setting(REQUIRED, CHECKPOINT, path=True)
    allow: list[str] = setting([], "modules of your own that may be imported for the parts that the checkpoint names")
    source: str = setting(
        REQUIRED, "image, folder of images, pattern such as photos/*.jpg, video, or a camera's number", path=True
    )
    output: str = setting("predictions", "folder for the overlays and predictions.json", path=True)
    score: float = setting(0.3, "lowest score of a detection that is drawn and written", at_least=0, at_most=1)
    classes: list[str] = setting([], "names or category ids of the classes to look for; empty: all")
    one_class: bool = setting(False, "only the best class of each query; else each class above the score")
    nms: float | None = setting(
        None, "of two masks of a class with an IoU above this, keep the better; empty: keep both", at_least=0, at_most=1
    )
    max_detections: int | None = setting(None, "most detections of an image; empty: as in training", at_least=1)
    overlays: bool = setting(True, "draw what is found: a PNG file an image, or an MP4 file of a video")
    cutouts: bool = setting(False, "write each instance as a PNG file with a transparent ground")
    stages: int | None = setting(None, "how many of the model's stages to run; empty: all", at_least=1)
    proposals: int | None = setting(None, "how many proposals go on after the first stage; empty: all", at_least=1)
    batch_size: int = setting(4, "images at a time", at_least=1)
    tracker: Any = field(default_factory=TrackerChanges)  # links instances over frames; see queryinst.predict
    num_workers: int = setting(2, "threads that read, and threads that draw and write", at_least=1)
    precision: str = setting("fp32", "what the network computes in", choices=("fp32", "bf16"))
    accelerator: str = setting("auto", "what to compute on", choices=ACCELERATORS)


@dataclass
class DemoConfig:
    """`python -m queryinst.demo`"""

    checkpoint: str = setting(REQUIRED, CHECKPOINT, path=True)
    allow: list[str] = setting([], "modules of your own that may be imported for the parts that the checkpoint names")
    port: int = setting(7860, "port of 127.0.0.1 that the page is at", at_least=1024, at_most=65_535)
    score: float = setting(0.3, "lowest score of a detection, to begin with", at_least=0, at_most=1)
    megabytes: int = setting(20, "largest file that is taken", at_least=1, at_most=1000)
    megapixels: int = setting(25, "largest image that is taken, millions of pixels", at_least=1, at_most=85)
    queue: int = setting(16, "requests that may wait; one is answered at a time", at_least=1, at_most=1000)
    accelerator: str = setting("auto", "what to compute on", choices=ACCELERATORS)


@dataclass
class DoctorConfig:
    """`python -m queryinst.doctor`"""

    name: str = setting("data", "name of the data set in the report")
    data: DataConfig = field(default_factory=DataConfig)
    images: str = setting(
        "decode", "of image files, read every pixel, the headers, or nothing", choices=("decode", "headers", "none")
    )
    threads: int = setting(4, "images read at a time", at_least=1, at_most=64)
    json: str | None = setting(
        None, "write the report to this JSON file; `-`: to standard output, in place of the text", path=True
    )
    picture: str | None = setting(None, "draw sizes, counts and aspect ratios into this image file", path=True)
