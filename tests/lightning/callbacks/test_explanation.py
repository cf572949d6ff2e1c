"""When a zero AP is explained: not after the first epoch, then once, and at the end."""

from types import SimpleNamespace
from typing import Any

from conftest import small_model

from queryinst.config import PostprocessConfig
from queryinst.evaluation.coco import CocoEvaluator
from queryinst.lightning.callbacks.explanation import Explanation
from queryinst.lightning.module import QueryInstModule


def said(*evaluations: tuple[str, int, str], first: bool = True) -> list[str]:
    """What is said in a run of 5 epochs by evaluations of (function of the trainer, epoch, diagnosis)."""
    evaluator = CocoEvaluator({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]})
    module = QueryInstModule(small_model(), {-1: evaluator}, PostprocessConfig())
    out: list[str] = []
    explanation = Explanation(out.append)
    for function, epoch, diagnosis in evaluations:
        evaluator.diagnosis = diagnosis
        trainer: Any = SimpleNamespace(
            state=SimpleNamespace(fn=function), current_epoch=epoch, max_epochs=5, is_global_zero=first
        )
        explanation.on_validation_end(trainer, module)
    return out


def test_once_while_training_and_once_at_the_end():
    training = [("fit", epoch, f"epoch {epoch}") for epoch in range(5)]
    assert said(*training, ("validate", 5, "end")) == [
        "why AP is nearly 0: epoch 1",
        "why AP is nearly 0: end",
    ]


def test_nothing_where_nothing_is_wrong_or_another_process_says_it():
    assert said(("fit", 2, ""), ("validate", 5, "")) == []
    assert said(("fit", 2, "zero"), ("validate", 5, "zero"), first=False) == []
