"""Every shipped YAML file composes, says what it is, and no setting is dead."""

import dataclasses
import functools
import re
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from queryinst.command_config import DemoConfig, DoctorConfig, EvaluateConfig, PredictConfig
from queryinst.config import TrainConfig
from queryinst.criterion_config import CriterionConfig
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.settings import restore, walk
from queryinst.studies.command import compose
from queryinst.video_config import AssociationConfig, TrackerConfig

CONF = ROOT / "conf"
OPTIONS = sorted(path for path in CONF.glob("*/*.yaml"))
# Settings that an option leaves to the user.
NEEDED = {name: ["backbone.weights=null"] for name in ("swin_l", "swin_l_ms_crop_50e_pro300")}
NEEDED |= {kind: [f"backbone.name={kind}:resnet18"] for kind in ("timm", "torchvision")}
# Video data and a model of video go together.
VIDEO = {f"data/{name}": ["model=tiny_video"] for name in ("shapes_video", "shapes_video_tiny", "youtube_vis")}
VIDEO |= {f"model/{name}": ["data=shapes_video"] for name in ("tiny_video", "queryinst_video")}
SIGNALS = {path.stem for path in OPTIONS if path.parent.name == "signals"}
EXPERIMENTS = [path for path in OPTIONS if path.parent.name == "experiment"]
SCHEMAS = {
    "config": TrainConfig,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "demo": DemoConfig,
    "doctor": DoctorConfig,
}


@functools.cache
def _composed(*words: str) -> TrainConfig:
    return compose("config", TrainConfig, list(words))


def composed(words: list[str]) -> TrainConfig:
    """Several tests look at the same words; none changes what they mean."""
    return _composed(*words)


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_option_composes(path: Path):
    group = path.parent.name
    override = f"{'+' * (group in ('experiment', 'study'))}{group}={path.stem}"
    extra = ["schedule.epochs=60"] if group == "schedule" else NEEDED.get(path.stem, [])
    extra = VIDEO.get(f"{group}/{path.stem}", extra)
    config = composed([override, *extra])
    assert restore(TrainConfig, dataclasses.asdict(config)) == config


@pytest.mark.parametrize("path", [*OPTIONS, *CONF.glob("*.yaml")], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_says_what_it_is(path: Path):
    assert path.read_text().startswith("# ")


NAMES = {"tiny": "coco"}  # of which there are runs


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_an_experiment_is_a_short_delta_with_a_header(path: Path):
    text = path.read_text()
    header = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert f"python -m queryinst.train +experiment={path.stem}" in header
    for word in ("published", "measured", "box AP", "mask AP"):
        assert word in header, word
    assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 20
    name = composed([f"+experiment={path.stem}", *NEEDED.get(path.stem, [])]).name
    assert name == NAMES.get(path.stem, path.stem)


MS = list(range(480, 801, 32))
PROFILES = {  # learning rate for 16 images, the backbone's factor, clipping; BatchNorm; initialisation; clip at test
    "paddle": (1e-4, 0.1, 0.1, "frozen", "paddle", True),
    "mmdet": (1e-4, 0.1, 0.1, "fixed", "mmdetection", False),
    "authors": (2.5e-5, 1.0, 1.0, "fixed", "mmdetection", False),
}


@pytest.mark.parametrize(
    ("name", "profile", "backbone", "proposals", "epochs", "milestones", "short_sides", "crop"),
    [
        ("1x_pro100", "paddle", "resnet50", 100, 12, [8, 11], [800], 0.0),
        ("ms_3x_pro100", "mmdet", "resnet50", 100, 36, [27, 33], MS, 0.0),
        ("ms_crop_3x_pro300", "paddle", "resnet50", 300, 36, [27, 33], MS, 0.5),
        ("r101_ms_3x_pro100", "mmdet", "resnet101", 100, 36, [27, 33], MS, 0.0),
        ("r101_ms_crop_3x_pro300", "mmdet", "resnet101", 300, 36, [27, 33], MS, 0.5),
        ("swin_t_ms_crop_3x_pro100", "authors", "swin_t", 100, 36, [27, 33], MS, 0.5),
        ("swin_l_ms_crop_50e_pro300", "authors", "swin_l", 300, 50, [40], [400, 1200], 0.5),
    ],
)
def test_recipes_of_the_zoo(
    name: str,
    profile: str,
    backbone: str,
    proposals: int,
    epochs: int,
    milestones: list[int],
    short_sides: list[int],
    crop: float,
):
    """Each as it was published, and with the profile of another implementation (reference, 3.1 to 3.6)."""
    needed = NEEDED.get(name, [])
    config = composed([f"+experiment={name}", *needed])
    assert (config.backbone.name, config.model.num_proposals) == (backbone, proposals)
    assert (config.schedule.epochs, config.schedule.milestones) == (epochs, milestones)
    assert (config.augmentation.short_sides, config.augmentation.crop) == (short_sides, crop)
    assert config.augmentation.between == (backbone == "swin_l")
    assert (config.data.batch_size, config.schedule.warmup_iterations, config.model.num_stages) == (16, 1000, 6)
    assert (config.optimizer.weight_decay, config.optimizer.betas) == (1e-4, [0.9, 0.999])
    assert bool(config.optimizer.undecayed) == backbone.startswith("swin")
    assert config.backbone.frozen_stages == (-1 if backbone.startswith("swin") else 1)
    assert config.backbone.weights == (None if backbone == "swin_l" else "imagenet")
    assert config.criterion == CriterionConfig()
    assert config.model.proposal_init == "image"
    assert {path.stem for path in (CONF / "profile").glob("*.yaml")} == set(PROFILES)
    for chosen in PROFILES:
        config = composed([f"+experiment={name}", *needed, f"profile={chosen}"])
        optimizer, model = config.optimizer, config.model
        assert PROFILES[chosen] == (
            *(optimizer.lr, optimizer.backbone_factor, optimizer.clip_norm, config.backbone.norm),
            *(model.initialisation, model.postprocess.clip_boxes),
        )
        if chosen == profile:
            assert config == composed([f"+experiment={name}", *needed])


def test_recipes_of_video():
    """As the reference tells them (6.1, 6.3): the query's own head at 1024 numbers, 360 pixels, the authors' AdamW."""
    for name in ("vis_2019", "vis_2021"):
        config = composed([f"+experiment={name}"])
        assert config.model.association == AssociationConfig("query", 1024)
        assert (config.backbone.name, config.model.num_proposals, config.model.num_stages) == ("resnet50", 100, 6)
        assert (config.schedule.epochs, config.schedule.milestones) == (12, [8, 11])
        assert (config.optimizer.lr, config.optimizer.backbone_factor, config.optimizer.clip_norm) == (2.5e-5, 1.0, 1.0)
        assert (config.augmentation.short_sides, config.augmentation.test_short_side) == ([360, 480], 360)
        assert (config.data.batch_size, config.data.video.reference_range) == (16, 100)
        assert (config.criterion, config.tracker) == (CriterionConfig(), TrackerConfig())
    small = composed(["+experiment=shapes_video"])
    image = composed([])
    assert dataclasses.replace(small.model, association=None) == image.model, "a detector of `shapes` fits"
    assert small.backbone == image.backbone


def test_every_setting_is_read_somewhere():
    """A setting that no code names would change nothing, in silence."""
    files = [path for path in (ROOT / "queryinst").rglob("*.py") if not path.stem.endswith(("config", "settings"))]
    code = "\n".join(path.read_text() for path in files)  # not where settings are declared
    for config in (TrainConfig(), EvaluateConfig(), PredictConfig(), DemoConfig(), DoctorConfig()):
        for key, _, _ in walk(config):
            assert re.search(rf"\.{key.rpartition('.')[2]}\b", code), key


@pytest.mark.parametrize("name", sorted(SIGNALS - {"mask_quality", "pyramid_proposals"}))  # whose layers stay
def test_a_signal_is_off_by_default_and_leaves_no_trace_at_test(name: str):
    """The same weights and the same inputs: the same outputs to the last bit, by the names of the plain network."""
    plain, other = composed([]), composed([f"signals={name}"])
    before, after = ({key: value for key, _, value in walk(config)} for config in (plain, other))
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert bool(changed) == (name != "none")
    assert all(key.startswith(("signals.", "criterion.", "augmentation.", "model.")) for key in changed)
    models = [QueryInst(config.model, config.backbone, 3).eval() for config in (plain, other)]
    models[0].load_state_dict(models[1].state_dict())
    images, sizes = torch.randint(256, (2, 3, 64, 96)).to(torch.uint8), torch.tensor([[64, 90], [60, 96]])
    with torch.inference_mode():
        outputs = [model(images, sizes).stages for model in models]
        found = [
            detect(model, model(images, sizes), sizes, sizes, config.model.postprocess)
            for model, config in zip(models, (plain, other), strict=True)
        ]
    for ours, theirs in zip(*outputs, strict=True):
        assert all(torch.equal(getattr(ours, key), value) for key, value in vars(theirs).items() if value is not None)
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours.scores, theirs.scores)
        assert torch.equal(ours.masks, theirs.masks)


def another(value: bool | int | float) -> bool | int | float:
    """A value of the same kind that every setting takes and that is not the same."""
    if isinstance(value, bool):
        return not value
    return (
        value * 2
        if isinstance(value, int) and value > 0
        else value + 1
        if isinstance(value, int)
        else (value + 0.37) / 2
    )


def test_every_setting_has_a_meaning_and_changes_itself_alone():
    """Many at a time: of any two, the one is changed without the other in the group of a digit of their numbers."""
    defaults = composed([])
    before = {key: value for key, _, value in walk(defaults)}
    words = {}
    for key, entry, value in walk(defaults):
        assert entry.metadata["meaning"], key
        if isinstance(value, bool | int | float) and not entry.metadata["choices"]:
            words[key] = f"{key}={another(value)}".lower()
    for digit in range(len(words).bit_length()):
        for is_set in (0, 1):
            group = [key for number, key in enumerate(words) if number >> digit & 1 == is_set]
            after = composed([words[key] for key in group])
            assert [key for key, _, value in walk(after) if value != before[key]] == group


def test_the_same_values_again_are_the_same_configuration():
    assert composed([]) == composed(["seed=0"])
