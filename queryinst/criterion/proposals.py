"""What an image's own proposals learn from: each object is the matter of one place (Featurized Query R-CNN)."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from queryinst.criterion.losses import divisor
from queryinst.ops import boxes as box_ops
from queryinst.structures import Candidates, Targets

OVERLAP = 0.8  # exponent of the IoU in how well a place suits an object; that of its score is 1 less this
ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
CLASS_WEIGHT, GIOU_WEIGHT = 1.0, 2.0


@torch.no_grad()
def assign(candidates: Candidates, targets: Targets) -> Tensor:
    """(3, P) int64: the image, the place and the object of each pair, every place and every object once at most.

    The sum of score^0.2 IoU^0.8 is the largest (arXiv 2206.06258, section 3.2; DeFCN, arXiv 2012.03544). A place suits
    only objects in whose box it lies; an object between all places is left out.
    """
    pairs, start = [], 0
    for image, count in enumerate(targets.counts):
        wanted = targets.boxes[start : start + count]
        x, y = candidates.places[:, None].unbind(-1)
        within = (x > wanted[:, 0]) & (y > wanted[:, 1]) & (x < wanted[:, 2]) & (y < wanted[:, 3])
        overlap = box_ops.iou(candidates.boxes[image][:, None], wanted)
        suits = candidates.logits[image].sigmoid()[:, None] ** (1 - OVERLAP) * overlap**OVERLAP
        suits = torch.where(within & candidates.inside[image][:, None], suits, -1.0).nan_to_num(-1.0).cpu()
        place, target = map(torch.from_numpy, linear_sum_assignment(suits.numpy(), maximize=True))
        good = suits[place, target] >= 0
        pairs.append(torch.stack([torch.full_like(place, image), place, target + start])[:, good])
        start += count
    return torch.cat(pairs, dim=1).to(candidates.logits.device)


def losses(candidates: Candidates, pairs: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """The weighted losses of score and box, over the number of pairs as `losses.divisor` has it.

    Args:
        candidates: of the images.
        pairs: of `assign`.
        targets: ground truth of the batch.
    """
    image, place, target = pairs
    wanted = torch.zeros_like(candidates.logits)
    wanted[image, place] = 1.0
    scores = sigmoid_focal_loss(candidates.logits, wanted, ALPHA, GAMMA)
    class_loss = torch.where(candidates.inside, scores, 0.0).sum()
    giou_loss = (1 - box_ops.giou(candidates.boxes[image, place], targets.boxes[target])).sum()
    number = divisor(pairs.shape[1], pairs.device)
    return CLASS_WEIGHT * class_loss / number, GIOU_WEIGHT * giou_loss / number
