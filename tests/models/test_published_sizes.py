"""The published configurations: their parameter counts, and that they run at their real size."""

import resource
import sys

import pytest
import torch
from conftest import random_targets

from queryinst.config import BackboneConfig, ModelConfig, OptimizerConfig, TrainConfig
from queryinst.criterion.criterion import Criterion
from queryinst.criterion_config import CriterionConfig
from queryinst.lightning.optimizer import optimizer
from queryinst.models.queryinst import QueryInst
from queryinst.studies.command import compose

# Of the reference, but for Swin, whose reference gives none: torchvision's without classifier, with output norms.
COUNTS = {
    "1x_pro100": 172_688_808,
    "ms_3x_pro100": 172_688_808,
    "ms_crop_3x_pro300": 172_740_808,
    "r101_ms_3x_pro100": 191_680_936,
    "r101_ms_crop_3x_pro300": 191_732_936,
    "swin_t_ms_crop_3x_pro100": 176_087_074,
    "swin_l_ms_crop_50e_pro300": 343_985_180,
}


@pytest.mark.parametrize("experiment", COUNTS)
def test_parameters(experiment: str):
    config = compose(
        "config",
        TrainConfig,
        [f"+experiment={experiment}", "model.initialisation=mmdetection", "backbone.weights=null"],
    )
    with torch.device("meta"):
        model = QueryInst(config.model, config.backbone, num_classes=80)
    assert sum(parameter.numel() for parameter in model.parameters()) == COUNTS[experiment]


@pytest.mark.parametrize(("profile", "norms_train"), [("paddle", False), ("mmdet", True), ("authors", True)])
def test_what_is_frozen(profile: str, norms_train: bool):
    """Stem and first stage in every profile; BatchNorm keeps its statistics, and scale and shift in Paddle's too."""
    overrides = ["+experiment=1x_pro100", f"profile={profile}", "model.num_stages=1", "model.ffn_width=8"]
    config = compose("config", TrainConfig, [*overrides, "model.dynamic_width=2"])
    model = QueryInst(config.model, config.backbone, num_classes=3).train()
    body = model.backbone.body
    assert not any(
        parameter.requires_grad for part in (body.conv1, body.bn1, body.layer1) for parameter in part.parameters()
    )
    assert body.layer2[0].conv1.weight.requires_grad
    assert body.layer4[2].bn3.weight.requires_grad == body.layer4[2].bn3.bias.requires_grad == norms_train
    assert not any(module.training for module in body.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert model.stages[0].mask.convs[0].bn.training


@pytest.mark.slow
def test_resnet50_with_300_proposals_trains_at_full_size():
    """One image of 800x1216 with 10 objects; prints the peak memory of this process (pytest -s)."""
    torch.set_num_threads(2)
    model = QueryInst(ModelConfig(num_proposals=300), BackboneConfig(), num_classes=80)
    adamw, criterion = optimizer(model, OptimizerConfig(), batch_size=16), Criterion(CriterionConfig())
    sizes, targets = torch.tensor([[800, 1216]]), random_targets([10], 800, 1216, num_classes=80)
    images = torch.randint(0, 256, (1, 3, 800, 1216), dtype=torch.uint8)
    with torch.inference_mode():
        output = model.eval()(images, sizes)
        assert output.stages[-1].boxes.shape == (1, 300, 4)
    model.train()
    output = model(images, sizes)
    matches = criterion.match(output.stages, targets, sizes)
    masks = model.predict_masks(output, dict(enumerate(matches.rows(targets.labels))))
    loss = criterion(output.stages, list(masks.values()), matches, targets, sizes).sum()
    loss.backward()
    adamw.step()
    assert loss.isfinite()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(f"\npeak memory of forward, backward and the optimizer's step: {peak / 2**30:.2f} GiB")
    assert peak < 16 * 2**30
