"""How good is this mask? A guess at its IoU with the object, by which scores are multiplied at test."""

import torch
from torch import Tensor, nn


class MaskQuality(nn.Module):
    """From the features that a mask was drawn from, inside of it and everywhere, and how sure it is, to its IoU.

    Mask Scoring R-CNN (arXiv 1903.00241), whose head is four convolutions and three linear layers on region and mask;
    here the mask's own features are averaged, and two linear layers read them. As there, masks do not learn from it.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2 * width + 1, width)
        self.fc2 = nn.Linear(width, 1)

    def forward(self, features: Tensor, logits: Tensor, which: Tensor | None = None) -> Tensor:
        """Features (n, d, s, s) and masks (m, s, s) to logits (m,) of their IoU.

        Args:
            which: (m,) the features that each mask was drawn from; by default mask i is from features i.
        """
        inside = logits.detach().float().sigmoid()
        share = inside / inside.sum((1, 2), keepdim=True).clamp(min=1e-6)
        sure = (share * inside).sum((1, 2))  # mean probability, each pixel by how much it is inside
        own = features if which is None else features[which]
        within = torch.einsum("mdyx,myx->md", own, share.to(own.dtype))
        read = torch.cat([within, own.mean((2, 3)), sure[:, None].to(own.dtype)], dim=1)
        return self.fc2(torch.relu(self.fc1(read)))[:, 0]
