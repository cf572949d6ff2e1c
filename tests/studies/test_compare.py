"""`python -m queryinst.compare` as a user meets it: files, words, and a page that a browser shows."""

import csv
import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import TINY, Run
from made_runs import make_run, make_study, write_elastic, write_job
from PIL import Image

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "<script>document.title='broken'</script>"
PROBE = """<script>
window.onerror = (text) => document.body.setAttribute("data-error", text);
</script>"""
CLICKS = """<script>
const cells = (id, column) => [...document.getElementById(id).tBodies[0].rows].map((r) => r.cells[column].textContent);
const click = (id, column) => document.getElementById(id).tHead.rows[0].cells[column].querySelector("button").click();
const seen = [];
for (const column of [2, 2, 0, 0]) { click("results", column); seen.push(cells("results", 0).join(";")); }
click("runs", 1); seen.push(cells("runs", 1).join(""));
document.body.setAttribute("data-seen", seen.join("|"));
document.body.setAttribute("data-drawn", [...document.querySelectorAll("figure svg")]
  .filter((drawing) => drawing.getBoundingClientRect().height > 100).length);
document.body.setAttribute("data-wide", document.documentElement.scrollWidth - window.innerWidth);
</script>"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_browser(page: Path, folder: Path) -> str:
    """The page after its scripts have run, with what a click on headings did in attributes of its body."""
    text = page.read_text()
    probed = folder / "probed.html"
    probed.write_text(text.replace("<head>", f"<head>{PROBE}").replace("</body>", f"{CLICKS}</body>"))
    words = ("headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking", "dump-dom")
    command = [str(BROWSER), *(f"--{word}" for word in words), f"--user-data-dir={folder / 'profile'}", probed.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def attribute(dom: str, name: str) -> str:
    found = re.search(rf'<body[^>]*\b{name}="([^"]*)"', dom)
    assert found, f"{name} is not in the page"
    return html.unescape(found.group(1))


def test_a_study_becomes_table_plots_and_page(place: Path, run: Run):
    make_study(Path("outputs"), "stages", {1: 0.5, 2: 0.6, 6: 0.7})
    write_elastic(Path("outputs/shapes-stages60"))
    code, out = run("compare", "stages", "--resamples", "200")
    assert code == 0, out
    folder = Path("outputs/compare/stages")
    assert {path.stem for path in folder.glob("*.png")} == {
        *(f"{kind}_AP_against_{x}" for kind in ("segm", "bbox") for x in ("num_stages", "GFLOPs", "ms_per_image")),
        *("segm_AP_by_stage", "bbox_AP_by_stage", "learning_curves", "classes"),
    }
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 500
    with (folder / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["num_stages"] for row in rows] == ["1", "2", "6"]
    assert {row["seeds"] for row in rows} == {"3"}
    assert float(rows[2]["segm_AP_mean"]) > float(rows[0]["segm_AP_mean"])
    assert float(rows[0]["segm_AP_sd"]) > 0
    assert rows[0]["gflops_mean"] == "6"
    assert "segm_APl_mean" not in rows[0], "nobody has a number there"
    lines = (folder / "table.md").read_text().splitlines()
    assert lines[0].startswith("| group | seeds | mask AP |")
    assert len({line.count("|") for line in lines}) == 1
    assert re.search(r"num_stages=6 +3 +0\.\d{3} ± 0\.\d{3}", out)
    assert "Against num_stages=1:" in out
    assert re.search(r"num_stages=6: mask AP \+0\.\d{3} .*: better, beyond the noise\.", out)
    page = (folder / "report.html").read_text()
    assert page.count("<figure") == 10
    assert "python -m queryinst.compare stages --resamples 200" in page
    assert "run with fewer stages or proposals" in page
    assert not re.search(r'(src|href)="(https?:)?//', page), "nothing from a network"


def test_an_older_study_with_one_seed_says_what_is_missing(place: Path, run: Run):
    make_study(Path("outputs"), "old", {1: 0.5, 2: 0.6}, seeds=[0], older=True)
    write_job(Path("outputs/studies/old"), 2, ["model.num_stages=9"], None, "failed")
    code, out = run("compare", "old", "--to", "there")
    assert code == 0, out
    for words in ("No matches.npz in any run", "No `stages`", "No `seconds_per_image`", "No metrics.csv"):
        assert words in out
    assert "one seed, cannot be told" in out
    assert "Left out" in out
    assert {path.stem for path in Path("there").glob("*.png")} == {
        *(f"{kind}_AP_against_{x}" for kind in ("segm", "bbox") for x in ("num_stages", "GFLOPs")),
        "classes",
    }


def test_only_seeds_and_a_text_setting_leave_out_the_plots_that_make_no_sense(place: Path, run: Run):
    for seed in (0, 1):
        make_run(place / "seeds" / f"a-{seed}", seed=seed)
    code, out = run("compare", "seeds", "--to", "one")
    assert code == 0, out
    assert "there is nothing to hold them against" in out
    assert {path.stem for path in Path("one").glob("*.png")} == {
        "learning_curves",
        "segm_AP_by_stage",
        "bbox_AP_by_stage",
    }
    make_run(place / "seeds" / "b", {"model.proposal_init": "grid"}, quality=0.8)
    code, out = run("compare", "seeds", "--to", "one", "--baseline", "proposal_init=image", "--resamples", "100")
    assert code == 0, out
    assert "proposal_init=grid: mask AP +" in out
    assert {path.stem for path in Path("one").glob("*.png")} == {
        "learning_curves",
        "segm_AP_by_stage",
        "bbox_AP_by_stage",
        "segm_AP_against_ms_per_image",
        "bbox_AP_against_ms_per_image",
        "classes",
    }


def test_brackets_in_settings_and_folders_are_told(place: Path, run: Run):
    make_run(place / "r" / "a")
    make_run(place / "r" / "b", {"model.proposal_init": "[image,grid]"})
    code, out = run("compare", "r", "--resamples", "100", "--to", "to[folder]")
    assert code == 0, out
    assert out.count("proposal_init=[image,grid]") == 2, "in the table, and in what is said of it"
    assert "written: to[folder]/report.html" in out


def test_what_makes_numbers_doubtful_is_said(place: Path, run: Run):
    git = {"revision": "f" * 40, "dirty": True}
    hardware = {"system": "Linux", "processor": "other", "threads": 8, "gpus": ["A100"]}
    make_run(place / "r" / "a")
    make_run(place / "r" / "b", {"data.val": "other"}, git=git, hardware=hardware, versions={"torch": "3.0"})
    make_run(place / "r" / "c", {"data.val": "third"}, git=None, hardware={}, versions={})
    code, out = run("compare", "r", "--resamples", "100")
    assert code == 0, out
    for words in (
        "different validation images",
        "different revisions",
        "not committed in 1 of 3 runs (b)",
        "different versions",
        "different hardware",
    ):
        assert words in out
    page = Path("outputs/compare/r/report.html").read_text()
    assert "ffffffffff</code> with changes" in page
    assert "A100" in page


def test_a_second_comparison_in_the_same_folder_leaves_no_old_plots(place: Path, run: Run):
    make_study(Path("outputs"), "stages", {1: 0.5, 2: 0.6}, seeds=[0])
    Path("to").mkdir()
    Path("to/mine.png").write_bytes(b"not of a comparison")
    assert run("compare", "stages", "--to", "to", "--resamples", "100")[0] == 0
    assert Path("to/mine.png").exists()
    for folder in ("shapes-stages10", "shapes-stages20"):
        (Path("outputs") / folder / "metrics.csv").unlink()
    assert run("compare", "stages", "--to", "to", "--resamples", "100")[0] == 0
    assert not Path("to/learning_curves.png").exists()
    assert not list(Path("to").glob("*.partial"))


def test_runs_that_did_train_leave_everything_that_is_asked_for(workplace: Path, run: Run):
    for stages in (1, 2):
        code, out = run("train", *TINY, "callbacks.pictures=0", "trainer.threads=1", f"model.num_stages={stages}")
        assert code == 0, out
    code, out = run("compare", "outputs", "--resamples", "100", "--to", "to")
    assert code == 0, out
    assert "No " not in out, "nothing is missing"
    assert "num_stages=2: mask AP " in out
    assert "8 images" in out
    names = {path.stem for path in Path("to").glob("*.png")}
    assert {"learning_curves", "segm_AP_by_stage", "segm_AP_against_num_stages", "segm_AP_against_GFLOPs"} <= names


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page with")
def test_the_page_in_a_browser(place: Path, run: Run):
    make_study(Path("outputs"), "stages", {1: 0.5, 2: 0.7, 10: 0.6}, seeds=[0, 1])
    code, out = run("compare", "stages", "--resamples", "100")
    assert code == 0, out
    dom = in_browser(Path("outputs/compare/stages/report.html"), place)
    assert not re.search("<body[^>]*data-error", dom)
    one, two, ten = "num_stages=1", "num_stages=2", "num_stages=10"
    rising, falling, by_name, back, seeds = attribute(dom, "data-seen").split("|")
    assert rising.split(";") == [one, ten, two], "by mask AP"
    assert falling.split(";") == [two, ten, one]
    assert by_name.split(";") == [one, two, ten], "by the size of the setting"
    assert back.split(";") == [ten, two, one]
    assert seeds == "000111"
    assert attribute(dom, "data-drawn") == "10"
    assert int(attribute(dom, "data-wide")) <= 0, "the page itself does not scroll sideways"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the page with")
def test_names_of_classes_and_settings_cannot_break_the_page(place: Path, run: Run):
    names = (NASTY, "a & b", "{{ 7 * 7 }}")
    for number, text in enumerate((NASTY, '"><img src=x onerror=document.title=1>')):
        make_run(place / "odd" / f"r{number}", {"model.proposal_init": text}, quality=0.6 + number / 10, names=names)
    code, out = run("compare", "odd", "--resamples", "100")
    assert code == 0, out
    page = Path("outputs/compare/odd/report.html")
    assert NASTY not in page.read_text()
    dom = in_browser(page, place)
    assert not re.search("<body[^>]*data-error", dom)
    assert "<title>odd: what did it buy?</title>" in dom
    assert "<img" not in dom
    assert html.escape("proposal_init=" + NASTY, quote=False) in dom


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nothing"], "'nothing' is no study, no folder and no result.json; there is no study in outputs/studies"),
        (["two", "--baseline", "x"], "--baseline takes one of num_stages=1; num_stages=2; got 'x'"),
        (["two", "--resamples", "5"], "--resamples must be at least 100; got 5"),
        (["two", "--to", "file"], "file cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(place: Path, run: Run, words: list[str], sentence: str):
    if words[0] == "two":
        make_study(Path("outputs"), "two", {1: 0.5, 2: 0.6}, seeds=[0], older=True)
    Path("file").touch()
    code, out = run("compare", *words)
    assert code == 2
    assert f"error: {sentence}" in out
    assert "Traceback" not in out


def test_a_folder_called_runs_is_named_after_what_it_is_in(place: Path, run: Run):
    make_study(Path("outputs"), "stages", {1: 0.5, 2: 0.6})
    shutil.copytree("outputs", "experiments/depth/runs", ignore=shutil.ignore_patterns("studies"))
    code, out = run("compare", "experiments/depth/runs", "--resamples", "200")
    assert code == 0, out
    assert Path("outputs/compare/depth/report.html").exists()
