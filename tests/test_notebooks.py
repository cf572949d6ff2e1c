"""The notebooks run from top to bottom, on data that they make, and show what they say; outputs stay out of git."""

import base64
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
from conftest import ROOT
from nbclient import NotebookClient
from PIL import Image

pytestmark = pytest.mark.usefixtures("forked")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
STUDIES = sorted(folder.parent.name for folder in (ROOT / "experiments").glob("*/runs"))
COARSE = {'"figure.dpi": 90': '"figure.dpi": 45'}  # figures of a quarter of the pixels
Execute = Callable[..., nbformat.NotebookNode]


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """Run a notebook, by name, in a working directory, with this source tree; a cell that raises is an error.

    `smaller` is what else it is to say than it does, so that less is made and learned.
    """
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))

    def run(name: str, folder: Path, smaller: dict[str, str] | None = None) -> nbformat.NotebookNode:
        folder.mkdir(exist_ok=True)
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        for words, other in (smaller or {}).items():
            (cell,) = (cell for cell in code(notebook) if words in cell.source)
            cell.source = cell.source.replace(words, other)
        place = {"metadata": {"path": str(folder)}}
        return NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()

    return run


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook: nbformat.NotebookNode) -> str:
    """Everything that was printed, which comes in pieces, or shown as Markdown."""
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return "".join(out.get("text") or out.get("data", {}).get("text/markdown", "") + "\n" for out in outputs)


def pictures(cell: nbformat.NotebookNode) -> list[np.ndarray]:
    found = [out.data["image/png"] for out in cell.outputs if "image/png" in out.get("data", {})]
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")) for png in found]


def check_drawn(notebook: nbformat.NotebookNode, wide: int = 200) -> None:
    """Every cell that makes a figure shows one, not empty; nobody was warned of anything."""
    assert "Warning" not in text(notebook)
    drawing = [cell for cell in code(notebook) if "plt.subplots" in cell.source]
    for cell in drawing:
        (picture,) = pictures(cell)
        assert picture.shape[1] >= wide
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50
    assert len(drawing) >= 5


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["augmentation", "studies", "tour", "video"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_not_in_git(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(notebook))
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert str(Path.home()) not in path.read_text()
    assert len(notebook.cells) <= 16


def test_tour_trains_a_little_where_nothing_is_trained(execute: Execute, tmp_path: Path):
    notebook = execute("tour", tmp_path, {"data.shapes.train=100": "data.shapes.train=16", **COARSE})
    check_drawn(notebook)
    (run,) = (tmp_path / "outputs").glob("*")
    assert (run / "result.json").exists()
    assert f"outputs/{run.name}/best.ckpt: 3 stages, 20 queries, 8 classes" in text(notebook)


def test_video_follows_a_query_where_nothing_is_trained(execute: Execute, tmp_path: Path):
    fewer = '"data=shapes_video_tiny", "data.video.shapes.train=2", "data.video.shapes.frames=8"'
    smaller = {'"data=shapes_video_tiny"': fewer, "schedule.epochs=3": "schedule.epochs=1"}
    notebook = execute("video", tmp_path, smaller | {"trainer.evaluate_every=3": "trainer.evaluate_every=1"})
    check_drawn(notebook)
    (run,) = (tmp_path / "outputs").glob("*")
    assert f"outputs/{run.name}/best.ckpt: 20 queries, 8 classes" in text(notebook)


def test_augmentation_keeps_box_and_mask_together(execute: Execute, tmp_path: Path):
    smaller = {"data.shapes.val=32": "data.shapes.val=17", "len(recipes), 6, figsize": "len(recipes), 2, figsize"}
    smaller |= {"range(200)": "range(80)", "subplots(3, 8, figsize": "subplots(2, 3, figsize", **COARSE}
    notebook = execute("augmentation", tmp_path / "notebooks", smaller)
    check_drawn(notebook)
    assert (tmp_path / "data").is_dir(), "from notebooks/ it works in the folder above"
    for recipe in ("single_scale", "ms", "ms_crop", "lsj"):
        found = re.search(rf"^{recipe} +(\d+) +(\d+) +(\S+) +(\S+) +(\S+) +(\d+)$", text(notebook), re.MULTILINE)
        assert found, recipe
        count, whole, _, off, out, gone = map(float, found.groups())
        assert count > 150
        assert (whole < count) == (recipe in ("ms_crop", "lsj")), "only crops cut objects"
        assert 0 < off < 3
        assert out < 3
        assert gone < 0.05 * count


def test_studies_shows_what_is_there(execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "tests" / "studies")
    from made_runs import make_run

    runs = tmp_path / "experiments" / "stages" / "runs"
    for stages, seed in ((1, 0), (1, 1), (3, 0), (3, 1)):
        make_run(runs / f"shapes-{stages}{seed}", {"model.num_stages": stages}, seed, 0.5 + 0.05 * stages)
    make_run(tmp_path / "experiments" / "schedule" / "runs" / "shapes-alone")
    notebook = execute("studies", tmp_path / "notebooks")
    said = text(notebook)
    assert "stages: 4 runs, 2 settings, against num_stages=1" in said
    assert re.search(r"schedule is left out: .* needs two finished runs", said)
    assert re.search(r"\| num_stages=3 \| 2 \| 0\.\d{3} ± 0\.\d{3} \|", said)
    assert re.search(r"\*\*num_stages=3\*\*: mask AP \+0\.\d{3} .*: better, beyond the noise\.", said)
    titles = re.findall(r"\*\*stages: (.+?)\.\*\*", said)
    assert titles == [
        "Mask AP against num_stages",
        "Learning curves",
        "Mask AP after each stage",
        "Mask AP of each class, against num_stages=1",
    ]
    drawn = [picture for cell in code(notebook) for picture in pictures(cell)]
    assert len(drawn) == 1 + len(titles), "the intervals, and a picture for each title"
    assert all(len(np.unique(picture.reshape(-1, 3), axis=0)) > 50 for picture in drawn)


def test_studies_says_that_there_is_none(execute: Execute, tmp_path: Path):
    notebook = execute("studies", tmp_path)
    assert (
        text(notebook).strip().startswith("There is no study in experiments/*/runs: wanted two finished runs or more")
    )
    assert text(notebook).strip().count("\n") == 0
    assert not any(pictures(cell) for cell in code(notebook))


@pytest.mark.skipif(not STUDIES, reason="no study is committed")
def test_studies_of_this_repository(execute: Execute):
    notebook = execute("studies", ROOT)
    for study in STUDIES:
        assert re.search(rf"^{study}: \d+ runs", text(notebook), re.MULTILINE), f"{study} is left out"
    assert any(pictures(cell) for cell in code(notebook))
