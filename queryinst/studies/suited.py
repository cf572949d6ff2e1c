"""Settings that suit the data and the machine: `${suited:NAME}` in a recipe, until a command line says otherwise.

Each is chosen from what `queryinst.data.facts` sees, and from the settings that it depends on as they then are, and has
a reason, which the run says and keeps. A choice knows what is to be learned, never how well that was done.
"""

import functools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from queryinst.config import DataConfig, ModelConfig
from queryinst.studies import beginning
from queryinst.studies.own_split import with_split
from queryinst.studies.paths import expand
from queryinst.studies.plan import missing_data

if TYPE_CHECKING:
    from queryinst.data.facts import Facts

NAME = "suited"  # of the resolver
PLACES = ("root", "train_images", "train_annotations", "val_images", "val_annotations", "crowd", "min_image_side")
STEP = 32  # pixels: sides are multiples of the coarsest stride
LARGEST = {"gpu": 800, "cpu": 512}  # pixels: short side
READABLE = 16  # pixels: where many objects are smaller, images are enlarged, at most twofold
QUERIES = (50, 100, 200, 300, 500, 1000)
SEEN = {"published": 6_000, "ImageNet": 20_000, "nothing": 40_000}  # images in all epochs together; half without a GPU
OBJECTS = 32  # of a step without a GPU
PUBLISHED_LR, SMALL_LR = 1e-4, 5e-4  # of a step: the one for 16 images
GIVEN = "weights are given"
LEAST, MOST = 12, 400  # epochs
EVALUATIONS = 20  # of a run


class Choice(NamedTuple):
    """A value, and in a few words why."""

    value: Any
    why: str


class Asked:
    """What a choice may know: the settings of a command, and what they say of data and machine."""

    def __init__(self, root: DictConfig) -> None:
        self.root = root

    def get(self, key: str) -> Any:
        """The value of a setting, which may be a choice itself."""
        return OmegaConf.select(self.root, key)

    def is_open(self, key: str) -> bool:
        """Whether a setting is left to be chosen here."""
        node, _, leaf = key.rpartition(".")
        return bool(OmegaConf.is_interpolation(OmegaConf.select(self.root, node) if node else self.root, leaf))

    @functools.cached_property
    def facts(self) -> "Facts":
        """Of the data; of usual photographs where it is missing (said elsewhere), is video, or is still to be made:
        the same command must mean the same run before and after.
        """
        from queryinst.data.facts import TYPICAL, facts

        if self.get("data.shapes") or self.get("data.video"):
            return TYPICAL
        reader: Any = OmegaConf.to_object(self.root.data.reader)
        data = DataConfig(reader=reader, **{name: self.get(f"data.{name}") for name in PLACES})
        expand(data)
        data = with_split(data)
        return TYPICAL if missing_data(data) else facts(data)

    @functools.cached_property
    def machine(self) -> str:
        """`gpu` or `cpu`."""
        import torch

        return "gpu" if self.get("trainer.accelerator") != "cpu" and torch.accelerator.is_available() else "cpu"

    @functools.cached_property
    def published(self) -> dict[int, str]:
        """Published weights of this network, by their number of queries; none where somebody has given others."""
        model: Any = OmegaConf.to_container(self.root.model, resolve=False)
        usual: Any = OmegaConf.to_container(OmegaConf.structured(ModelConfig))
        same = all(model[name] == usual[name] for name in usual if name not in ("num_proposals", "postprocess"))
        same &= self.get("backbone.name") == "resnet50"
        return beginning.PUBLISHED if same and self.is_open("weights") and self.is_open("backbone.weights") else {}

    @functools.cached_property
    def start(self) -> beginning.Start:
        """What the network begins with."""
        if not self.is_open("weights") and self.get("weights"):
            return beginning.Start("published", None, None, GIVEN)
        if not self.is_open("backbone.weights"):
            return beginning.Start(
                "ImageNet" if self.get("backbone.weights") else "nothing", None, None, "that is given"
            )
        return beginning.find(self.published.get(self.get("model.num_proposals")), self.get("backbone.name"))

    @property
    def begun(self) -> str:
        """What it begins with, in words."""
        names = {"published": "published weights", "ImageNet": "an ImageNet backbone"}
        return "the weights given" if self.start.why == GIVEN else names.get(self.start.kind, self.start.kind)


def _queries(asked: Asked) -> Choice:
    most = asked.facts.most
    numbers = (100, 300) if asked.published else QUERIES
    enough = [number for number in numbers if number >= beginning.ROOM * most or number == numbers[-1]]
    return Choice(max(enough[0], min(most, QUERIES[-1])), f"{most} objects in an image at most, and half as many again")


def _test_side(asked: Asked) -> Choice:
    facts, largest = asked.facts, LARGEST[asked.machine]
    zoom = min(max(READABLE / facts.small, 1.0), 2.0)
    side = min(max(round(facts.short * zoom / STEP) * STEP, STEP), largest)
    why = f"images of {facts.long} x {facts.short} pixels, a tenth of the objects smaller than {facts.small:.0f}"
    return Choice(side, why + (f", and no GPU: {largest} at most" if asked.machine == "cpu" else ""))


def _long_side(asked: Asked) -> Choice:
    side = asked.get("augmentation.test_short_side")
    return Choice(round(side * 5 / 3 / STEP) * STEP, f"5/3 of {side}, as 1333 of 800")


def _short_sides(asked: Asked) -> Choice:
    side = asked.get("augmentation.test_short_side")
    return Choice([side * 3 // 4, side * 5 // 4], f"a quarter below and above {side}")


def _crop_sides(asked: Asked) -> Choice:
    side = asked.get("augmentation.test_short_side")
    return Choice([side // 2, side], f"from a half to all of {side}")


def _crop(asked: Asked) -> Choice:
    # Facades, 2592 images seen, one seed each: 0.128 mask AP without crops, 0.108 with (experiments/real_photos).
    if asked.machine == "cpu":
        return Choice(0.0, "no GPU: short training learns objects sooner at the sizes that they have")
    return Choice(0.5, "as published")


def _warmup(asked: Asked) -> Choice:
    each = max(asked.facts.images // asked.get("data.batch_size"), 1)
    steps = asked.get("schedule.epochs") * min(each, asked.get("trainer.max_train_batches") or each)
    return Choice(min(max(steps // 20, 1), 1000), f"a twentieth of {steps} steps")


def _batch_size(asked: Asked) -> Choice:
    images, objects = asked.facts.images, asked.facts.objects
    if asked.machine == "gpu":
        return Choice(max(min(16, images // 16), 1), f"{images} images")
    enough = max(round(OBJECTS / max(objects, 1)), 1)  # time is short: more steps learn more than larger ones
    why = f"{images} images of {objects:.0f} objects, no GPU: {OBJECTS} objects a step"
    return Choice(max(min(4, enough, images // 16), 1), why)


def _lr(asked: Asked) -> Choice:
    images, width = asked.get("data.batch_size"), asked.get("model.width")
    if width < ModelConfig.width:
        return Choice(SMALL_LR, f"a head of {width} channels")
    if asked.start.kind == "published":
        return Choice(PUBLISHED_LR * images / 16, f"starting from {asked.begun}, {images} images a step")
    return Choice(PUBLISHED_LR, "as published for an ImageNet backbone")


def _workers(asked: Asked) -> Choice:
    return Choice(0, "no GPU: the network has the cores") if asked.machine == "cpu" else Choice(8, "at most one a core")


def _epochs(asked: Asked) -> Choice:
    seen, images = SEEN[asked.start.kind], asked.facts.images
    seen //= 2 if asked.machine == "cpu" else 1
    epochs = min(max(round(seen / images), LEAST), MOST)
    less = ", no GPU" if asked.machine == "cpu" else ""
    return Choice(epochs, f"{seen} images to see, starting from {asked.begun}{less}, {LEAST} epochs at least")


def _evaluate_every(asked: Asked) -> Choice:
    epochs = asked.get("schedule.epochs")
    return Choice(max(epochs // EVALUATIONS, 1), f"{EVALUATIONS} evaluations at most, of {epochs} epochs")


def _frozen(asked: Asked) -> Choice:
    begun = asked.start.kind != "nothing"
    return Choice(1, "stem and first stage are pretrained") if begun else Choice(-1, "nothing is pretrained")


def _precision(asked: Asked) -> Choice:
    """bfloat16 where the machine multiplies it: a processor without AMX is slower with it than without."""
    import torch

    if asked.machine == "cpu":
        has = torch.backends.mkldnn.is_available() and getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        why = f"the processor has {'' if has else 'no '}AMX"
    else:
        has = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        why = f"the GPU has {'' if has else 'no '}bfloat16"
    return Choice("bf16-mixed" if has else "32-true", why)


def _thaw(asked: Asked) -> Choice:
    frozen, epochs = asked.get("backbone.frozen_stages"), asked.get("schedule.epochs")
    if frozen >= 0 and asked.machine == "cpu":
        return Choice(None, "no GPU: to train its largest maps too takes half as long again")
    if frozen < 0 or epochs < 3:
        return Choice(None, "nothing is frozen" if frozen < 0 else f"{epochs} epochs are too few")
    return Choice(epochs // 3, f"a third of {epochs} epochs, when what started fresh has learned something")


def _norm(asked: Asked) -> Choice:
    begun = asked.start.kind != "nothing"
    return Choice("fixed", "statistics are pretrained") if begun else Choice("batch", "nothing is pretrained")


def _by_start(values: dict[str, float]) -> Callable[[Asked], Choice]:
    """A choice that depends on nothing but the start."""
    return lambda asked: Choice(values[asked.start.kind], f"starting from {asked.begun}")


CHOICES: dict[str, Callable[[Asked], Choice]] = {
    "weights": lambda asked: Choice(asked.start.weights, asked.start.why),
    "backbone_weights": lambda asked: Choice(asked.start.backbone, asked.start.why),
    "frozen_stages": _frozen,
    "thaw": _thaw,
    "norm": _norm,
    "num_proposals": _queries,
    "test_short_side": _test_side,
    "long_side": _long_side,
    "short_sides": _short_sides,
    "crop": _crop,
    "crop_sides": _crop_sides,
    "batch_size": _batch_size,
    "num_workers": _workers,
    "lr": _lr,
    "backbone_factor": _by_start({"published": 0.1, "ImageNet": 0.3, "nothing": 1.0}),
    "clip_norm": _by_start({"published": 0.1, "ImageNet": 1.0, "nothing": 1.0}),
    "epochs": _epochs,
    "warmup_iterations": _warmup,
    "evaluate_every": _evaluate_every,
    "precision": _precision,
}


_last: list[Asked] = []  # of the configuration that was asked about last: it is asked about many times


def _asked(root: DictConfig) -> Asked:
    if not _last or _last[0].root is not root:
        _last[:] = [Asked(root)]
    return _last[0]


def register() -> None:
    """Make `${suited:NAME}` known to OmegaConf."""
    OmegaConf.register_new_resolver(NAME, lambda name, *, _root_: CHOICES[name](_asked(_root_)).value, replace=True)


def reasons(composed: DictConfig) -> dict[str, str]:
    """Why the settings that were left to be chosen are what they are, by their keys."""
    asked = _asked(composed)
    return {key: CHOICES[name](asked).why for key, name in _open(OmegaConf.to_container(composed, resolve=False))}


def _open(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key, name of the choice) of every setting that is one."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _open(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(node, str) and (found := re.fullmatch(rf"\$\{{{NAME}:(\w+)\}}", node)):
        yield prefix, found[1]
