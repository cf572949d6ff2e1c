"""Change the code in small ways, one at a time, and see which changes no test notices (mutation testing, by mutmut).

`make mutants` runs it, `make mutants ARGS="ops tracking"` some parts. A part is a folder of the package; its mutants
meet the tests of the same folder below `tests/`, fastest first, and only those that reach the mutated function. All of
it happens in `.mutants/PART`, a copy of the repository. What was found there stays: a second call tests functions that
have changed, and, where a test has changed, mutants that went through. Remove `.mutants` to begin anew.
"""

import argparse
import ast
import fnmatch
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".mutants"
KNOWN = Path(__file__).parent / "survivors"
NEVER_COPIED = ("experiments/*.jpg", "experiments/*.png", "experiments/*.mp4")


@dataclass(frozen=True)
class Part:
    """Files below `queryinst/` (patterns), and the tests that answer for them."""

    files: list[str]
    tests: list[str]


PARTS = {
    "ops": Part(["ops/*.py"], ["tests/ops"]),
    "criterion": Part(["criterion/*.py"], ["tests/criterion"]),
    "models": Part(["models/*.py"], ["tests/models"]),
    "data": Part(
        [f"data/{name}.py" for name in ("transforms", "collate", "coco", "dataset", "index", "validation")],
        ["tests/data"],
    ),
    "evaluation": Part(["evaluation/*.py"], ["tests/evaluation"]),
    "tracking": Part(["tracking/*.py"], ["tests/tracking"]),
    "lightning": Part(
        ["lightning/module.py", "lightning/optimizer.py", "lightning/trace.py", "lightning/callbacks/keep_last.py"],
        ["tests/lightning"],
    ),
    "checkpoints": Part(  # without the tests that export networks, each for seconds before it begins
        ["checkpoints/*.py"], ["tests/checkpoints", "--ignore=tests/checkpoints/test_exported.py"]
    ),
    "studies": Part(  # without the tests that start processes, which know nothing of mutants
        ["studies/identity.py", "studies/job.py", "studies/sweep.py", "studies/compare/noise.py"],
        [
            f"tests/studies/test_{name}.py"
            for name in (
                "identity",
                "job",
                "job_folder",
                "sweep_call",
                "sweep_job",
                "compare_noise",
                "compare_noise_verdicts",
            )
        ],
    ),
    "rules": Part(["rules.py"], ["tests/test_rules.py", "tests/test_settings.py"]),
}

# With what takes seconds to import there already in all processes that mutmut forks; nothing of ours, and no threads.
MUTMUT = "import cv2, pytorch_lightning, pycocotools.cocoeval, torchvision; from mutmut.__main__ import cli; cli()"
# Seconds that a mutant may take: (seconds of its tests + `timeout_constant`) * `timeout_multiplier`.
# `forkserver`: a process that has run threads of OpenMP or OpenCV must not be forked.
SETTINGS = """
[tool.mutmut]
source_paths = ["queryinst"]
only_mutate = {files}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-m", "not slow", "-p", "no:cacheprovider", "-p", "tests.mutation.fastest_first"]
also_copy = {others}
process_isolation = "forkserver"
timeout_constant = 4.0
timeout_multiplier = 5.0
use_git_change_detection = false
on_dependency_change = "ignore"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all of them where none is named")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--report", action="store_true", help="only what is known so far")
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    for name in [] if arguments.report else parts:
        test(name, arguments.processes)
    report(parts)


def test(name: str, processes: int) -> None:
    """Run mutmut on one part, in its own copy of the repository."""
    print(f"{name}:", flush=True)
    work, part = WORK / name, PARTS[name]
    copy(work, part)
    forget_survivors(work, part)
    # Without the plugin that collects garbage ten times before a process may end: five times as quick.
    quick = {"PYTEST_ADDOPTS": "-p no:unraisableexception -p no:threadexception"}
    environment = {**os.environ, **quick, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(work / "mutants")}
    command = [sys.executable, "-c", MUTMUT, "run", "--max-children", str(processes)]
    subprocess.run(command, cwd=work, env=environment, check=True)


def copy(work: Path, part: Part) -> None:
    """The files of the repository as they are now; one that did not change keeps its time, by which mutmut knows it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    files = [f for f in listed if (ROOT / f).is_file() and not any(fnmatch.fnmatch(f, n) for n in NEVER_COPIED)]
    for file in files:
        content = (ROOT / file).read_bytes()
        if any(fnmatch.fnmatch(file, f"queryinst/{pattern}") for pattern in part.files):
            content = undecorated(content.decode()).encode()
        if file == "pyproject.toml":
            others = sorted({f.split("/")[0] for f in files} - {"queryinst", "tests", ".gitignore"})
            content += SETTINGS.format(
                files=json.dumps([f"queryinst/{pattern}" for pattern in part.files]),
                tests=json.dumps(part.tests),
                others=json.dumps(others),
            ).encode()
        target = work / file
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    known = {work / file for file in files}
    for folder in ("queryinst", "tests", "conf"):
        for old in (work / folder).rglob("*"):
            if old.is_file() and old not in known and old.suffix != ".pyc":
                old.unlink()
                (work / "mutants" / old.relative_to(work)).unlink(missing_ok=True)


def undecorated(source: str) -> str:
    """The same module with `f = decorator(f)` below each function in place of `@decorator` above it.

    mutmut does not mutate what has a decorator, and a third of what matters most here is below `@torch.no_grad()`.
    """
    lines = source.splitlines(keepends=True)
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if not decorators or set(decorators) & {"staticmethod", "classmethod", "overload"} or node.end_lineno is None:
            continue
        call = node.name
        for decorator in reversed(decorators):
            call = f"{decorator}({call})"
        lines.insert(node.end_lineno, f"{' ' * node.col_offset}{node.name} = {call}\n")
        del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "".join(lines)


def forget_survivors(work: Path, part: Part) -> None:
    """Where a test has changed, a mutant that went through is tested again, and which tests reach it is found anew."""
    digest = hashlib.sha256()
    for file in sorted((work / "tests").rglob("*.py")):
        if file.name == "conftest.py" or any(file.is_relative_to(work / test) for test in part.tests):
            digest.update(file.read_bytes())
    seen = work / "mutants" / "tests.sha256"
    if seen.exists() and seen.read_text() != digest.hexdigest():
        (work / "mutants" / "mutmut-stats.json").unlink(missing_ok=True)
        for meta in (work / "mutants").rglob("*.meta"):
            content = json.loads(meta.read_text())
            verdicts = content["exit_code_by_key"]
            content["exit_code_by_key"] = {k: v if verdict(v) == "killed" else None for k, v in verdicts.items()}
            meta.write_text(json.dumps(content))
    seen.parent.mkdir(parents=True, exist_ok=True)
    seen.write_text(digest.hexdigest())


def verdict(code: int | None) -> str:
    """What an exit code of mutmut means, in one of five words."""
    if code in (1, 3):
        return "killed"
    if code in (24, -24, 36, 152):
        return "timeout"
    return {None: "unchecked", 255: "unchecked", 0: "survived", 5: "no test", 33: "no test"}.get(code, "crashed")


def report(parts: list[str]) -> None:
    """What went through and is not among those that are known to, and then a row a file."""
    total: Counter[str] = Counter()
    rows = []
    for name in parts:
        known = {line.removeprefix("- ") for line in read(KNOWN / f"{name}.md") if line.startswith("- ")}
        for meta in sorted((WORK / name / "mutants").rglob("*.py.meta")):
            file = str(meta.relative_to(WORK / name / "mutants")).removesuffix(".meta")
            verdicts = {key: verdict(code) for key, code in json.loads(meta.read_text())["exit_code_by_key"].items()}
            if not verdicts:
                continue
            count = Counter(verdicts.values())
            alive = [key for key, word in verdicts.items() if word in ("survived", "no test")]
            unknown = [change for change in changes(meta.with_suffix(""), file, alive) if change not in known]
            print(*unknown, sep="\n", end="\n" if unknown else "")
            count["new"] = len(unknown)
            rows.append(row(file, count))
            total += count
    print(f"\n{'file':42} mutants caught timeout crashed survived no test unchecked   new")
    print(*rows, row("all", total), sep="\n")


def read(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def row(name: str, count: Counter[str]) -> str:
    mutants = sum(count.values()) - count["new"]
    caught = count["killed"] + count["timeout"] + count["crashed"]
    return (
        f"{name:42} {mutants:7} {caught / max(mutants, 1):6.1%} {count['timeout']:7} {count['crashed']:7} "
        f"{count['survived']:8} {count['no test']:7} {count['unchecked']:9} {count['new']:5}"
    )


def words(text: str) -> list[str]:
    return re.findall(r"\w+|\s+|[^\w\s]", text)


def alike(one: list[str], other: list[str]) -> int:
    """How many words are the same at the beginning of both."""
    same = (a == b for a, b in zip(one, other, strict=False))
    return next((i for i, yes in enumerate(same) if not yes), min(len(one), len(other)))


def changes(mutated: Path, file: str, keys: list[str]) -> list[str]:
    """Each mutant in one line, `file function: ... [before => after] ...`, which does not depend on line numbers."""
    if not keys:
        return []
    source = mutated.read_text()
    lines = source.splitlines()
    functions = {n.name: n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)}

    def body(name: str) -> str:
        node = functions[name]
        assert node.end_lineno
        text = " ".join(line.strip() for line in lines[node.lineno - 1 : node.end_lineno])
        return text.replace(name, "", 1)

    found = []
    for key in keys:
        mutant = key.rpartition(".")[2]
        original = re.sub(r"_\d+$", "_orig", mutant)
        before, after = words(body(original)), words(body(mutant))
        head = alike(before, after)
        tail = alike(before[:head:-1], after[:head:-1])
        name = original.removesuffix("__mutmut_orig")[2:].replace("ǁ", ".")  # of x_NAME or xǁCLASSǁNAME
        old, new = ("".join(side[head : len(side) - tail]) for side in (before, after))
        left, right = "".join(before[:head])[-40:], "".join(before[len(before) - tail :])[:40]
        found.append(f"{file} {name}: {left}[{old} => {new}]{right}")
    return found


if __name__ == "__main__":
    main()
