"""The front door: every command in the README is one that works, and every file it names is there."""

import re
import shlex

import pytest
from conftest import ROOT

from queryinst import dataset
from queryinst.command_config import DemoConfig, DoctorConfig, EvaluateConfig, PredictConfig
from queryinst.compare import parser
from queryinst.config import TrainConfig
from queryinst.studies.command import compose

README = (ROOT / "README.md").read_text()
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
LINES = sorted({line.partition("  #")[0].strip() for line in BLOCKS.splitlines() if line.strip()})
SCHEMAS = {
    "train": ("config", TrainConfig),
    "evaluate": ("evaluate", EvaluateConfig),
    "predict": ("predict", PredictConfig),
    "demo": ("demo", DemoConfig),
    "doctor": ("doctor", DoctorConfig),
}
TARGETS = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)


def arguments(line: str) -> list[str]:
    """The settings of a command; of a sweep, its first job."""
    words = [word for word in shlex.split(line)[3:] if not word.startswith("-")]
    words = [re.sub(r"=(?:tag\(\w+,)?(?:interval|choice)\(([^,]+),.*", r"=\1", word) for word in words]
    return [re.sub(r"^([\w.+]+)=([^\[{,]+),.*", r"\1=\2", word) for word in words]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("python -m queryinst")])
def test_every_command_composes(line: str, monkeypatch: pytest.MonkeyPatch):
    if "=my_" in line:  # a part of one's own, found in the folder that the command runs in
        monkeypatch.syspath_prepend(ROOT / "experiments" / "own_parts")
    verb = line.split()[2].partition(".")[2]
    if verb in ("convert", "export"):
        assert len(arguments(line)) == 2
        return
    if verb == "dataset":
        assert dataset.parser().parse_args(shlex.split(line)[3:]).command
        return
    if verb == "compare":
        assert parser().parse_args(shlex.split(line)[3:]).runs
        return
    if verb == "benchmark":
        assert line.split()[3] in ("data", "evaluation", "inference", "masks", "train")
        return
    name, schema = SCHEMAS[verb]
    compose(name, schema, arguments(line))


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("python -m queryinst")])
def test_every_other_command_is_known(line: str):
    words = shlex.split(line)
    if words[0] == "make":
        assert words[1] in TARGETS
    else:
        assert line in (
            "pip install -e .",
            "pip install -e '.[demo]'",
            "pip install -e '.[export]'",
            "pip install -e '.[timm]'",
        )


def test_the_test_command_is_in_it():
    assert "make test" in LINES
    assert "make train" in LINES


def test_every_command_is_shown():
    shown = {line.split()[2] for line in LINES if line.startswith("python -m queryinst")}
    commands = {path.stem for path in (ROOT / "queryinst").glob("*.py") if "__main__" in path.read_text()}
    assert shown == {f"queryinst.{name}" for name in commands}
    assert len(commands) == 10


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_to_a_file_leads_somewhere(target: str):
    assert target.startswith("https://") or (ROOT / target).exists()
