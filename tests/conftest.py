"""What the tests share: a small data set, small settings, and a way to run a command as a user would."""

import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

# Whoever starts the tests may be inside a job of a cluster, logged in to W&B, or have numbers of threads of their own.
# None of that is what is tested, here or in a process that a test starts, and it must be gone before torch is imported.
PREFIXES = ("SLURM_", "WANDB_", "QUERYINST_", "HYDRA_", "OMP_", "GOMP_", "KMP_", "MKL_", "TORCH_", "MPL", "XDG_")
RANKS = ("LOCAL_", "MASTER_", "RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE")
for name in list(os.environ):
    if name.startswith((*PREFIXES, *RANKS, "COLUMNS", "NO_COLOR", "FORCE_COLOR", "PYTHONDONTWRITEBYTECODE")):
        del os.environ[name]
os.environ |= {"OMP_NUM_THREADS": "1", "QUERYINST_OFFLINE": "1", "WANDB_MODE": "offline", "WANDB_SILENT": "true"}

import pytest
import torch
import wandb  # noqa: F401 - early, for it looks through all modules again and again, of which tests import thousands

from queryinst.config import AugmentationConfig, BackboneConfig, DataConfig, ModelConfig, ShapesConfig, TrainConfig
from queryinst.models.queryinst import QueryInst
from queryinst.structures import Batch, Targets
from queryinst.video_config import AssociationConfig, ShapesVideoConfig, VideoConfig

ROOT = Path(__file__).parents[1]
SMALLER = ["model.num_proposals=8", "model.width=32", "model.ffn_width=64"]  # a third of the time of a run of this kind
SMALLER += ["model.num_stages=2", "model.mask_convs=1", "model.regression_layers=1"]
SMALLER += ["augmentation.short_sides=[64]", "augmentation.long_side=64", "augmentation.test_short_side=64"]
BRIEF = ["data=shapes_tiny", "schedule.epochs=2", "schedule.warmup_iterations=2", "logger=csv", "callbacks.pictures=2"]
TINY = [*BRIEF, *SMALLER]
SHORT = [*TINY, "schedule.epochs=1", "callbacks.pictures=0"]


# Files that take longest come first, so that the processes that share the tests end together.
LONG = ("test_notebooks", "test_sweep", "test_own_parts", "test_library_backbones_end_to_end", "test_end_to_end")
LONG += ("test_compiled", "test_convert", "test_conf", "test_exported", "test_library_backbones", "test_compare")
LONG += ("test_own_programs", "test_video", "test_demo", "test_search", "test_moved", "test_how_it_ends", "test_paths")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    gc.freeze()  # what was imported stays: Python's collector need not walk it again and again
    gc.set_threshold(50_000, 20, 20)  # and it need not look for more so often; `_collected` does after each file
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_unconfigure() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def _collected() -> Iterator[None]:
    """What the tests of a file leave in circles goes, and what they have imported stays."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _quiet_and_repeatable() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shapes_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set `shapes_tiny`, made once. Tests that change it take `shapes_root`."""
    from queryinst.data import shapes

    root = tmp_path_factory.mktemp("data") / "shapes_tiny"
    shapes.make(root, ShapesConfig(train=24, val=8, side=96))
    return root


@pytest.fixture
def shapes_root(shapes_source: Path, tmp_path: Path) -> Path:
    """A copy of `shapes_tiny` that a test may break, as `data/shapes_tiny` below the working directory of the test."""
    return Path(shutil.copytree(shapes_source, tmp_path / "data" / "shapes_tiny"))


@pytest.fixture(scope="session")
def clips_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set `shapes_video_tiny`, made once. Tests that change it take `clips_root`."""
    from queryinst.data import shapes_video

    root = tmp_path_factory.mktemp("data") / "shapes_video_tiny"
    shapes_video.make(root, ShapesVideoConfig(train=6, val=2, frames=16, side=96))
    return root


@pytest.fixture
def clips_root(clips_source: Path, tmp_path: Path) -> Path:
    """A copy of `shapes_video_tiny` that a test may break, as `data/shapes_video_tiny` below a test's own folder."""
    return Path(shutil.copytree(clips_source, tmp_path / "data" / "shapes_video_tiny"))


def shapes_config(**settings: Any) -> TrainConfig:
    """A configuration for the data of `shapes_root`, in no time: nothing is composed."""
    folders = {f"{split}_images": f"images/{split}" for split in ("train", "val")}
    files = {f"{split}_annotations": f"annotations/instances_{split}.json" for split in ("train", "val")}
    shapes = ShapesConfig(train=24, val=8, side=96)
    data = DataConfig(root="data/shapes_tiny", shapes=shapes, num_workers=0, batch_size=4, **folders, **files)
    return TrainConfig(data=data, **settings)


@pytest.fixture
def workplace(shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with the data in place, as after a first run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained_source(shapes_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with the settings `SHORT`, made once."""
    from queryinst.studies import command, job

    place = tmp_path_factory.mktemp("trained")
    shutil.copytree(shapes_source, place / "data" / "shapes_tiny")
    with contextlib.chdir(place):
        return place / job.run(command.compose("config", TrainConfig, SHORT))


@pytest.fixture
def trained(trained_source: Path, workplace: Path) -> Path:
    """That folder in a working directory, as after `python -m queryinst.train` with `SHORT`."""
    return Path(shutil.copytree(trained_source, workplace / "outputs" / trained_source.name))


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `python -m queryinst.VERB ARGUMENTS` in this process; gives the exit code and everything that was printed."""

    def call(verb: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [f"queryinst.{verb}", *arguments])
        monkeypatch.delitem(sys.modules, f"queryinst.{verb}", raising=False)
        capfd.readouterr()
        code = 0
        try:
            runpy.run_module(f"queryinst.{verb}", run_name="__main__")
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return code, out + err

    return call


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that a test, a sweep or a benchmark in it starts import nothing anew."""
    import pytorch_lightning  # noqa: F401 - that is what takes the time
    from forked import Forked

    monkeypatch.setattr(subprocess, "Popen", Forked)
    context = multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda kind=None: context("fork" if kind == "spawn" else kind))


Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module of a user's own into the working directory, where commands find it; forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def call(name: str, source: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return path

    yield call
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


SMALL: dict[str, Any] = {
    "num_proposals": 6,
    "num_stages": 2,
    "width": 16,
    "dynamic_width": 8,
    "num_heads": 2,
    "ffn_width": 32,
    "mask_convs": 1,
    "proposal_init": "grid",
}


def small_model(num_classes: int = 3, **settings: Any) -> QueryInst:
    """A QueryInst that runs in milliseconds."""
    backbone = BackboneConfig(name="tiny", frozen_stages=-1, norm="batch")
    return QueryInst(ModelConfig(**{**SMALL, **settings}), backbone, num_classes)


def random_targets(
    counts: list[int], height: int = 64, width: int = 64, num_classes: int = 3, seed: int = 0
) -> Targets:
    """Ground truth of elliptic objects, masks as whole bitmaps."""
    generator = torch.Generator().manual_seed(seed)
    total = sum(counts)
    low = torch.rand(total, 2, generator=generator) * torch.tensor([width * 0.6, height * 0.6])
    boxes = torch.cat(
        [low, low + 4 + torch.rand(total, 2, generator=generator) * torch.tensor([width, height]) * 0.35], 1
    )
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    inside = ((x - centre[:, 0, None, None]) / half[:, 0, None, None]) ** 2 + (
        (y - centre[:, 1, None, None]) / half[:, 1, None, None]
    ) ** 2
    return Targets(
        boxes=boxes,
        labels=torch.randint(num_classes, (total,), generator=generator),
        masks=(inside <= 1).to(torch.uint8),
        mask_boxes=torch.tensor([[0.0, 0.0, width, height]]).repeat(total, 1),
        counts=counts,
    )


def random_batch(counts: list[int], height: int = 64, width: int = 64, seed: int = 0) -> Batch:
    """Images of noise with random ground truth."""
    images = torch.randint(256, (len(counts), 3, height, width), generator=torch.Generator().manual_seed(seed)).to(
        torch.uint8
    )
    sizes = torch.tensor([[height, width]]).repeat(len(counts), 1)
    return Batch(images, sizes, sizes, list(range(len(counts))), random_targets(counts, height, width, seed=seed), [])


def coco_folder(root: Path, content: dict[str, Any], split: str = "val") -> Path:
    """Write an annotation file where `shapes` has it and return its path."""
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 6 queries, 2 stages and the classes cat (4), dog (7), traffic light (90), with lively scores."""
    return _save_untrained(tmp_path_factory.mktemp("untrained"))


@pytest.fixture(scope="session")
def untrained_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with association heads."""
    return _save_untrained(
        tmp_path_factory.mktemp("untrained_video"), AssociationConfig(width=16), DataConfig(video=VideoConfig())
    )


def _save_untrained(folder: Path, association: AssociationConfig | None = None, data: DataConfig | None = None) -> Path:
    from queryinst.checkpoints.load import Checkpoint, save

    torch.manual_seed(0)
    config = TrainConfig(
        model=ModelConfig(**SMALL, association=association),
        backbone=BackboneConfig(name="tiny", frozen_stages=-1, norm="batch"),
        augmentation=AugmentationConfig(test_short_side=64, long_side=96),
        data=data or DataConfig(),
    )
    model = QueryInst(config.model, config.backbone, 3)
    for stage in model.stages:
        torch.nn.init.normal_(stage.box.cls.weight, std=0.5)
        torch.nn.init.zeros_(stage.box.cls.bias)
        torch.nn.init.normal_(stage.mask.logits.weight, std=5.0)
    path = folder / "model.safetensors"
    weights = {name: value.detach() for name, value in model.state_dict().items()}
    save(Checkpoint(path, config, [4, 7, 90], ["cat", "dog", "traffic light"], weights), path, {})
    return path


class Camera:
    """In place of `cv2.VideoCapture`: what a camera does that shows `pictures` (RGB)."""

    pictures: ClassVar[list[Any]] = []
    index: ClassVar[int] = -1

    def __init__(self, index: int) -> None:
        type(self).index = index
        self.left = iter(self.pictures)

    def isOpened(self) -> bool:  # noqa: N802 - OpenCV's name
        return True

    def get(self, key: int) -> float:
        return -1.0

    def read(self) -> tuple[bool, Any]:
        picture = next(self.left, None)
        return picture is not None, None if picture is None else picture[..., ::-1].copy()

    def release(self) -> None:
        self.left = iter(())
