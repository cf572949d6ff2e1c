"""The layers of a backbone, from the front: which learn more slowly, and what of them no weight decay may touch."""

from collections.abc import Collection

from torch import nn

from queryinst.errors import UserError
from queryinst.models.library_backbones import LibraryBackbone


def layers_of(backbone: nn.Module) -> dict[str, int]:
    """The number of the layer, by names of parameters: of a library's network as it counts them, else of its parts.

    Parameters that come after all layers, such as the norms of a Swin's maps, are left out.

    Raises:
        UserError: a backbone of the user's own does not give its parts.
    """
    if isinstance(backbone, LibraryBackbone):
        return {f"body.{name}": number for name, number in (backbone.layer_of or backbone.stage_of).items()}
    parts = getattr(backbone, "parts", None)
    if not callable(parts):
        raise UserError(
            f"optimizer.layer_decay needs the layers of the backbone, and {type(backbone).__name__} has no method "
            "`parts()` that gives its stem and stages, front to back (queryinst.models.backbone.Backbone); leave it 1"
        )
    numbers = {id(parameter): number for number, part in enumerate(parts()) for parameter in part.parameters()}
    return {name: numbers[id(p)] for name, p in backbone.named_parameters() if id(p) in numbers}


def never_decayed(backbone: nn.Module) -> Collection[str]:
    """Patterns of the names of parameters that timm wants no weight decay for: positions and tokens, say."""
    told = getattr(getattr(backbone, "body", None), "no_weight_decay", None)
    return [f"body.{pattern}" for pattern in told()] if isinstance(backbone, LibraryBackbone) and callable(told) else []
