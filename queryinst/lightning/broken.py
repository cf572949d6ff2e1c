"""Steps and detections whose numbers are broken: what is kept of them, and what is said."""

from pathlib import Path
from typing import Any

import torch

from queryinst.criterion.matcher import NonFiniteError
from queryinst.errors import UserError, fullness
from queryinst.structures import Batch, Detections


def keep(path: Path, batch: Batch, error: NonFiniteError, step: int, more: dict[str, Any]) -> str:
    """Write the batch of a step, and `more`, for whoever looks into it. Returns a sentence on what happened."""
    images = batch.image_ids if error.image is None else [batch.image_ids[error.image]]
    content = {
        "images": batch.images,
        "sizes": batch.sizes,
        "image_ids": batch.image_ids,
        "targets": vars(batch.targets),
    }
    kept = f"are kept in {path}"
    try:
        torch.save({**content, **more}, path)
    except (OSError, RuntimeError) as failed:  # a full disk shall not hide what happened
        path.unlink(missing_ok=True)
        kept = f"cannot be kept in {path} ({fullness(failed) or failed})"
    return (
        f"{error} at step {step} (image {', '.join(map(str, images))}); the batch and the weights "
        f"{kept}. Usually optimizer.lr is too high for the batch, or a ground-truth box is broken"
    )


def fault_of(found: list[Detections], image_ids: list[int], stage: int) -> UserError | None:
    """Why detections cannot be evaluated, if they cannot."""
    for image_id, detections in zip(image_ids, found, strict=True):
        for name in ("scores", "boxes", "masks", "embeddings"):
            values = getattr(detections, name)
            if values is not None and not values.isfinite().all():
                return UserError(
                    f"stage {stage} gives NaN or infinite {name} for image {image_id}: the weights are broken, or "
                    "trainer.precision is too low for them; go back to an earlier checkpoint"
                )
    return None
