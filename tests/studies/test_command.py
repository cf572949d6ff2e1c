"""What the user is told about a command line or a YAML file that does not fit."""

import re
from pathlib import Path

import pytest
from conftest import Run

from queryinst.command_config import EvaluateConfig
from queryinst.config import TrainConfig
from queryinst.errors import UserError
from queryinst.studies import sources
from queryinst.studies.command import compose


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.num_stagess=3", r"unknown setting 'model\.num_stagess'; did you mean 'model\.num_stages'\?"),
        ("+model.foo=3", r"unknown setting 'model\.foo'"),
        ("modl=tiny", "unknown setting 'modl'; did you mean 'model'"),
        ("trainer.extra.foo=1", r"unknown setting 'trainer\.extra\.foo'; to add it, write \+trainer\.extra\.foo=VALUE"),
        ("model.num_stages=abc", r"model\.num_stages: value 'abc' .* cannot be read as a whole number"),
        ("optimizer.lr=fast", r"optimizer\.lr: value 'fast' .* cannot be read as a number"),
        ("seed=true", r"seed: value 'True' .* cannot be read as a whole number"),
        ("data=cocoo", "data has no option 'cocoo'; it has coco, shapes, .*, youtube_vis; did you mean 'coco'"),
        ("logger=[csv,wandbb]", "logger has no option 'wandbb'; .* did you mean 'wandb'"),
        ("+experiment=1x_pro10", "experiment has no option '1x_pro10'; .* did you mean '1x_pro100'"),
        ("+experimnt=1x_pro100", "unknown setting 'experimnt'; did you mean 'experiment'"),
        ("a=[", "the command line cannot be read"),
        ("model.num_stages=0", r"model\.num_stages must be at least 1; got 0 \(refinement stages"),
        ("optimizer.lr=0", r"optimizer\.lr must be above 0; got 0\.0"),
        ("optimizer.lr=inf", r"optimizer\.lr takes a finite number; got inf"),
        ("augmentation.flip=1.5", r"augmentation\.flip must be at most 1"),
        ("augmentation.short_sides=[800,3]", r"augmentation\.short_sides must be at least 32; got 3"),
        ("augmentation.short_sides=[]", "needs at least one value"),
        ("augmentation.crop_sides=[600,384]", "takes the smallest and the largest side"),
        ("trainer.precision=fp8", r"trainer\.precision takes one of 32-true, bf16-mixed, 16-mixed; got 'fp8'"),
        ("model.width=30", r"model\.num_heads must divide model\.width; got 4 heads for width 30"),
        ("trainer.accumulate=3", r"trainer\.accumulate must divide data\.batch_size; got 3 for 4 images"),
        ("optimizer.betas=[0.9]", r"optimizer\.betas takes two numbers"),
        ("optimizer.betas=0.9", r"optimizer\.betas: Invalid value assigned"),
        ("seed=1,2", "seed=1,2 has several values: add -m"),
        ("seed=" + "9" * 400, r"seed must be at most 4294967295; got 9{30} \("),
        ("name=../x", r"name is the first part of a folder's name: .* got '\.\./x'"),
        ("weights=", r"weights is empty; leave it out, or write weights=null"),
        ("trainer.threads=100000", r"trainer\.threads must be at most 1024"),
    ],
)
def test_one_sentence(override: str, sentence: str):
    with pytest.raises(UserError, match=sentence) as caught:
        compose("config", TrainConfig, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["schedule=1x", "schedule.epochs=5"], "must lie before schedule.epochs"),
        (["schedule=1x", "schedule.milestones=[11,8]"], "must rise"),
    ],
)
def test_values_that_contradict(overrides: list[str], sentence: str):
    with pytest.raises(UserError, match=sentence):
        compose("config", TrainConfig, overrides)


def test_a_missing_value_says_what_it_is():
    with pytest.raises(
        UserError, match=r"checkpoint must be given \(checkpoint of a training run, .*\): add checkpoint=VALUE"
    ):
        compose("evaluate", EvaluateConfig, [])


def test_a_typo_in_a_yaml_file_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import shutil

    copy = shutil.copytree(sources.CONF, tmp_path / "conf")
    (copy / "model" / "mine.yaml").write_text("num_proposal: 3\n")
    (copy / "experiment" / "mine.yaml").write_text("# @package _global_\noptimizer:\n  lr: quick\n")
    monkeypatch.setattr(sources, "CONF", copy)
    with pytest.raises(
        UserError,
        match=r"unknown setting 'model\.num_proposal' in conf/model/mine\.yaml; did you mean 'model\.num_proposals'",
    ):
        compose("config", TrainConfig, ["model=mine"])
    with pytest.raises(UserError, match=r"optimizer\.lr in conf/experiment/mine\.yaml: value 'quick'"):
        compose("config", TrainConfig, ["+experiment=mine"])


def test_a_command_says_it_without_a_traceback(run: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for verb, *arguments in (
        ("train", "seed=-1"),
        ("train", "modl=tiny"),
        ("evaluate",),
        ("predict", "checkpoint=x"),
        ("evaluate", "checkpoint=no.ckpt"),
    ):
        code, text = run(verb, *arguments)  # type: ignore[operator]
        assert code == 2
        assert text.startswith("error: ")
        assert len(text.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["data.video.reference_range=3"],
            r"data\.video is empty here: choose data=shapes_video or .*data=youtube_vis",
        ),
        (["+data.video.reference_range=3"], r"data\.video\.reference_range cannot be set, since data\.video is empty"),
        (
            ["+experiment=tiny", "data.shapes.train=3"],
            r"data\.shapes is empty here: choose data=shapes or data=shapes_tiny$",
        ),
        (
            ["data=youtube_vis", "data.video.shapes.train=3"],
            r"video\.shapes is empty here: choose data=shapes_video or",
        ),
        (["model.association.width=3"], r"model\.association\.width cannot be set, since model\.association is empty"),
    ],
)
def test_a_setting_below_nothing(run: Run, words: list[str], sentence: str):
    code, text = run("train", *words)
    assert (code, text.count("\n")) == (2, 1)
    with pytest.raises(UserError, match=sentence) as raised:
        compose("config", TrainConfig, words)
    assert text == f"error: {raised.value}\n"


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("experiment=1x_pro100", r"write \+experiment=1x_pro100"),
        ("model=null", "model takes one of queryinst, queryinst_video, small, tiny, tiny_video; got 'model=null'"),
        ("~model", "model takes one of queryinst, queryinst_video, small, tiny, tiny_video; got '~model'"),
        (
            "schedule=5",
            "schedule takes one of 1x, 3x, 50e, shapes, shapes_long, shapes_short, suited; got 'schedule=5'",
        ),
    ],
)
def test_what_hydra_takes_in_silence(run: Run, word: str, sentence: str):
    code, text = run("train", word)
    assert code == 2
    assert re.fullmatch(f"error: .*{sentence}\n", text)
