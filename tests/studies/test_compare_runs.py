"""Which runs a command line means, and what is said of those that cannot be compared."""

import json
from pathlib import Path

import pytest
from made_runs import make_run, make_study, write_elastic, write_job

from queryinst.errors import UserError
from queryinst.studies.compare.runs import Run, find


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`outputs` with a study of two finished jobs, one that failed, and one that has not begun."""
    monkeypatch.chdir(tmp_path)
    output = Path("outputs")
    make_study(output, "stages", {1: 0.6, 3: 0.7}, seeds=[0])
    write_job(output / "studies" / "stages", 2, ["model.num_stages=6"], None, "failed")
    write_job(output / "studies" / "stages", 10, ["model.num_stages=9"], output / "shapes-nowhere", "planned")
    return output


def test_a_study_by_name_leaves_out_what_is_not_finished(output: Path):
    found = find(["stages"], output)
    assert [run.name for run in found.runs] == ["shapes-stages10", "shapes-stages30"]
    assert found.runs[1].overrides == ("model.num_stages=3", "seed=0")
    assert found.studies == ["stages"]
    assert len(found.left_out) == 2
    assert "model.num_stages=6" in found.left_out[0]
    assert "failed" in found.left_out[0]
    assert "planned" in found.left_out[1]


def test_a_study_that_was_moved(output: Path, tmp_path: Path):
    moved = (tmp_path / "elsewhere").absolute()
    output.rename(moved)
    assert [run.folder for run in find(["stages"], moved).runs] == [
        moved / "shapes-stages10",
        moved / "shapes-stages30",
    ]


def test_jobs_come_in_the_order_of_their_numbers(tmp_path: Path):
    for number in (10, 2, 0):
        folder = make_run(tmp_path / f"shapes-{number:08}", {"model.num_stages": 20 - number})
        write_job(tmp_path / "studies" / "s", number, [], folder)
    assert [run.name[-2:] for run in find(["s"], tmp_path).runs] == ["00", "02", "10"]


@pytest.mark.parametrize(
    "words",
    [
        ["outputs/shapes-stages10", "outputs/shapes-stages30"],
        ["outputs"],
        ["outputs/studies/stages"],
        ["outputs/shapes-stages10/result.json", "outputs/shapes-stages30/result.json"],
        ["stages", "outputs", "outputs/shapes-stages10"],
    ],
)
def test_every_way_to_name_runs_leads_to_each_once(output: Path, words: list[str]):
    assert [run.name for run in find(words, output).runs] == ["shapes-stages10", "shapes-stages30"]


def test_a_folder_names_what_is_not_finished_and_what_is_there_twice(output: Path):
    (output / "shapes-half").mkdir()
    (output / "shapes-half" / "config.yaml").touch()
    make_run(output / "shapes-twin", {"model.num_stages": 3})
    left_out = find(["outputs"], output).left_out
    assert any("shapes-half: not finished" in text for text in left_out)
    assert any("the same settings and seed as" in text for text in left_out)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stagess"], r"'stagess' is no study, no folder .*; the studies in outputs/studies are stages; did you mean"),
        (["empty"], "empty holds no run: wanted a run's folder with result.json"),
        (["outputs/shapes-stages10"], "compare needs two finished runs or more; .* only outputs/shapes-stages10"),
        (["half"], r"there is no finished run \(left out: half/a: not finished"),
    ],
)
def test_one_sentence_for_what_cannot_be_compared(output: Path, words: list[str], sentence: str):
    Path("empty").mkdir()
    Path("half/a").mkdir(parents=True)
    Path("half/a/config.yaml").touch()
    with pytest.raises(UserError, match=sentence):
        find(words, output)


def test_without_any_study(tmp_path: Path):
    with pytest.raises(UserError, match="there is no study in"):
        find(["stages"], tmp_path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"id": ', r"result\.json is damaged \(Expecting value"),
        ("[]", "no JSON object"),
        ('{"id": "a"}', "`identity` is missing"),
        ('{"id": 3}', "`id` is wrong"),
    ],
)
def test_a_damaged_result(output: Path, text: str, sentence: str):
    (output / "shapes-stages10" / "result.json").write_text(text)
    with pytest.raises(UserError, match=sentence):
        find(["stages"], output)


def test_what_lies_beside_the_result(output: Path):
    run = find(["stages"], output).runs[1]
    assert run.curve("val/segm_AP").keys() == set(range(10, 101, 10))
    assert run.curve("val/nothing") == {}
    assert len(run.stages("segm_AP")) == 3
    assert run.elastic() == []
    write_elastic(run.folder)
    assert len(run.elastic()) == 6
    (run.folder / "elastic.json").write_text(json.dumps({"rows": [{"stages": 1}]}))
    with pytest.raises(UserError, match=r"elastic\.json is damaged: its `rows` need stages, proposals"):
        run.elastic()
    (run.folder / "metrics.csv").write_text("step,val/segm_AP\n3,abc\n")
    with pytest.raises(UserError, match=r"metrics\.csv is damaged"):
        run.curve("val/segm_AP")
    older = make_run(Path("old") / "shapes-old", older=True)
    with_little = Run(older, json.loads((older / "result.json").read_text()))
    assert with_little.stages("segm_AP") == []
    assert with_little.curve("val/segm_AP") == {}
    assert with_little.seconds != with_little.seconds, "NaN"
