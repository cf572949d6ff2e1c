"""Reading our checkpoints. Nothing in a file is ever executed: tensors and plain values only."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.models.queryinst import QueryInst
from queryinst.settings import restore

PREFIX = "model."  # of the network's parameters in the state of the LightningModule
CLASS_LAYERS = (".box.cls.", ".mask.logits.")  # the only parameters whose shape depends on the number of classes


@dataclass(frozen=True)
class Checkpoint:
    """What a training run left behind: its configuration, its classes and its weights."""

    path: Path
    config: TrainConfig
    category_ids: list[int]
    category_names: list[str]
    weights: dict[str, Tensor]

    def build(self) -> QueryInst:
        """The network with these weights, in evaluation mode."""
        model = QueryInst(self.config.model, self.config.backbone, len(self.category_ids))
        model.load_state_dict(self.weights)
        return model.eval()

    def require_classes(self, ids: Sequence[int], names: Sequence[str], where: Path) -> None:
        """Raise UserError unless a data set has the classes that this model was trained on."""
        if len(ids) != len(self.category_ids):
            raise UserError(
                f"{self.path} was trained on {len(self.category_ids)} classes ({_some(self.category_names)}), "
                f"but {where} has {len(ids)} ({_some(names)}): evaluate on data with the same classes, "
                f"or fine-tune with queryinst.train weights={self.path}"
            )
        for ours, theirs in ((self.category_ids, ids), (self.category_names, names)):
            differing = [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]]
            if differing:
                raise UserError(
                    f"{self.path} was trained on other categories than those of {where}: "
                    f"{differing[0][0]!r} there is {differing[0][1]!r} here"
                )


def _some(things: Sequence[Any]) -> str:
    return ", ".join(map(str, things[:5])) + (", ..." if len(things) > 5 else "")


def load(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        UserError: there is no such file, it is damaged, it holds something else, or it would execute code.
    """
    path = Path(path)
    content = read(path)
    if not isinstance(content, dict) or "queryinst" not in content or "state_dict" not in content:
        raise UserError(
            f"{path} is not a checkpoint of queryinst.train; expected the best.ckpt or last.ckpt of a run folder"
        )
    record = content["queryinst"]
    weights = {
        name.removeprefix(PREFIX): value for name, value in content["state_dict"].items() if name.startswith(PREFIX)
    }
    config: TrainConfig = restore(TrainConfig, record["config"])
    return Checkpoint(path, config, record["category_ids"], record["category_names"], weights)


def read(path: Path) -> Any:
    """The content of a file that torch wrote, tensors and plain values only. Raises UserError."""
    if not path.is_file():
        beside = sorted(str(p) for p in path.parent.glob("*.ckpt")) if path.parent.is_dir() else []
        raise UserError(
            f"{path} does not exist; expected a checkpoint there"
            + (f"; its folder has {', '.join(beside)}" if beside else "")
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for damaged and for unsafe files
        raise UserError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is damaged, or holds more than weights"
        ) from None


def start_from(model: QueryInst, path: str, names: Sequence[str]) -> str:
    """Load another run's weights for fine-tuning; with other classes (`names`), the class layers start fresh.

    Returns:
        what was loaded, in one sentence.

    Raises:
        UserError: the checkpoint has another architecture.
    """
    checkpoint = load(path)
    ours = model.state_dict()
    new = list(names) != checkpoint.category_names
    fresh = [
        name
        for name, value in checkpoint.weights.items()
        if name in ours and (value.shape != ours[name].shape or (new and any(part in name for part in CLASS_LAYERS)))
    ]
    missing = [name for name in ours if name not in checkpoint.weights]
    surplus = [name for name in checkpoint.weights if name not in ours]
    if missing or surplus or not all(any(part in name for part in CLASS_LAYERS) for name in fresh):
        theirs = checkpoint.config.model
        differing = (name for name in [*missing, *surplus, *fresh] if not any(part in name for part in CLASS_LAYERS))
        raise UserError(
            f"weights={path} has another architecture ({checkpoint.config.backbone.name}, {theirs.num_stages} stages, "
            f"{theirs.num_proposals} proposals, width {theirs.width}); the first parameter that differs is "
            f"{next(differing, '')}: set backbone and model to the same"
        )
    model.load_state_dict(
        {name: value for name, value in checkpoint.weights.items() if name not in fresh}, strict=False
    )
    kept = f"{len(checkpoint.weights) - len(fresh)} of {len(checkpoint.weights)} tensors from {path}"
    classes = f"{len(checkpoint.category_ids)} classes there, {model.num_classes} here"
    return kept + (f"; {len(fresh)} class layers start fresh ({classes})" if fresh else "")


def start_backbone(backbone: nn.Module, name: str, weights: str) -> str:
    """Load pretrained weights into a ResNet: torchvision's (`imagenet`, downloaded) or a file in its names.

    Returns:
        what was loaded, in one sentence.

    Raises:
        UserError: the download failed, or the file does not fit.
    """
    if not hasattr(backbone, "body"):
        raise UserError(
            f"backbone.weights={weights}: there are no pretrained weights for backbone.name={name}; leave it empty"
        )
    if weights == "imagenet":
        source = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        try:
            state = source.get_state_dict(progress=True)
        except OSError as error:
            raise UserError(
                f"the ImageNet weights of {name} cannot be downloaded ({error}): "
                f"fetch {source.url} elsewhere and set backbone.weights=FILE"
            ) from None
    else:
        state = read(Path(weights))
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    wanted = backbone.body.state_dict()  # type: ignore[union-attr]
    odd = sorted(
        {
            key
            for key in {*state, *wanted}
            if key not in state or key not in wanted or state[key].shape != wanted[key].shape
        }
    )
    odd = [key for key in odd if not key.endswith("num_batches_tracked")]
    if odd:
        raise UserError(
            f"backbone.weights={weights} is not a {name} of torchvision: {len(odd)} tensors differ, first {odd[0]}"
        )
    backbone.body.load_state_dict(state, strict=False)  # type: ignore[union-attr]
    return f"backbone: {len(state)} tensors from {weights}"
