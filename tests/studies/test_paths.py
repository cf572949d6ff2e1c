"""Paths and names on a command line are taken as they are, whatever Hydra's grammar says of their characters."""

from pathlib import Path

import pytest
from conftest import Run
from PIL import Image

from queryinst.command_config import DoctorConfig, EvaluateConfig, PredictConfig
from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.studies.command import compose
from queryinst.studies.paths import quoted

ODD = [
    "IMG (1).jpg",
    "épée.jpg",
    "a=b",
    "[1]",
    "a,b.jpg",
    "it's.jpg",
    'say "x".jpg',
    "'half.jpg",
    "C:\\pictures\\",
    "a\\'b",
    "#1 & 2; no! 50%.jpg",
    "photos/**/*.jpg",
    "1e5",
    "007",
    "0",
    "true",
    "{x}",
    "a b",
    " a",
    "照片.png",
    "choice(a,b)",
    "a:b@c|d",
]


@pytest.mark.parametrize("path", ODD)
def test_paths_are_what_was_written(path: str):
    predict = compose("predict", PredictConfig, [f"checkpoint={path}", f"source={path}", f"output={path}"])
    assert (predict.checkpoint, predict.source, predict.output) == (path, path, path)
    assert compose("evaluate", EvaluateConfig, [f"checkpoint={path}", f"images={path}"]).images == path
    assert compose("doctor", DoctorConfig, ["data=coco", f"data.root={path}"]).data.root == path
    train = compose("config", TrainConfig, ["+experiment=tiny", f"data.val_images={path}", f"weights={path}"])
    assert (train.data.val_images, train.weights) == (path, path)


def test_quotes_for_hydra_go_on_to_be_quotes():
    for word in ("source='IMG (1).jpg'", 'source="IMG (1).jpg"'):
        assert compose("predict", PredictConfig, ["checkpoint=x", word]).source == "IMG (1).jpg"
    assert compose("evaluate", EvaluateConfig, ["checkpoint=x", "images=null"]).images is None
    with pytest.raises(UserError, match="source is empty"):
        compose("predict", PredictConfig, ["checkpoint=x", "source="])


def test_the_users_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose("predict", PredictConfig, ["checkpoint=~/x", "source=~/a b.jpg"]).source == f"{tmp_path}/a b.jpg"
    assert compose("doctor", DoctorConfig, ["data=coco", "data.root=~/coco"]).data.root == f"{tmp_path}/coco"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("[cat,dog]", ["cat", "dog"]),
        ("[traffic light,épée,#2]", ["traffic light", "épée", "#2"]),
        ("épée", ["épée"]),
        ("cat,dog", ["cat", "dog"]),
        ("['a,b','c']", ["a,b", "c"]),
        ("[]", []),
        ("17", ["17"]),
    ],
)
def test_names_of_classes(given: str, names: list[str]):
    assert compose("predict", PredictConfig, ["checkpoint=x", "source=x", f"classes={given}"]).classes == names


def test_sweeps_go_on_to_be_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    words = ["-m", "seed=1,2", "weights=a.ckpt,b.ckpt", "optimizer.undecayed=[a],[b]", "output=run (1)"]
    assert quoted(words, TrainConfig) == [*words[:-1], "output='run (1)'"]
    assert quoted(words[2:3], TrainConfig) == ["weights='a.ckpt,b.ckpt'"]
    monkeypatch.chdir(tmp_path)
    Path("a.ckpt,b.ckpt").touch()
    assert quoted(words[:3], TrainConfig)[2] == "weights='a.ckpt,b.ckpt'"


def test_the_command_itself(untrained: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48)).save("épée, [1] (it's).png")
    code, said = run("predict", f"checkpoint={untrained}", "source=épée, [1] (it's).png", "output=a=b", "score=0")
    assert code == 0, said
    assert Path("a=b", "épée, [1] (it's).png.png").exists() or list(Path("a=b").iterdir())
