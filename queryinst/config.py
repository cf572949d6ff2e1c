"""Every setting, once: name, type, default, meaning and range.

A dataclass here is the argument of the component it configures and, registered with Hydra, the schema that every YAML
file and every command line is checked against. No torch in this file: composing, checking and `--help` answer at once.
The defaults are those of the published model (QueryInst with ResNet-50); `conf/` holds what differs from them.
"""

from dataclasses import dataclass, field
from typing import Any

from queryinst.criterion_config import CriterionConfig
from queryinst.logger_config import CallbacksConfig, LoggerConfig
from queryinst.part_config import PartConfig, slot, slots
from queryinst.settings import REQUIRED, setting
from queryinst.signals_config import SignalsConfig
from queryinst.trainer_config import TrainerConfig
from queryinst.video_config import AssociationConfig, TrackerConfig, VideoConfig


@dataclass
class BackboneConfig:
    name: str = setting(
        "resnet50",
        "feature extractor: resnet18, 34, 50, 101, swin_t, s, b, l, tiny, `timm:NAME`, `torchvision:NAME`, or "
        "`module:Name` of your own",
    )
    args: dict[str, Any] = setting({}, "settings of that network alone: +backbone.args.NAME=VALUE", identity="set")
    frozen_stages: int = setting(
        1, "stem and stages that do not train: -1 none, 0 the stem, 1 stem and C2, ...", at_least=-1, at_most=4
    )
    thaw: int | None = setting(
        None, "epoch, counted from 0, from which these train too; empty: never", at_least=1, identity="set"
    )
    norm: str = setting(
        "fixed",
        "BatchNorm in training: batch statistics, fixed statistics, or frozen altogether",
        choices=("batch", "fixed", "frozen"),
    )
    drop_path: float = setting(
        0.0, "probability of skipping the last block in training, from 0 for the first", at_least=0, at_most=0.9
    )
    checkpointing: bool = setting(
        False,
        "compute stages again in the backward pass instead of keeping what is in them: less memory, more time",
        identity=False,
    )
    weights: str | None = setting(
        None,
        "pretrained weights: a file that queryinst.convert or the library knows, or, to download them, `imagenet` for "
        "torchvision's and `timm` for those of timm:NAME",
        path=True,
    )


@dataclass
class PostprocessConfig:
    max_detections: int | None = setting(
        None, "detections kept per image; empty: as many as there are proposals", at_least=1
    )
    clip_boxes: bool = setting(False, "clip boxes to the image, masks with them (as PaddleDetection does)")
    min_side: float = setting(
        0.0,
        "drop boxes whose width or height, in pixels of the original image, is not above this; 0 keeps all",
        at_least=0,
    )
    mask_score: float = setting(
        0.0,
        "multiply scores by the mean probability inside the mask, to this power: 1 as Mask2Former (arXiv 2112.01527), "
        "0 as published, the class alone",
        at_least=0,
        at_most=10,
        identity="set",
    )


@dataclass
class ModelConfig:
    num_proposals: int = setting(100, "learnable queries per image (N)", at_least=1, at_most=10_000)
    num_stages: int = setting(6, "refinement stages, each with a box head and a mask head (S)", at_least=1, at_most=100)
    width: int = setting(256, "channels of pyramid and queries (d)", at_least=1, at_most=4096)
    dynamic_width: int = setting(64, "channels between the two products of a dynamic convolution", at_least=1)
    num_heads: int = setting(8, "heads of the self-attention among queries; divides the width", at_least=1)
    ffn_width: int = setting(2048, "channels inside the feed-forward network", at_least=1)
    classification_layers: int = setting(1, "floors of the classification tower", at_least=0)
    regression_layers: int = setting(3, "floors of the regression tower", at_least=0)
    mask_convs: int = setting(4, "3x3 convolutions of the mask head", at_least=0)
    box_resolution: int = setting(7, "side of the region that a box head reads", at_least=1)
    mask_resolution: int = setting(
        14, "side of the region that a mask head reads; the mask is twice as large", at_least=1
    )
    proposals: str = setting(
        "learned",
        "where the queries of an image begin: learned, and the same for all; or at the places of its pyramid that look "
        "most like objects (Featurized Query R-CNN, arXiv 2206.06258)",
        choices=("learned", "pyramid"),
        identity="set",
    )
    proposal_init: str = setting(
        "image", "where the proposals start: all the whole image, or spread on a grid", choices=("image", "grid")
    )
    initialisation: str = setting(
        "mmdetection",
        "before training: as MMDetection and hustvl/QueryInst, or as PaddleDetection (equal stages, zero biases, "
        "small query features)",
        choices=("mmdetection", "paddle"),
    )
    aligned: bool = setting(
        True, "RoIAlign shifted by half a pixel, as published; PaddleDetection has no shift since August 2024"
    )
    detach_proposals: bool = setting(
        False, "stop the first stage's gradient at the proposal boxes (hustvl/QueryInst#16: +0.2 box AP)"
    )
    mask_quality: bool = setting(
        False,
        "guess the IoU of each mask, and multiply scores by it (Mask Scoring R-CNN, arXiv 1903.00241)",
        identity="set",
    )
    share_stages: bool = setting(
        False,
        "all stages have one box head between them (RecursiveDet, arXiv 2307.13619, without its encoding of "
        "positions); mask heads, which normalise what their stage draws, stay one for each stage",
        identity="set",
    )
    look_forward_twice: bool = setting(
        False,
        "a stage's losses teach the deltas of the stage before too; the same at test (DINO, arXiv 2203.03605)",
        identity="set",
    )
    association: AssociationConfig | None = setting(
        None, "an embedding a query that links instances over the frames of a video; empty: none", identity="set"
    )
    box_head: PartConfig = slot("box_head", "dynamic", "the box half of each stage")
    mask_head: PartConfig = slot("mask_head", "dynamic", "the mask half of each stage")
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)


@dataclass
class ShapesConfig:
    """The embedded data set: everything that its images depend on."""

    train: int = setting(REQUIRED, "training images", at_least=1)
    val: int = setting(REQUIRED, "validation images", at_least=1)
    side: int = setting(128, "longer side of an image, pixels", at_least=64, at_most=4096)
    seed: int = setting(0, "seed of the generator", at_least=0, at_most=2**32 - 1)


@dataclass
class DataConfig:
    root: str = setting("data/coco", "folder of the data set", identity=False, path=True)
    train_images: str = setting("train2017", "folder of the training images, from the root", identity=False, path=True)
    train_annotations: str = setting(
        "annotations/instances_train2017.json", "COCO file of those, from the root", identity=False, path=True
    )
    val_images: str = setting("val2017", "folder of the validation images, from the root", identity=False, path=True)
    val_annotations: str = setting(
        "annotations/instances_val2017.json", "COCO file of those, from the root", identity=False, path=True
    )
    crowd: str = setting(
        "regions",
        "what `iscrowd: 1` marks: regions, neither learned nor judged, as in COCO, or objects",
        choices=("regions", "objects"),
        identity="set",
    )
    batch_size: int = setting(
        16, "images per optimizer step, over all devices and accumulated batches", at_least=1, at_most=65_536
    )
    num_workers: int = setting(
        4, "loader processes per device; 0: load in the training process", at_least=0, identity=False
    )
    group_by_aspect: bool = setting(False, "no batch has both wide and tall images, which saves padding")
    keep_empty: bool = setting(False, "train also on images without objects")
    min_image_side: int = setting(32, "leave out training images with a side shorter than this, pixels", at_least=0)
    mask_size: int = setting(
        112, "side of a stored ground-truth mask (R): a larger object is scaled down to it", at_least=8, at_most=4096
    )
    max_bad_images: int = setting(
        0, "unreadable training images that may be replaced by others before the run stops", at_least=0, identity=False
    )
    shapes: ShapesConfig | None = setting(None, "make the embedded data set in `root` if it is not there")
    video: VideoConfig | None = setting(None, "the data is video, in YouTube-VIS format", identity="set")
    reader: PartConfig = slot("reader", "coco", "who reads the annotations")


@dataclass
class AugmentationConfig:
    """Flip, then either resize, or resize, crop and resize again (section 3.4 of DETR's recipe, used by QueryInst)."""

    flip: float = setting(0.5, "probability of a horizontal flip", at_least=0, at_most=1)
    short_sides: list[int] = setting([800], "one of these is drawn as the short side in training, pixels", at_least=32)
    between: bool = setting(False, "draw any short side between the smallest and the largest of `short_sides`")
    long_side: int = setting(1333, "limit of the long side, pixels", at_least=32, at_most=20_000)
    crop: float = setting(0.0, "probability of resize, crop, resize instead of a plain resize", at_least=0, at_most=1)
    crop_short_sides: list[int] = setting([400, 500, 600], "short side before the crop, pixels", at_least=1)
    crop_sides: list[int] = setting([384, 600], "smallest and largest side of the crop, pixels", at_least=1)
    scale_jitter: list[float] = setting(
        [],
        "large-scale jitter: smallest and largest factor on a square of `jitter_side`, then a crop to it; replaces the "
        "resizes and crops above",
        above=0,
        at_most=10,
    )
    jitter_side: int = setting(1024, "side of the square of the large-scale jitter, pixels", at_least=32, at_most=4096)
    photometric: float = setting(
        0.0, "probability of random brightness, contrast, saturation and hue, as SSD", at_least=0, at_most=1
    )
    copy_paste: float = setting(
        0.0, "probability of pasting objects of another training image", at_least=0, at_most=1, identity="set"
    )
    steps: dict[str, Any] = slots("augmentation", "further steps, in order: +augmentation.steps.NAME.name=module:Name")
    test_short_side: int = setting(800, "short side in evaluation, pixels", at_least=32, at_most=10_000)


@dataclass
class OptimizerConfig:
    lr: float = setting(
        1e-4, "AdamW's learning rate for `lr_batch` images a step; scaled linearly with `data.batch_size`", above=0
    )
    lr_batch: int = setting(16, "images a step that `lr` is meant for", at_least=1)
    backbone_factor: float = setting(0.1, "learning rate of the backbone over that of the rest", at_least=0)
    weight_decay: float = setting(1e-4, "AdamW's weight decay", at_least=0)
    undecayed: list[str] = setting([], "parts of parameter names that get no weight decay; published: only with Swin")
    undecayed_vectors: bool = setting(
        False, "no weight decay for norms, biases and other vectors, nor for what a timm network says", identity="set"
    )
    layer_decay: float = setting(
        1.0,
        "learning rate of a layer of the backbone over that of the next, which falls from the last layer to the first",
        above=0,
        at_most=1,
        identity="set",
    )
    betas: list[float] = setting([0.9, 0.999], "AdamW's running averages", at_least=0, at_most=0.99999)
    clip_norm: float = setting(0.1, "largest L2 norm of all gradients together; 0: no limit", at_least=0)


@dataclass
class ScheduleConfig:
    epochs: int = setting(12, "passes over the training set", at_least=1)
    decay: str = setting(
        "step", "how the learning rate falls: at the milestones, or along a cosine to zero", choices=("step", "cosine")
    )
    milestones: list[int] = setting(
        [8, 11], "epochs after which the learning rate is multiplied by `gamma`", at_least=0
    )
    gamma: float = setting(0.1, "factor at each milestone", above=0, at_most=1)
    warmup_iterations: int = setting(1000, "steps over which the learning rate rises linearly", at_least=0)
    warmup_factor: float = setting(0.001, "where the rise starts, over the full learning rate", at_least=0, at_most=1)


@dataclass
class TrainConfig:
    """`python -m queryinst.train`"""

    name: str = setting("run", "first part of the run folder's name", identity=False)
    seed: int = setting(0, "seed of weights, order and augmentation", at_least=0, at_most=2**32 - 1)
    output: str = setting("outputs", "folder of the run folders", identity=False, path=True)
    study_name: str | None = setting(
        None, "study that the run belongs to; with -m and nothing given, named after what varies", identity=False
    )
    dry_run: bool = setting(False, "train nothing: say which run this is, and what it will cost", identity=False)
    weights: str | None = setting(
        None, "start from a checkpoint's weights, or published ones such as mmdet:1x_pro100", path=True
    )
    chosen: dict[str, str] = setting(
        {}, "why the settings are what they are that a recipe leaves to data and machine; filled in", identity=False
    )
    model: ModelConfig = field(default_factory=ModelConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig, metadata={"slot": "backbone"})
    criterion: CriterionConfig = field(default_factory=CriterionConfig)
    signals: SignalsConfig = field(default_factory=SignalsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    metrics: dict[str, Any] = slots("metric", "further metrics of an evaluation: +metrics.NAME.name=module:Name")
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
