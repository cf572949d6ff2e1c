"""A sweep is the command it was given: a program, settings and studies of the user's own, in any order of flags."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Run

from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.studies.command import compose
from queryinst.studies.identity import identity, run_folder
from queryinst.studies.sources import Sources

# In place of training it writes the result at once.
PROGRAM = """
import json
from queryinst.config import TrainConfig
from queryinst.studies.command import command
from queryinst.studies.identity import identity, run_folder

@command("config", TrainConfig, sweeps=True)
def main(config):
    print("this is my own program", config.weights)
    folder = run_folder(config, identity(config))
    folder.mkdir(parents=True)
    if config.seed != 13:
        (folder / "result.json").write_text(json.dumps({"metrics": {"segm_AP": config.optimizer.lr}, "minutes": 1}))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A folder of settings beside ours: an experiment, a study, a whole configuration."""
    folder = tmp_path / "own"
    for name, text in {
        "experiment/mine": "# @package _global_\noptimizer: {lr: 0.0123}\n",
        "study/mine": "# @package _global_\nhydra: {sweeper: {params: {seed: '4,5'}}}\n",
        "whole": "defaults: [config, _self_]\nseed: 7\n",
    }.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def begin(workplace: Path, *words: str) -> tuple[int, str]:
    """Call a program as a user would; the exit code, and what it said."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(workplace)])}
    done = subprocess.run([sys.executable, *words], cwd=workplace, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.usefixtures("forked")  # which begins all but the last itself
@pytest.mark.parametrize("called", [["my_train.py"], ["-m", "my_package.train"], ["bin/my-train"]], ids=" ".join)
def test_the_program_that_was_called_does_the_jobs_with_its_own_settings(workplace: Path, own: Path, called: list[str]):
    """Flags between overrides, a mode in place of -m, another working directory by Hydra."""
    (workplace / "my_train.py").write_text(PROGRAM)
    for name, text in (("my_package/train.py", PROGRAM), ("bin/my-train", "import my_train\nmy_train.main()\n")):
        (workplace / name).parent.mkdir()
        (workplace / name).write_text(text)
    (workplace / "start.ckpt").write_bytes(b"weights")
    before = ["data=shapes_tiny", "--config-dir", "own", "+experiment=mine", "hydra.mode=MULTIRUN", "+study=mine"]
    after = ["weights=start.ckpt", "hydra.job.chdir=true", "--config-name=whole", "++hydra.job.env_set.A=1"]
    code, said = begin(workplace, *called, *before, *after)
    assert code == 0, said
    assert "2 of 2 jobs finished; records and logs: outputs/studies/mine-mine" in said
    for seed in (4, 5):
        assert f"[seed={seed}] this is my own program start.ckpt" in said
    results = [json.loads(path.read_text()) for path in workplace.glob("outputs/shapes_tiny-*/result.json")]
    assert [result["metrics"] for result in results] == [{"segm_AP": 0.0123}] * 2
    assert len(list(workplace.glob("outputs/studies/mine-mine/shapes_tiny-*.log"))) == 2
    there = {path.name for path in workplace.iterdir()} - {"__pycache__"}
    assert there == {"bin", "data", "my_package", "my_train.py", "outputs", "own", "start.ckpt"}


@pytest.mark.usefixtures("forked")
def test_a_job_that_did_not_train_the_run_it_was_asked_for_is_told_as_such(workplace: Path):
    """Never as one that failed with exit code 0; nor is anything trained that was not asked for."""
    (workplace / "my_train.py").write_text(PROGRAM)
    code, said = begin(workplace, "my_train.py", "-m", "data=shapes_tiny", "seed=13")
    assert code == 1
    assert re.search(r"it ended without an error, but left no result.json in outputs/shapes_tiny-\w{8}\n", said)
    code, said = begin(workplace, "my_train.py", "-m", "data=shapes_tiny", "seed=1", "name='x${now:%f}'")
    assert code == 1
    assert re.search(r"job would be the run outputs/x\d+-\w{8}, but its sweep asked for outputs/x\d+-\w{8}: ", said)
    assert not list(workplace.glob("outputs/*/result.json"))
    code, said = begin(workplace, "my_train.py", "-m", "data=shapes_tiny", "seed=1", "name='x${seed}${hydra:job.num}'")
    assert code == 0, said
    assert re.search(r"finished .*\n\n1 of 1 jobs finished", said)
    assert len(list(workplace.glob("outputs/x10-*/result.json"))) == 1


@pytest.fixture(scope="module")
def planned(shapes_source: Path) -> set[str]:
    """The folders of the runs that `test_flags_in_any_order` asks for, from one command each."""
    names = set()
    for seed in (0, 1):
        words = [f"seed={seed}", "optimizer.lr=0.0123", "data=shapes_tiny", "optimizer=shapes"]
        config = compose("config", TrainConfig, [*words, f"data.root={shapes_source}"])
        names.add(run_folder(config, identity(config)).name)
    return names


@pytest.mark.parametrize(
    "words",
    [
        ["--config-dir=own", "-m", "+experiment=mine", "seed=0,1"],
        ["+experiment=mine", "--config-dir", "own", "seed=0,1", "--multirun"],
        ["seed=0,1", "-cd", "own", "+experiment=mine", "hydra.mode=MULTIRUN"],
        ["seed=0,1", "hydra.searchpath=[file://own]", "+experiment=mine", "-m"],
        ["-cn", "whole", "seed=0,1", "-cd=own", "-m", "+experiment=mine"],
    ],
)
def test_flags_in_any_order(run: Run, workplace: Path, own: Path, words: list[str], planned: set[str]):
    code, said = run("train", *words, "data=shapes_tiny", "dry_run=true")
    assert code == 0, said
    assert "2 of 2 jobs planned; records and logs: outputs/studies/mine-seed" in said
    assert set(re.findall(r"shapes_tiny-\w{8}", said)) == planned


@pytest.mark.parametrize("where", ["--config-dir=own", "hydra.searchpath=[file://own]", "hydra.searchpath=[own]"])
def test_what_is_the_users_own_is_named_like_ours(workplace: Path, own: Path, where: str):
    (own / "model").mkdir()
    (own / "model" / "large.yaml").write_text("num_proposal: 3\n")
    with pytest.raises(UserError, match=r"experiment has no option 'mime'; it has .*, mine, .*did you mean 'mine'"):
        compose("config", TrainConfig, [where, "+experiment=mime"])
    with pytest.raises(UserError, match="model takes one of large, queryinst, .*; got 'model=null'"):
        compose("config", TrainConfig, ["model=null", where])
    with pytest.raises(UserError, match=r"setting 'model.num_proposal' in .*own/model/large.yaml; did you mean"):
        compose("config", TrainConfig, ["model=large", where])
    assert compose("config", TrainConfig, [where, "+experiment=mine"]).optimizer.lr == 0.0123


def test_the_users_own_option_that_fills_what_is_empty_is_named(workplace: Path, own: Path):
    (own / "data").mkdir()
    (own / "data" / "clips.yaml").write_text("video: {reference_range: 3}\n")
    with pytest.raises(UserError, match=r"choose data=clips or data=shapes_video or"):
        compose("config", TrainConfig, ["--config-dir=own", "data.video.reference_range=3"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config-dir=nowhere"], r"--config-dir=.*/nowhere is no folder"),
        (["hydra.searchpath=[file://nowhere]"], "hydra.searchpath has 'file://nowhere', which is not there"),
        (
            ["--config-name=wole", "--config-dir=own"],
            "configuration 'wole'; --config-name takes one of config, .*whole",
        ),
        (["--confg=3"], "the command line cannot be read: unrecognized arguments: --confg=3"),
        (["--config-dir=own", "+experiment=1x_pro100"], "could be any of conf/experiment/1x_pro100.yaml, .*own/exper"),
    ],
)
def test_where_settings_come_from_is_checked(run: Run, workplace: Path, own: Path, words: list[str], sentence: str):
    (own / "experiment" / "1x_pro100.yaml").write_text("# @package _global_\nseed: 3\n")
    code, said = run("train", *words)
    assert code == 2
    assert re.fullmatch(f"error: .*{sentence}.*\n", said)


def test_the_words_of_a_command_line_are_taken_apart(workplace: Path, own: Path):
    sources = Sources(["a=1", "-cd", "own", "~b", "-m", "+c=[1,2]", "-cn=whole"])
    assert sources.overrides == ["a=1", "~b", "+c=[1,2]"]
    assert sources.flags == ["-cd", "own", "-m", "-cn=whole"]
    assert sources.lasting == ["--config-dir=own", "--config-name=whole"]
    assert sources.name == "whole"
    assert {"experiment", "study", "model"} < set(sources.groups())
    assert "hydra" not in sources.groups()
    assert "mine" in sources.options("study")
    assert Sources(["--config-path=own"]).groups() == ["experiment", "study"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seed=0,1,0"], "the sweep has seed=0 twice: give each value once"),
        (
            ["data.num_workers=0,2"],
            r"one run, outputs/shapes_tiny-\w{8}: 'data.num_workers=0' and 'data.num_workers=2' differ in "
            "data.num_workers only, which is no part of what a run is; leave one out",
        ),
        (["optimizer.lr=1,1.0"], "lr=1' and 'optimizer.lr=1.0' mean the same; leave one out"),
        (["seed=1", "weights=a.ckpt,b.ckpt"], "'weights=a.ckpt' and 'weights=b.ckpt' differ in weights only"),
        (["model.num_heads=5,5"], "the sweep has model.num_heads=5 twice"),
        (["optimizer.lr=interval(1e-5,1e-3)"], r"optimizer.lr=interval\(1e-5,1e-3\) is an interval, .* \+study=search"),
    ],
)
def test_jobs_that_cannot_all_be_run_are_refused_before_the_first(
    run: Run, workplace: Path, words: list[str], sentence: str
):
    for name in "ab":
        (workplace / f"{name}.ckpt").write_bytes(b"the same")
    code, said = run("train", "-m", "data=shapes_tiny", *words)
    assert code == 2
    assert re.search(sentence, said)
    assert said.count("\n") == 1
    assert not list(workplace.glob("outputs/*/*.json"))


def test_a_grid_takes_what_hydras_grid_takes(run: Run, workplace: Path):
    code, said = run("train", "-m", "data=glob(shapes*,exclude=[*video*,shapes])", "seed=range(0,3)", "dry_run=true")
    assert code == 0, said
    assert re.findall(r"data=(\w+) seed=(\d)", said) == [
        ("shapes_tiny", "0"),
        ("shapes_tiny", "1"),
        ("shapes_tiny", "2"),
    ]
    code, said = run("train", "-m", "data=shapes_tiny", "seed=choice(3,5)", "model=tiny", "dry_run=true")
    assert re.findall(r"^seed=(\d)", said, re.MULTILINE) == ["3", "5"]
