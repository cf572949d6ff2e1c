"""The association loss: which of the other frame's instances is this one, or is it new? (reference, 6.2)"""

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA, GAMMA = 0.25, 2.0  # of the contrastive focal loss (QueryTrack, equations 5 to 7)


def association(embeddings: Tensor, image: Tensor, tracks: Tensor, kind: str) -> Tensor:
    """(S,) sums over the matched queries of all images, which are pairs of frames: 2i and 2i + 1 belong together.

    The logits of a query are 0 for "new" and its dot product with each matched query of the other frame. Its target is
    the one of the same track, or "new" where the other frame has none. Each frame is the other's reference, so that
    gradients flow into both sides. Unmatched queries take no part.

    Args:
        embeddings: (S, M, E) of the matched queries.
        image: (M,) the image of each.
        tracks: (S, M) the track of the object that each is matched with.
        kind: "contrastive_focal", -alpha (1 - p)^gamma log p of the softmax, or "cross_entropy".
    """
    other = image[:, None] == (image ^ 1)  # (M, M): columns are the references
    same = other & (tracks[:, :, None] == tracks[:, None])
    with torch.autocast(embeddings.device.type, enabled=False):  # exponentials of dot products: float32
        wide = embeddings.float()
        alike = wide @ wide.mT
    wanted = (alike * same).sum(-1)
    total = F.pad(alike.masked_fill(~other, -torch.inf), (1, 0)).logsumexp(-1)  # with the 0 of "new"
    log_p = wanted - total
    if kind == "cross_entropy":
        return -log_p.sum(1)
    return -(ALPHA * (1 - log_p.exp()).pow(GAMMA) * log_p).sum(1)
