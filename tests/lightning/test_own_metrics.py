"""Metrics, callbacks and loggers of a user's own: made, called, named, and what is said where they fail."""

from typing import Any

import pytest
from conftest import Write

from queryinst.errors import UserError
from queryinst.lightning.own import OwnMetrics, instantiate

CONTENT = {"images": [{"id": 3}]}

PARTS = """
    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.loggers import CSVLogger

    class Count:
        def __init__(self, content, start=0, result=None):
            self.content, self.start, self.result = content, start, result
            self.number = "not reset"

        def reset(self):
            self.number = self.start

        def update(self, image_ids, found):
            self.number += len(image_ids) + len(found)

        def compute(self):
            if self.result is not None:
                return self.result
            return {"number": torch.tensor(self.number), "share": float("nan")}

    class Broken(Count):
        def update(self, image_ids, found):
            raise KeyError(3)

    class Call(pl.Callback):
        def __init__(self, every=1):
            self.every = every

    def logger(folder):
        return CSVLogger(folder)
"""


@pytest.fixture(autouse=True)
def _parts(write: Write) -> None:
    write("my_metrics.py", PARTS)


def node(name: str, **args: Any) -> dict[str, Any]:
    return {"name": f"my_metrics:{name}", "args": args}


def said(metrics: OwnMetrics) -> str:
    with pytest.raises(UserError) as caught:
        metrics.compute()
    return str(caught.value)


def test_each_has_its_own_name_data_and_settings():
    metrics = OwnMetrics({"a": node("Count"), "b": {"_target_": "my_metrics.Count", "start": 10}}, CONTENT)
    metrics.reset()
    assert metrics.update([3, 4], [object()]) is None
    found = metrics.compute()
    assert {name: value for name, value in found.items() if value == value} == {"a/number": 3.0, "b/number": 13.0}
    assert list(found) == ["a/number", "a/share", "b/number", "b/share"]
    assert type(found["a/number"]) is float
    assert metrics.metrics["a"].content is CONTENT
    metrics.reset()
    assert metrics.compute()["b/number"] == 10


def test_none_is_none():
    metrics = OwnMetrics({}, None)
    metrics.reset()
    assert metrics.update([1], []) is None
    assert metrics.compute() == {}


def test_what_fails_in_an_evaluation_is_kept_for_all_processes():
    metrics = OwnMetrics({"fine": node("Count"), "mine": node("Broken")}, CONTENT)
    metrics.reset()
    fault = metrics.update([3], [])
    assert isinstance(fault, UserError)
    assert str(fault).startswith("metrics.mine fails: KeyError: 3 (")
    assert str(fault).endswith("my_metrics.py, line 24)")


@pytest.mark.parametrize("result", [3, [1.0], {"a": "many"}, {"a": None}, {"a": [1.0]}], ids=str)
def test_what_is_no_number(result: Any):
    metrics = OwnMetrics({"mine": node("Count", result=result)}, CONTENT)
    metrics.reset()
    assert said(metrics) == (
        f"metrics.mine: compute() must give numbers by their names; got {result!r} (queryinst/parts.py: Metric)"
    )


@pytest.mark.parametrize("name", ["segm_AP", "segm_mine", "bbox_AR", "stage_3", "association_AP", "segm_"])
def test_names_of_our_metrics_are_taken(name: str):
    with pytest.raises(UserError) as caught:
        OwnMetrics({name: node("Count")}, CONTENT)
    assert str(caught.value) == (f"metrics.{name}: names like this one are those of our own metrics; choose another")


@pytest.mark.parametrize("name", ["segm", "stage_a", "mine_segm_AP", "counting"])
def test_other_names_are_free(name: str):
    assert list(OwnMetrics({name: node("Count")}, CONTENT).metrics) == [name]


def test_callbacks_and_loggers_are_lightnings(tmp_path: Any):
    made = instantiate({"a": node("Call", every=3), "b": {"_target_": "my_metrics.Call"}}, "callback")
    assert [(key, one.every) for key, one in made.items()] == [("callbacks.extra.a", 3), ("callbacks.extra.b", 1)]
    assert instantiate({"c": node("logger", folder=str(tmp_path))}, "logger")["logger.extra.c"].save_dir == str(
        tmp_path
    )
    assert instantiate({}, "logger") == {}


@pytest.mark.parametrize(("kind", "key"), [("callback", "callbacks"), ("logger", "logger")])
def test_what_is_no_callback_and_no_logger(kind: str, key: str):
    with pytest.raises(UserError) as caught:
        instantiate({"a": node("Count", content=1)}, kind)
    assert str(caught.value) == (f"{key}.extra.a.name=my_metrics:Count is no Lightning {kind.capitalize()}; got Count")
