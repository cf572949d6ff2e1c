"""A user's folder of parts, from nothing to a compared ablation: a copy elsewhere, with the package as installed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SMALLER

EXAMPLE = ROOT / "experiments" / "own_parts"
QUICK = ["schedule.epochs=1", "schedule.warmup_iterations=2", "callbacks.pictures=0", "logger=csv", *SMALLER]
MINE = ["--config-dir=conf", "+experiment=mine", *QUICK]
RUN = """
import sys
from queryinst.config import TrainConfig
from queryinst.studies.command import compose
from queryinst.studies.identity import identity, run_folder

config = compose("config", TrainConfig, sys.argv[1:])
print(run_folder(config, identity(config)).name)
"""
ALLOW = "allow=[my_backbone,my_mask_head,my_reader,my_metric]"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as a wheel puts it there: `conf` within it, and no checkout around it."""
    site = tmp_path_factory.mktemp("site")
    command = ["uv", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(ROOT)]
    if shutil.which("uv", path=str(Path(sys.executable).parent)) is None:
        command = ["pip", "install", "--quiet", "--no-deps", "--target", str(site), str(ROOT)]
    subprocess.run([sys.executable, "-m", *command], check=True)
    return site


class Place:
    """The user's folder, and commands that are run in it."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder, self.environment = folder, {**os.environ, "PYTHONPATH": str(site)}

    def run(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Place:
    made = Place(tmp_path_factory.mktemp("user") / "my parts", installed)
    shutil.copytree(EXAMPLE, made.folder)
    made.run("make_labelme.py", "16", "8")
    return made


@pytest.fixture(scope="module")
def study(place: Place) -> list[Path]:
    """The folders of the runs with my mask head and with ours, both with my loss."""
    place.run("-m", "queryinst.train", "-m", *MINE, "+study=mine", "criterion.terms.centre.weight=1")
    return sorted(path.parent for path in place.folder.glob("outputs/mine-*/result.json"))


def test_the_package_is_the_installed_one(place: Place, installed: Path):
    said = place.run("-c", "import queryinst, queryinst.studies.sources as s; print(queryinst.__file__, s.CONF)")
    assert said.split() == [str(installed / "queryinst" / "__init__.py"), str(installed / "queryinst" / "conf")]


def test_an_ablation_of_parts_is_trained(study: list[Path]):
    results = [json.loads((run / "result.json").read_text()) for run in study]
    heads = {result["config"]["model"]["mask_head"]["name"] for result in results}
    assert heads == {"my_mask_head:GatedMaskHead", "dynamic"}
    for run, result in zip(study, results, strict=True):
        assert result["identity"]["parts"].keys() >= {"backbone", "criterion.terms.centre", "data.reader"}
        assert 0 <= result["metrics"]["counting/error"] < 20
        columns = (run / "metrics.csv").read_text().splitlines()[0].split(",")
        assert {"train/stage_1/loss_centre", "val/counting/error"} <= set(columns)
        assert result["git"] is None  # of no repository that it lies in


def test_it_is_compared(place: Place, study: list[Path]):
    said = place.run("-m", "queryinst.compare", "mine-mine")
    assert re.search(r"mask_head.name=my_mask_head:GatedMaskHead", said)
    assert re.search(r"mask_head.name=dynamic", said)
    assert (place.folder / "outputs" / "compare" / "mine-mine" / "report.html").is_file()


def test_it_is_evaluated(place: Place, study: list[Path]):
    run = next(run for run in study if "GatedMaskHead" in (run / "config.yaml").read_text())
    checkpoint = f"checkpoint={run.relative_to(place.folder)}/best.ckpt"
    said = place.run("-m", "queryinst.evaluate", checkpoint, ALLOW)
    assert f"counting/error {json.loads((run / 'result.json').read_text())['metrics']['counting/error']:.4g}" in said


def test_a_changed_loss_is_another_run(place: Place, study: list[Path]):
    loss, of_run = place.folder / "my_loss.py", ("-c", RUN, *MINE)
    before = loss.read_text()
    assert place.run(*of_run).split()[-1] in {run.name for run in study}
    loss.write_text(before.replace("/ 2\n", "/ 4\n"))
    assert loss.read_text() != before
    changed = place.run(*of_run).split()[-1]
    loss.write_text(before)
    assert changed not in {run.name for run in study}
