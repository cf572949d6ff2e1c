"""Weights & Biases: the comparison as an offline run, read back; workspace and report as objects, never saved."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run
from made_runs import make_study

from queryinst.errors import UserError
from queryinst.studies.compare import upload
from queryinst.studies.compare.comparison import Comparison, compare
from queryinst.studies.compare.runs import find


@pytest.fixture
def comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    make_study(Path("outputs"), "stages", {1: 0.5, 2: 0.6}, seeds=[0, 1])
    return compare(find(["stages"], Path("outputs")), "stages", "python -m queryinst.compare stages", None, 100)


def test_an_offline_run_has_table_plots_and_statements(
    comparison: Comparison, run: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(upload, "_account", lambda: False)
    code, out = run("compare", "stages", "--resamples", "100", "--wandb", "--project", "mine", "--to", "to")
    assert code == 0, out
    assert "kept offline" in out
    (record,) = Path("to").glob("wandb/offline-run-*/run-*.wandb")
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(record)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    records = [json.loads(line) for line in text.splitlines()]
    of_run = next(record["run"] for record in records if "run" in record)
    assert of_run["job_type"] == "compare"
    assert of_run["run_group"] == "stages"
    assert of_run["project"] == "mine"
    for words in ("plots/segm_AP_against_num_stages", "plots/classes", "table", "segm_AP/num_stages=2", "statements"):
        assert words in text
    (table,) = record.parent.glob("files/media/table/table*.json")
    content = json.loads(table.read_text())
    assert content["columns"][:3] == ["group", "seeds", "segm_AP mean"]
    assert [row[:2] for row in content["data"]] == [["num_stages=1", 2], ["num_stages=2", 2]]
    assert content["data"][0][2] == pytest.approx(comparison.groups[0].mean("segm_AP"))
    assert len(list(record.parent.glob("files/media/images/plots/*.png"))) == 10


def test_the_workspace_shows_the_runs_of_the_study(comparison: Comparison):
    space = upload.workspace(comparison, "mine", "me")
    metrics = [panel.y for section in space.sections for panel in section.panels if hasattr(panel, "y")]
    assert metrics == [["val/segm_AP"], ["val/bbox_AP"], ["train/loss"]]
    assert space.sections[1].panels[0].metrics == ["val/segm_AP"]
    view = json.dumps(space._to_model().model_dump(by_alias=True, mode="json"))
    for run in (run for _, run in comparison.runs):
        assert run.result["id"] in view
    assert "model.num_stages.value" in view
    assert "trainer/global_step" in view


def test_the_report_says_shows_and_groups(comparison: Comparison, monkeypatch: pytest.MonkeyPatch):
    interface = "wandb_workspaces.reports.v2.interface"
    monkeypatch.setattr(f"{interface}._get_api", lambda: None)  # what a server would answer
    monkeypatch.setattr(f"{interface}.execute_graphql", lambda *_: {"project": {"internalId": "UHJvamVjdA=="}})
    page = upload.document(comparison, "mine", "me")
    assert page.title == "stages: what did it buy?"
    view = json.dumps(page._to_model().model_dump(by_alias=True, mode="json"))
    for words in ("Against num_stages=1", "num_stages=2: mask AP +", "| group | seeds |", "val/segm_AP", "Student"):
        assert words in view
    for run in (run for _, run in comparison.runs):
        assert run.result["id"] in view
    assert "model.num_stages.value" in view


def test_without_package_or_account_a_report_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upload, "_account", lambda: False)
    with pytest.raises(UserError, match="--report needs a W&B account, .*wandb login"):
        upload.require_report()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"--report needs the package wandb-workspaces: pip install 'queryinst\[report\]'"
    ):
        upload.require_report()
