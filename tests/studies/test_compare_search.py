"""What `compare` says of a study that was a search."""

import json
from pathlib import Path
from typing import Any

import pytest
from made_runs import make_run, write_job

from queryinst.errors import UserError
from queryinst.studies.compare import search
from queryinst.studies.compare.comparison import compare
from queryinst.studies.compare.runs import find

PARAMS = {"optimizer.lr": 0.00012345678, "model.num_stages": "3"}


def content(direction: str = "maximize", **more: Any) -> dict[str, Any]:
    """Five trials: two trained to the end around a pruned one, one that failed, a better one."""
    ends: list[tuple[str, float | None, dict[str, float]]] = [
        ("complete", 0.5, {"1": 0.4, "2": 0.5}),
        ("pruned", None, {"1": 0.3, "2": 0.2, "10": 0.1}),
        ("complete", 0.4, {}),
        ("fail", None, {}),
        ("complete", 0.6, {}),
    ]
    trials = [
        {"number": number, "state": state, "value": value, "params": PARAMS, "run": f"run-{number}", "reports": reports}
        for number, (state, value, reports) in enumerate(ends)
    ]
    importance = {"optimizer.lr": 0.2, "model.num_stages": 0.8}
    return {"metric": "segm_AP", "direction": direction, "importance": importance, "trials": trials} | more


def write(study: Path, made: dict[str, Any]) -> None:
    (study / "search").mkdir(parents=True, exist_ok=True)
    (study / "search" / "trials.json").write_text(json.dumps(made))


@pytest.mark.parametrize(
    ("direction", "best"), [("maximize", [0.5, 0.5, 0.6]), ("minimize", [0.5, 0.4, 0.4])], ids=["most", "least"]
)
def test_the_best_so_far_is_of_trials_that_were_trained_to_the_end(tmp_path: Path, direction: str, best: list[float]):
    write(tmp_path, content(direction))
    found = search.read(tmp_path)
    assert found
    assert found.best == list(zip([0, 2, 4], best, strict=True))
    assert found.values == [(0, 0.5), (2, 0.4), (4, 0.6)]
    assert found.pruned == [(1, 0.1)]


def test_a_comparison_of_a_search_has_its_plots_and_its_warning(tmp_path: Path):
    study = tmp_path / "studies" / "mine"
    for seed, stages in ((0, 2), (1, 3)):
        folder = make_run(tmp_path / f"run-{seed}", {"model.num_stages": stages}, seed=0)
        write_job(study, seed, [f"model.num_stages={stages}"], folder)
    write(study, content())
    made = compare(find(["mine"], tmp_path), "mine", "command", None, 100)
    best, importance = made.plots[:2]
    assert (best.name, importance.name) == ("mine_best_so_far", "mine_importance")
    (axes,) = best.figure.axes
    assert [text.get_text() for text in best.figure.legends[0].texts] == ["best so far", "trained to the end", "pruned"]
    assert list(axes.lines[0].get_ydata()) == [0.5, 0.5, 0.6]
    assert [tuple(point) for point in axes.collections[1].get_offsets()] == [(1, 0.1)]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("trial", "segm_AP")
    (axes,) = importance.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["model.num_stages", "optimizer.lr"]
    assert [bar.get_width() for bar in axes.patches] == [0.8, 0.2]
    assert made.notes[0] == (
        "Search mine: 5 trials, 3 complete, 1 pruned, 1 fail. Best: trial 4, segm_AP 0.600, optimizer.lr=0.000123457 "
        "model.num_stages=3. It was chosen by the images it is judged on: other seeds and other images will give less."
    )


def test_a_search_in_which_nothing_ended_draws_nothing(tmp_path: Path):
    assert search.read(tmp_path) is None
    write(tmp_path, content(trials=[], importance={}))
    found = search.read(tmp_path)
    assert found
    assert list(search.draw(found)) == []
    assert search.note(found) == f"Search {tmp_path.name}: 0 trials."


@pytest.mark.parametrize("damage", [{"trials": [{}]}, {"trials": None}, {"importance": 3, "trials": [{"state": 1}]}])
def test_a_damaged_file_is_named(tmp_path: Path, damage: dict[str, Any]):
    write(tmp_path, content(**damage))
    with pytest.raises(UserError, match=r"search/trials.json is damaged .*: the command of the search writes it again"):
        search.read(tmp_path)
