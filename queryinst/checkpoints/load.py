"""Our checkpoints: reading and writing them, and starting a training from weights."""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torchvision
from torch import Tensor, nn

from queryinst.checkpoints.by_name import local
from queryinst.checkpoints.convert import backbone_weights, complete, some, translate
from queryinst.checkpoints.library_weights import start_library
from queryinst.checkpoints.read import read, read_safetensors, write_safetensors
from queryinst.config import ModelConfig, TrainConfig
from queryinst.errors import UserError
from queryinst.models.library_backbones import LibraryBackbone
from queryinst.models.queryinst import QueryInst
from queryinst.rules import check
from queryinst.settings import restore
from queryinst.slots import NETWORK, outside, place, require_allowed
from queryinst.source import digest

PREFIX = "model."  # of the network's parameters in the state of the LightningModule
SAFE = ".safetensors"
CLASS_LAYERS = (".box.cls.", ".mask.logits.")  # the only parameters whose shape depends on the number of classes
ASSOCIATION = ".association."  # in the names of what only a model for video has


@dataclass(frozen=True)
class Checkpoint:
    """What a training run or a conversion left behind: configuration, classes and weights."""

    path: Path
    config: TrainConfig
    category_ids: list[int]
    category_names: list[str]
    weights: dict[str, Tensor]
    parts: dict[str, str] = field(default_factory=dict)  # a hash of the source of each part from outside, by its key
    allowed: tuple[str, ...] = ()  # modules that parts may be imported from

    def build(self) -> QueryInst:
        """The network with these weights, in evaluation mode.

        Raises:
            UserError: the weights are not its own, or it has parts of a module that is not allowed.
        """
        self.require_allowed(*NETWORK)
        model = QueryInst(self.config.model, self.config.backbone, len(self.category_ids))
        model.load_state_dict(complete(self.weights, model, str(self.path)))
        return model.eval()

    def require_allowed(self, *slots: str) -> None:
        """Raise UserError where a part of these slots comes from a module that nobody has allowed to be imported; say
        so where one has changed since.
        """
        parts = [part for part in outside(self.config) if part.slot in slots]
        require_allowed(parts, self.allowed, str(self.path))
        for part in parts:
            if self.parts.get(part.key) not in (None, digest(place(part)[0])):
                print(f"note: the source of {part.name} has changed since {self.path} was trained", file=sys.stderr)

    def require_classes(self, ids: Sequence[int], names: Sequence[str], where: Path) -> None:
        """Raise UserError unless a data set has the classes that this model was trained on."""
        if len(ids) != len(self.category_ids):
            raise UserError(
                f"{self.path} was trained on {len(self.category_ids)} classes ({some(self.category_names)}), "
                f"but {where} has {len(ids)} ({some(names)}): evaluate on data with the same classes, "
                f"or fine-tune with queryinst.train weights={self.path}"
            )
        for ours, theirs in ((self.category_ids, ids), (self.category_names, names)):
            differing = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
            if differing:
                raise UserError(
                    f"{self.path} was trained on other categories than those of {where}: "
                    f"{differing[0][0]!r} there is {differing[0][1]!r} here"
                )


def load(path: str | Path, allow: Sequence[str] = ()) -> Checkpoint:
    """Read a checkpoint: of a training run (`.ckpt`), one that `queryinst.convert` wrote (`.safetensors`), or published
    weights by name (`queryinst.zoo`), which are fetched once.

    Nothing that the file names is imported, neither here nor when the network is built, unless it is in `allow`.

    Args:
        path: the file, or a name such as `mmdet:1x_pro100`.
        allow: modules of the user's own that may be imported for the parts that the checkpoint names.

    Raises:
        UserError: there is no such file, it is damaged, it holds something else, it would execute code, or it cannot be
            fetched.
    """
    path = local(path)
    if path.suffix == SAFE:
        weights, record = read_safetensors(path)
        if record.get("kind") != "model":
            raise UserError(f"{path} is not a whole model ({record.get('kind', 'not written by queryinst.convert')})")
        return _checkpoint(path, record, weights, allow)
    content = read(path)
    if not is_ours(content):
        raise UserError(
            f"{path} is not a checkpoint of queryinst.train, such as the best.ckpt or last.ckpt of a run folder; "
            f"weights of other projects come with python -m queryinst.convert {path} {path.with_suffix(SAFE)}"
        )
    state = content["state_dict"].items()
    weights = {name.removeprefix(PREFIX): value for name, value in state if name.startswith(PREFIX)}
    return _checkpoint(path, content["queryinst"], weights, allow)


def is_ours(content: Any) -> bool:
    """Whether the content of a file is a checkpoint of a training run."""
    return isinstance(content, dict) and "queryinst" in content and isinstance(content.get("state_dict"), dict)


def _checkpoint(path: Path, record: dict[str, Any], weights: dict[str, Tensor], allow: Sequence[str]) -> Checkpoint:
    try:
        config: TrainConfig = restore(TrainConfig, record["config"])
        check(config)
        ids, names = list(map(int, record["category_ids"])), list(map(str, record["category_names"]))
        if len(ids) != len(names):
            raise ValueError(f"{len(ids)} category ids, {len(names)} names")
        parts = {str(key): str(value) for key, value in record.get("parts", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged: its record of settings and classes cannot be read ({error!r})") from None
    broken = [name for name, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{path} has {len(broken)} tensors with NaN or infinite values, first {broken[0]}: training failed"
        )
    return Checkpoint(path, config, ids, names, weights, parts, tuple(allow))


def save(checkpoint: Checkpoint, destination: Path, source: dict[str, str]) -> None:
    """Write a checkpoint as safetensors with its architecture, classes and `source`. Raises UserError."""
    record = {
        "kind": "model",
        "config": dataclasses.asdict(checkpoint.config),
        "category_ids": checkpoint.category_ids,
        "category_names": checkpoint.category_names,
        "source": source,
        **({"parts": checkpoint.parts} if checkpoint.parts else {}),
    }
    write_safetensors(destination, checkpoint.weights, record)


def require_fit(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError unless a run's checkpoint has the tensors of its network, `own`, whose code may have changed."""
    shapes = [{name: tuple(value.shape) for name, value in tensors.items()} for tensors in (weights, own)]
    differing = [name for name in {**shapes[1], **shapes[0]} if shapes[0].get(name) != shapes[1].get(name)]
    if differing:
        there, here = (str(found.get(differing[0], "missing")) for found in shapes)
        raise UserError(
            f"{path} does not fit the network: {differing[0]} is {there} there and {here} here"
            + (f", and {len(differing) - 1} other tensors differ" if len(differing) > 1 else "")
            + "; the code of its layers has changed since. Go back to the code that the run was begun with (its "
            f"folder's revisions.txt may say which), or delete {path.parent} to train it again"
        )


def start_from(model: QueryInst, config: ModelConfig, path: str, names: Sequence[str]) -> str:
    """Load another run's weights for fine-tuning; with other classes (`names`), the class layers start fresh.

    Association heads start fresh from a detector, which has none, and are left out where a detector is wanted.

    Returns:
        what was loaded, in one sentence.

    Raises:
        UserError: the checkpoint has another architecture.
    """
    checkpoint = load(path)
    for name in ("num_heads", "mask_resolution", "aligned"):  # no weight has them in its shape
        here, there = getattr(config, name), getattr(checkpoint.config.model, name)
        if here != there:
            raise UserError(f"weights={path} was trained with model.{name}={there}, not {here}: set it to the same")
    ours = model.state_dict()
    new = list(names) != checkpoint.category_names
    fresh = [
        name
        for name, value in checkpoint.weights.items()
        if name in ours and (value.shape != ours[name].shape or (new and any(part in name for part in CLASS_LAYERS)))
    ]
    missing = [name for name in ours if name not in checkpoint.weights]
    surplus = [name for name in checkpoint.weights if name not in ours]
    here, there = model.associates, checkpoint.config.model.association is not None
    if here != there:
        missing, surplus = ([name for name in group if ASSOCIATION not in name] for group in (missing, surplus))
    if missing or surplus or not all(any(part in name for part in CLASS_LAYERS) for name in fresh):
        theirs = checkpoint.config.model
        ours_alone = (config.box_head.name, config.mask_head.name) == ("dynamic", "dynamic")
        differing = (name for name in [*missing, *surplus, *fresh] if not any(part in name for part in CLASS_LAYERS))
        raise UserError(
            f"weights={path} has another architecture ({checkpoint.config.backbone.name}, {theirs.num_stages} stages, "
            f"{theirs.num_proposals} proposals, width {theirs.width}); the first parameter that differs is "
            f"{next(differing, '')}: set backbone and model to the same"
            + ("" if ours_alone else ", and call the class layers of your own heads `cls` and `logits`")
        )
    model.load_state_dict(
        {name: value for name, value in checkpoint.weights.items() if name in ours and name not in fresh}, strict=False
    )
    loaded = sum(name in ours and name not in fresh for name in checkpoint.weights)
    kept = f"{loaded} of {len(checkpoint.weights)} tensors from {path}"
    classes = f"{len(checkpoint.category_ids)} classes there, {model.num_classes} here"
    layers = {name.rpartition(".")[0] for name in fresh}
    if here != there:
        kept += "; the association heads " + ("start fresh" if here else "are left out")
    return kept + (f"; {len(layers)} class layers start fresh ({classes})" if fresh else "")


def start_backbone(backbone: nn.Module, name: str, weights: str) -> str:
    """Load pretrained weights into a backbone: torchvision's (`imagenet`, downloaded) or any file that convert knows;
    into a library's, its own or a file of them.

    Returns:
        what was loaded, in one sentence.

    Raises:
        UserError: there are none, the download failed, or the file does not fit.
    """
    if isinstance(backbone, LibraryBackbone):
        return start_library(backbone, weights)
    if name == "tiny":
        raise UserError(f"backbone.weights={weights}: there are no weights for backbone.name={name}; leave it empty")
    if Path(weights).suffix == SAFE:
        tensors, record = read_safetensors(Path(weights))
        if record.get("kind") != "backbone" or record.get("name") != name:
            found = f"{record.get('kind', 'file of others')} {record.get('name', '')}".strip()
            raise UserError(f"backbone.weights={weights} is a {found}, not the backbone {name}")
        state = complete(tensors, backbone, f"backbone.weights={weights}", fresh=("out_norms.",))
        label = "converted"
    else:
        content = _imagenet(name) if weights == "imagenet" else read(weights)
        where = f"backbone.weights={weights}"
        translated = translate(content, where)
        state, label = backbone_weights(translated, name, where), translated.origin.label
    backbone.load_state_dict(state, strict=False)  # proved complete, but for a Swin's output norms
    return f"backbone: {len(state)} tensors from {weights} ({label})"


def _imagenet(name: str) -> Any:
    """torchvision's weights, downloaded. Raises UserError."""
    try:
        source = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    except ValueError:
        raise UserError(
            f"torchvision has no ImageNet weights for backbone.name={name}; give backbone.weights=FILE, Microsoft's say"
        ) from None
    try:
        return source.get_state_dict(progress=True)
    except OSError as error:
        raise UserError(
            f"the ImageNet weights of {name} cannot be downloaded ({error}): "
            f"fetch {source.url} elsewhere and set backbone.weights=FILE"
        ) from None
