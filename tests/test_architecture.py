"""Who may import whom, what starts without torch, and how long a file may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "queryinst"
FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {f"queryinst.{path.stem}" for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
COMMANDS = {"train", "evaluate", "predict", "convert", "doctor", "benchmark", "compare", "demo", "export", "dataset"}

# What each part may import besides itself: config, structures, ops <- models | criterion | tracking <- data |
# evaluation | visualize | checkpoints <- inference | lightning <- studies <- benchmarks <- commands; beside inference,
# above data alone: formats | curation, which studies may use.
BASE = {
    "errors",
    "settings",
    "config",
    "video_config",
    "signals_config",
    "criterion_config",
    "rules",
    "structures",
    "ops",
    "part_config",
    "source",
    "slots",
    "library_names",
    "parts",
    "cache",
    "locks",
    "zoo",
}
READERS = {"data", "evaluation", "visualize", "checkpoints"}
MAY_IMPORT = {
    "errors": set(),
    "settings": {"errors"},
    "video_config": {"errors", "settings"},
    "signals_config": {"settings"},
    "criterion_config": {"settings", "part_config"},
    "part_config": {"errors", "settings"},
    "logger_config": {"settings", "part_config"},
    "trainer_config": {"settings"},
    "config": {
        "settings",
        "video_config",
        "signals_config",
        "criterion_config",
        "part_config",
        "logger_config",
        "trainer_config",
    },
    "rules": {"library_names", "errors", "settings", "config"},
    "source": {"errors"},
    "library_names": {"errors", "part_config"},
    "slots": {"errors", "part_config", "source", "library_names"},
    "parts": {"structures", "data"},  # for annotations only
    "command_config": {"settings", "config", "video_config", "part_config", "trainer_config"},
    "memory": set(),
    "cache": set(),
    "locks": set(),
    "zoo": {"errors"},
    "ops": {"errors"},
    "structures": {"ops"},
    "models": BASE,
    "criterion": BASE,
    "tracking": BASE,
    **{part: BASE | {"models", "criterion", "tracking"} for part in READERS},
    "inference": BASE | {"models", "tracking"} | READERS,
    "formats": BASE | {"data"},
    "curation": BASE | {"data"},
    "demo_page": BASE | {"models", "inference"} | READERS,
    "lightning": BASE | {"models", "criterion", "tracking", "logger_config", "trainer_config"} | READERS,
    "studies": BASE
    | {"models", "criterion", "tracking", "lightning", "rules", "trainer_config", "", "curation"}
    | READERS,
    "benchmarks": BASE | READERS | {"memory", "models", "criterion", "lightning", "studies"},
}
ONLY_IN = {
    "pytorch_lightning": ("lightning/", "data/datamodule.py"),
    "hydra": ("studies/",),
    "omegaconf": ("studies/",),
    "wandb": ("lightning/loggers.py", "lightning/report.py", "lightning/callbacks/", "studies/compare/upload.py"),
    "wandb_workspaces": ("studies/compare/upload.py",),
    "scipy": (
        "criterion/matcher.py",
        "criterion/proposals.py",
        "tracking/",
        "evaluation/identity.py",
        "studies/compare/noise.py",
    ),
    "matplotlib": ("visualize/plots.py", "visualize/figures.py", "studies/compare/figures.py"),
    "onnxruntime": ("checkpoints/exported.py",),
    "jinja2": ("studies/compare/write.py",),
    "supervision": ("inference/result.py",),
    "av": ("inference/film.py",),
    "optuna": ("studies/judge.py", "studies/search.py", "studies/search_study.py", "studies/space.py"),
    "gradio": ("demo_page/page.py",),
    "timm": ("models/timm_backbone.py",),
    "yaml": ("formats/yolo.py",),
}


def imports(path: Path) -> list[str]:
    """The full names of the modules that a file imports, also inside functions."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            inside = {f"queryinst.{alias.name}" for alias in node.names if node.module == "queryinst"} & MODULES
            names += sorted(inside) or [node.module or ""]
    return names


def part(path: Path) -> str:
    """`ops` for queryinst/ops/boxes.py, `config` for queryinst/config.py."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def test_imports_are_found_however_they_are_written(tmp_path: Path):
    (tmp_path / "a.py").write_text(
        "import queryinst.train\nfrom queryinst import evaluate, __version__\nfrom queryinst import load\n"
        "def f():\n    from queryinst.ops import boxes\n    import numpy as np, torch\n"
    )
    expected = ["queryinst.train", "queryinst.evaluate", "queryinst", "queryinst.ops", "numpy", "torch"]
    assert imports(tmp_path / "a.py") == expected
    commands = {path.stem for path in PACKAGE.glob("*.py") if "__main__" in path.read_text()}
    assert commands == COMMANDS


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_direction(path: Path):
    here = part(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "queryinst":
            there = rest.partition(".")[0]
            assert there not in COMMANDS, f"{name}: nobody imports a command"
            if here not in COMMANDS | {"__init__"} and there != here:
                assert there in MAY_IMPORT[here], f"{here} may not import {name}"
        elif top in ONLY_IN and here not in COMMANDS:
            where = str(path.relative_to(PACKAGE))
            assert where.startswith(ONLY_IN[top]), f"{top} is for {ONLY_IN[top]} only"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_can_be_read_at_one_sitting(path: Path):
    text = path.read_text()
    assert text.count("\n") <= 300
    assert ast.get_docstring(ast.parse(text)), "the first line says what the file is"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno <= 70, node.name


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_does_not_wait_for_torch(command: str):
    script = f"""
import sys, atexit, queryinst.{command} as c
atexit.register(lambda: print("torch" in sys.modules))
sys.argv = ["x", "--help"]
c.main()
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert f"python -m queryinst.{command}" in out
    assert out.strip().endswith("False")
