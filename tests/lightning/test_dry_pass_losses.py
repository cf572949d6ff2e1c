"""One pass through losses, costs, steps and metrics that are not ours: what breaks a contract is one sentence."""

import pytest
from conftest import Write
from good_parts import CONTENT, said, with_part

from queryinst.criterion.criterion import Criterion
from queryinst.lightning.dry_pass import dry_pass
from queryinst.lightning.own import OwnMetrics
from queryinst.models.queryinst import QueryInst

SUM = "((logits - wanted) ** 2).sum((1, 2, 3))"
LOSSES = {
    "one number": ("(logits - wanted).sum()", "must give a sum a stage (2,); got ()"),
    "a number of Python": ("1.0", "must give a sum a stage (2,); got float"),
    "nan without pairs": (
        f"{SUM} * wanted.sum() / wanted.sum()",
        "must give finite a sum a stage; got torch.float32, NaN or infinite values among them",
    ),
    "detached": (
        f"{SUM}.detach()",
        "gives a sum a stage without a gradient: look for detach(), no_grad() or NumPy in it",
    ),
}


@pytest.mark.parametrize("fault", LOSSES)
def test_a_classification_loss_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = LOSSES[fault]
    where = "criterion.classification.name=my_loss:Loss"
    assert said(write, "loss", (SUM, change)) == f"{where} {sentence} (queryinst/parts.py: ClassificationLoss)"


STACK = "return torch.stack(sums)"
TERMS = {
    "one number": ("return sum(sums)", "must give a sum a stage, of 2 pairs, (2,); got ()"),
    "a list": ("return sums", "must give a sum a stage, of 2 pairs, (2,); got list"),
    "nan without pairs": (
        "return torch.stack(sums) / len(matches.image)",
        "must give finite a sum a stage, of 0 pairs,; got torch.float32, NaN or infinite values among them",
    ),
    "detached": (
        "return torch.stack(sums).detach()",
        "gives a sum a stage, of 2 pairs, without a gradient: look for detach(), no_grad() or NumPy in it",
    ),
    "whole numbers": (
        "return torch.stack(sums).long()",
        "must give finite a sum a stage, of 2 pairs,; got torch.int64, NaN or infinite values among them",
    ),
}


@pytest.mark.parametrize("fault", TERMS)
def test_a_loss_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = TERMS[fault]
    where = "criterion.terms.mine.name=my_term:Term"
    assert said(write, "term", (STACK, change)) == f"{where} {sentence} (queryinst/parts.py: LossTerm)"


def test_a_loss_that_cannot_do_without_pairs(write: Write):
    found = said(write, "term", (STACK, "return torch.stack(sums) * matches.image.max()"))
    assert found.startswith("criterion.terms.mine.name=my_term:Term fails on a made-up input: RuntimeError: max()")


def test_a_cost_of_another_shape(write: Write):
    found = said(write, "cost", ("/ wide", "/ wide + wanted.sum(-1)[None, :, :, None, None]"))
    assert found == (
        "criterion.costs.mine.name=my_cost:Cost must give costs (2, 2, 3, 2); got (1, 2, 2, 3, 2) "
        "(queryinst/parts.py: MatchingCost)"
    )


def test_a_cost_that_is_not_finite(write: Write):
    found = said(write, "cost", ("/ wide", "/ (wide - wide)"))
    assert found.endswith(
        "must give finite costs; got torch.float32, NaN or infinite values among them "
        "(queryinst/parts.py: MatchingCost)"
    )


ROLL = "np.roll(image, shift, 1), instances.take(np.arange(len(instances)))"
STEPS = {
    "of its own randomness": (
        "np.roll(image, np.random.randint(90), 1), instances",
        "augmentation.steps.mine.name=my_step:Step gives another result with the same randomness: it must come from "
        "`rng` alone (queryinst/parts.py: AugmentationStep)",
    ),
    "type": (
        "image / 255, instances",
        "augmentation.steps.mine must give an image (H, W, 3) of uint8 and Instances; got float64 (64, 96, 3) and "
        "Instances (queryinst/parts.py: AugmentationStep)",
    ),
    "order": (
        "image.transpose(2, 0, 1), instances",
        "augmentation.steps.mine must give an image (H, W, 3) of uint8 and Instances; got uint8 (3, 64, 96) and "
        "Instances (queryinst/parts.py: AugmentationStep)",
    ),
    "image alone": ("image, None", "augmentation.steps.mine must give an image (H, W, 3) of uint8 and Instances; got"),
    "nothing": ("None", "augmentation.steps.mine fails: TypeError: cannot unpack non-iterable NoneType object ("),
    "no pixels": (
        "image[:0], instances",
        "augmentation.steps.mine.name=my_step:Step gives an image (0, 96, 3) and objects with (1, 1, 1) boxes, labels, "
        "outlines (queryinst/parts.py: AugmentationStep)",
    ),
    "labels left out": (
        "image, __import__('dataclasses').replace(instances, labels=instances.labels[:0])",
        "augmentation.steps.mine.name=my_step:Step gives an image (64, 96, 3) and objects with (1, 0, 1) boxes, "
        "labels, outlines (queryinst/parts.py: AugmentationStep)",
    ),
}


@pytest.mark.parametrize("fault", STEPS)
def test_a_step_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = STEPS[fault]
    found = said(write, "step", (ROLL, change))
    assert found == sentence or (sentence.endswith(("got", "(")) and found.startswith(sentence))


METRICS = {
    "no numbers": (
        ('{"found": self.found}', '{"found": "many"}'),
        "metrics.mine: compute() must give numbers by their names; got {'found': 'many'} (queryinst/parts.py: Metric)",
    ),
    "one number": (
        ('{"found": self.found}', "self.found"),
        "metrics.mine: compute() must give numbers by their names; got 1 (queryinst/parts.py: Metric)",
    ),
    "fails": (('{"found": self.found}', "{}[1]"), "metrics.mine fails: KeyError: 1 ("),
    "fails without detections": (
        ("len(one.scores) for one", "1 / len(one.scores) for one"),
        "metrics.mine fails: ZeroDivisionError: division by zero (",
    ),
    "no method": (("def update", "def updated"), "metrics.mine fails: AttributeError: "),
}


@pytest.mark.parametrize("fault", METRICS)
def test_a_metric_that_breaks_its_contract(write: Write, fault: str):
    change, sentence = METRICS[fault]
    assert said(write, "metric", change).startswith(sentence)


def test_metrics_are_as_after_a_reset(write: Write):
    config = with_part(write, "metric")
    model, metrics = QueryInst(config.model, config.backbone, 2), OwnMetrics(config.metrics, CONTENT)
    dry_pass(config, model, Criterion(config.criterion), metrics)
    assert metrics.compute() == {"mine/found": 0}
