"""Which queries find something, how often and where: the proposal-use map."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from queryinst.lightning.loggers import send_picture
from queryinst.lightning.module import QueryInstModule
from queryinst.ops import ranks
from queryinst.structures import Batch
from queryinst.visualize import draw
from queryinst.visualize.figures import query_map


class QueryUse(pl.Callback):
    """Logs `val/queries_used`, the share of queries that give a detection in any validation image, and a map of all.

    A query is used in an image where the best of its class scores at the last stage reaches `score`.

    Args:
        number: of queries.
        score: lowest score that counts.
        folder: of the run, for `pictures/queries_NNN.png`; None: no picture, to no logger either.
    """

    def __init__(self, number: int, score: float, folder: Path | None) -> None:
        self.number, self.score, self.folder = number, score, folder
        self.sums = torch.zeros(number, 4)  # images where used; sums over them of centre x, centre y, size
        self.images = 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.sums, self.images = torch.zeros(self.number, 4, device=pl_module.device), 0

    def on_validation_batch_end(  # type: ignore[override]  # it looks at the stages
        self,
        trainer: pl.Trainer,
        pl_module: QueryInstModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        last = pl_module.stages[-1]
        used = last.logits.float().sigmoid().amax(-1) >= self.score
        boxes = last.boxes.float() / batch.sizes.flip(1).repeat(1, 2)[:, None]  # as parts of the image
        centre, side = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
        seen = torch.cat([torch.ones_like(centre[..., :1]), centre, side.prod(-1, keepdim=True).sqrt()], -1)
        self.sums += (seen * used[..., None]).sum(0)
        self.images += len(batch.image_ids)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        sums = ranks.mean(self.sums).cpu() * ranks.count()
        images = float(ranks.mean(torch.tensor(float(self.images), device=pl_module.device)) * ranks.count())
        uses = sums[:, 0]
        pl_module.log("val/queries_used", (uses > 0).float().mean())
        if self.folder and trainer.is_global_zero:
            means = sums[:, 1:] / uses.clamp(min=1)[:, None]
            picture = query_map((uses / max(images, 1)).numpy(), means[:, :2].numpy(), means[:, 2].numpy(), self.score)
            draw.write(picture, self.folder / "pictures" / f"queries_{trainer.current_epoch + 1:03d}.png")
            send_picture(trainer.loggers, "val/queries", picture, trainer.global_step - 1)
