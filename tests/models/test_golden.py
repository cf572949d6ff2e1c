"""The network, its matching, its losses and its detections against stored outputs of MMDetection 3.3.0.

Tolerances are those at which the public implementations agree among themselves: features and logits 1e-4, boxes 1e-3
pixels, losses 1e-5 relative, matching exact, mask pixels but for one in ten thousand. Gradient norms are compared in
float64, because in float32 a ReLU near zero may open or close by rounding alone (1e-3 of a norm).
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from queryinst.config import BackboneConfig, CriterionConfig, ModelConfig, PostprocessConfig
from queryinst.criterion.criterion import Criterion
from queryinst.models.postprocess import detect
from queryinst.models.queryinst import QueryInst
from queryinst.ops.masks import paste
from queryinst.ops.roi import pyramid_level
from queryinst.structures import Output, Rows, Targets

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.append(str(GOLDEN))
from weights import fill, mmdet_name  # noqa: E402

CASES = ["tiny_b1", "tiny_b2pad", "tiny_b1_nogt"]
TERMS = ("cls", "bbox", "iou", "mask")


class Case:
    """One stored case, and our network with the same weights."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        self.stored: Any = np.load(GOLDEN / f"mmdet_{name}.npz")
        config = ModelConfig(num_proposals=10, num_stages=3, width=64, dynamic_width=16, ffn_width=128)
        self.model = QueryInst(config, BackboneConfig(name="resnet18"), num_classes=5)
        state = self.model.state_dict()
        self.model.load_state_dict(
            {key: torch.from_numpy(np.asarray(fill(mmdet_name(key), value.shape))) for key, value in state.items()}
        )
        self.model.to(dtype)
        self.images = torch.from_numpy(self["input/img"]).to(dtype)
        self.sizes = torch.from_numpy(self["input/img_shapes_hw"])
        self.original_sizes = torch.from_numpy(self["input/ori_shapes_hw"])

    def __getitem__(self, key: str) -> Any:
        return self.stored[key]

    def forward(self) -> Output:
        return self.model.refine(self.images, self.sizes)

    def targets(self) -> Targets:
        height, width = self.images.shape[-2:]
        counts = [len(self[f"gt{i}/boxes"]) for i in range(len(self.sizes))]

        def joined(name: str) -> np.ndarray:
            return np.concatenate([self[f"gt{i}/{name}"] for i in range(len(counts))])

        packed = [self[f"gt{i}/masks"] for i, count in enumerate(counts) if count]
        bits = np.unpackbits(np.concatenate(packed), axis=1) if packed else np.zeros((0, height * width), np.uint8)
        return Targets(
            boxes=torch.from_numpy(joined("boxes").reshape(-1, 4)),
            labels=torch.from_numpy(joined("labels")),
            masks=torch.from_numpy(bits[:, : height * width].reshape(-1, height, width)),
            mask_boxes=torch.tensor([[0.0, 0.0, width, height]]).repeat(sum(counts), 1),
            counts=counts,
        )


def close(ours: torch.Tensor, stored: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(ours.detach().numpy(), stored, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", CASES)
def test_forward(name: str):
    case = Case(name)
    case.model.eval()
    with torch.no_grad():
        output = case.forward()
    for level in (4, 5):
        close(output.pyramid.maps[level - 2], case[f"feat/p{level}"], 1e-4)
    for stage, ours in enumerate(output.stages):
        close(ours.logits, case[f"eval/s{stage}/cls_logits"], 1e-4)
        close(ours.boxes, case[f"eval/s{stage}/boxes"], 1e-3)
        close(ours.queries, case[f"eval/s{stage}/obj_feats"], 1e-4)
        close(ours.mask_queries, case[f"eval/s{stage}/attn_feats"], 1e-4)
        before = output.stages[stage - 1].boxes if stage else case.model.queries(case.sizes)[0].detach()
        assert (pyramid_level(before.flatten(0, 1)).numpy() == case[f"eval/s{stage}/roi_level"]).all()


@pytest.mark.parametrize("name", CASES)
def test_masks_of_every_class(name: str):
    case = Case(name)
    case.model.eval()
    stored = case["eval/s2/mask_logits_0"]
    index = torch.meshgrid(*(torch.arange(length) for length in stored.shape[:3]), indexing="ij")
    with torch.no_grad():
        masks = case.model.predict_masks(case.forward(), {2: Rows(*(axis.flatten() for axis in index))})[2]
    close(masks.view(stored.shape), stored, 1e-4)


@pytest.mark.parametrize("name", CASES)
def test_detections(name: str):
    case = Case(name)
    case.model.eval()
    with torch.no_grad():
        found = detect(case.model, case.forward(), case.sizes, case.original_sizes, PostprocessConfig())
    for image, ours in enumerate(found):
        stored = {key: case[f"det{image}/{key}"] for key in ("boxes", "scores", "labels", "masks", "masks_shape")}
        order = np.argsort(-stored["scores"], kind="stable")
        close(ours.scores, stored["scores"][order], 1e-5)
        close(ours.boxes, stored["boxes"][order], 1e-3)
        assert (ours.labels.numpy() == stored["labels"][order]).all()
        _, height, width = stored["masks_shape"]
        expected = np.unpackbits(stored["masks"], axis=1)[:, : height * width].reshape(-1, height, width)[order]
        pasted = [
            paste(mask, box, ours.size).paste_into(np.zeros(ours.size, np.uint8))
            for mask, box in zip(ours.masks.numpy(), ours.boxes.numpy(), strict=True)
        ]
        assert (np.stack(pasted) != expected).sum() <= expected.size / 10_000


@pytest.mark.parametrize("name", ["tiny_b1", "tiny_b2pad"])
def test_matching_and_losses(name: str):
    case = Case(name)
    targets, criterion = case.targets(), Criterion(CriterionConfig(mask_samples=0))
    output = case.forward()
    matches = criterion.match(output.stages, targets, case.sizes)
    first = np.cumsum([0, *targets.counts])
    for stage in range(3):
        for image in range(len(targets.counts)):
            ours = np.zeros(10, np.int64)
            of_image = matches.image == image
            ours[matches.query[stage][of_image]] = matches.target[stage][of_image] - first[image] + 1
            assert (ours == case[f"train/s{stage}/img{image}/gt_inds"]).all()
    masks = case.model.predict_masks(output, dict(enumerate(matches.rows(targets.labels))))
    for stage in range(3):
        close(masks[stage], case[f"train/s{stage}/mask_logits_gtcls"], 1e-4)
    losses = criterion(output.stages, list(masks.values()), matches, targets, case.sizes)
    stored = np.array([[case[f"loss/s{stage}.loss_{term}"] for term in TERMS] for stage in range(3)])
    np.testing.assert_allclose(losses.detach().numpy(), stored, rtol=1e-5)


def test_losses_without_ground_truth():
    """Only the focal term acts; the total is the authors' (MMDetection forgets to clamp its divisor there)."""
    case = Case("tiny_b1_nogt")
    targets, criterion = case.targets(), Criterion(CriterionConfig())
    output = case.forward()
    matches = criterion.match(output.stages, targets, case.sizes)
    masks = case.model.predict_masks(output, dict(enumerate(matches.rows(targets.labels))))
    losses = criterion(output.stages, list(masks.values()), matches, targets, case.sizes)
    assert not losses[:, 1:].any()
    assert losses.sum().item() == pytest.approx(34.386, abs=1e-3)
    losses.sum().backward()
    assert all(parameter.grad is not None for parameter in case.model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", ["tiny_b1", "tiny_b2pad"])
def test_gradients(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the places that insist on full precision
    case = Case(name, torch.float64)
    targets, criterion = case.targets(), Criterion(CriterionConfig(mask_samples=0))
    output = case.forward()
    matches = criterion.match(output.stages, targets, case.sizes)
    masks = case.model.predict_masks(output, dict(enumerate(matches.rows(targets.labels))))
    criterion(output.stages, list(masks.values()), matches, targets, case.sizes).sum().backward()
    stored = dict(zip(case["grad/names"], case["grad/norms"], strict=True))
    trainable = dict(zip(case["grad/names"], case["grad/requires_grad"], strict=True))
    for key, parameter in case.model.named_parameters():
        name_there = mmdet_name(key)
        assert parameter.requires_grad == trainable[name_there], key
        if parameter.requires_grad:
            tolerance = 2e-3 if ".mask." in key else 1e-4
            assert parameter.grad is not None
            assert parameter.grad.norm().item() == pytest.approx(stored[name_there], rel=tolerance), key
