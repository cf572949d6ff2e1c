"""One annotation file becomes a training and a validation set: once, said aloud, and nothing that is there changes."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from PIL import Image

from queryinst.config import DataConfig, TrainConfig
from queryinst.data.coco import CocoFile
from queryinst.data.locate import locate
from queryinst.errors import UserError
from queryinst.studies import own_split
from queryinst.studies.command import compose
from queryinst.studies.identity import identity
from queryinst.studies.own_split import with_split

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
TWINS = {17: 1, 18: 2, 19: 3, 20: 4}  # images that are copies of others


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of each test's own."""
    monkeypatch.setenv("QUERYINST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def coco(classes: Sequence[int]) -> dict[str, Any]:
    """Images 1, 2, ... with an object each, of these classes."""
    box = {"bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [SQUARE]}
    numbers = range(1, len(classes) + 1)
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 60, "width": 80} for n in numbers],
        "annotations": [
            {"id": n, "image_id": n, "category_id": key, **box} for n, key in zip(numbers, classes, strict=True)
        ],
        "categories": [{"id": key, "name": f"class{key}"} for key in sorted(set(classes))],
    }


def folder(root: Path, content: dict[str, Any] | None = None, name: str = "result.json", same: bool = False) -> Path:
    """A folder of images, and one file of their annotations; by default 20 images, of which 4 are copies."""
    content = content or coco([1 + n % 2 for n in range(20)])
    (root / "images").mkdir(parents=True)
    for image in content["images"]:
        seed = 0 if same else TWINS.get(image["id"], image["id"])
        noise = np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)
        made = Image.fromarray(noise).resize((80, 60), Image.Resampling.BICUBIC)
        made.save(root / "images" / image["file_name"], quality=90 - image["id"] % 20)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(json.dumps(content))
    return root


def parts(data: DataConfig) -> dict[str, set[int]]:
    """The images of both parts, read as training does."""
    files = {part: CocoFile(*locate(data, part)) for part in ("train", "val")}
    return {part: {image.id for image in file.images} for part, file in files.items()}


def state(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_fifth_is_kept_for_validation_and_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folder(tmp_path / "data")
    before = state(root)
    data = with_split(DataConfig(root=str(root)))
    assert (data.train_annotations, data.val_annotations) == ("queryinst_split/train.json", "queryinst_split/val.json")
    assert (data.train_images, data.val_images) == ("images", "images")
    made = parts(data)
    assert {part: len(ids) for part, ids in made.items()} == {"train": 16, "val": 4}
    assert made["train"] | made["val"] == set(range(1, 21))
    assert all((twin in made["val"]) == (one in made["val"]) for twin, one in TWINS.items())
    assert {n % 2 for n in made["val"]} == {0, 1}  # both classes
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for words in (
        "has one annotation file, result.json, and no split, so a fifth of it is kept for validation: 16 images",
        "4 to validate with",
        "4 groups of near-duplicates (8 images) are each in one part",
        f"python -m queryinst.dataset split {root}/result.json --images {root}/images",
        "data.val_annotations",
    ):
        assert words in said
    after = state(root)
    assert before.items() <= after.items()
    assert sorted(after.keys() - before.keys()) == [
        f"queryinst_split/{name}.json" for name in ("split", "train", "val")
    ]


def test_the_command_that_is_named_makes_the_same_split(tmp_path: Path, run: Run):
    root = folder(tmp_path / "data")
    data = with_split(DataConfig(root=str(root)))
    words = ["split", str(root / "result.json"), "--images", str(root / "images"), "--to", str(tmp_path / "other")]
    assert run("dataset", *words)[0] == 0
    for part in ("train", "val"):
        assert (tmp_path / "other" / f"{part}.json").read_bytes() == locate(data, part).annotations.read_bytes()
    # One that is made beside the file goes before ours.
    assert run("dataset", *words[:-2])[0] == 0
    assert with_split(DataConfig(root=str(root))).train_annotations == "train.json"


def test_it_is_made_once_for_each_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    root, file = folder(tmp_path / "data"), tmp_path / "data" / "result.json"
    first = with_split(DataConfig(root=str(root)))
    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(own_split, "_parts", None)  # whoever divides now, fails
        os.utime(file, (1, 1))
        assert with_split(DataConfig(root=str(root))) == first
    assert capsys.readouterr().err == ""
    content = json.loads(file.read_text())
    content["images"] = content["images"][:10]
    content["annotations"] = content["annotations"][:10]
    file.write_text(json.dumps(content))
    second = with_split(DataConfig(root=str(root)))
    assert second == first
    assert {part: len(ids) for part, ids in parts(second).items()} == {"train": 8, "val": 2}
    assert "result.json in" in (said := capsys.readouterr().err)
    assert "has changed since it was split, and is split anew: 8 images" in said


def test_a_training_set_alone_is_said_to_lack_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folder(tmp_path / "data", name="annotations/instances_train2017.json")
    data = with_split(DataConfig(root=str(root)))
    assert data.val_annotations == "queryinst_split/val.json"
    said = capsys.readouterr().err
    assert "has no validation set, so a fifth of annotations/instances_train2017.json is kept for that: 16" in said


def test_where_nothing_can_be_written_the_cache_folder_takes_it(tmp_path: Path, cache: Path):
    """A file in the way fails for every user, as missing rights do not."""
    root = folder(tmp_path / "data")
    (root / "queryinst_split").touch()
    data = with_split(DataConfig(root=str(root)))
    assert Path(data.train_annotations).parent.parent == cache / "splits"
    assert data.train_images == "images"
    assert len(parts(data)["val"]) == 4
    assert with_split(DataConfig(root=str(root))) == data
    # and so it is where somebody else's files are
    (root / "queryinst_split").unlink()
    (root / "queryinst_split").mkdir()
    (root / "queryinst_split" / "train.json").write_text("mine")
    shutil.rmtree(cache)
    assert with_split(DataConfig(root=str(root))) == data
    assert (root / "queryinst_split" / "train.json").read_text() == "mine"


def test_where_nowhere_can_be_written(tmp_path: Path, cache: Path):
    root = folder(tmp_path / "data")
    (root / "queryinst_split").touch()
    cache.touch()
    with pytest.raises(
        UserError, match="can be written neither to .*data/queryinst_split nor to .*: set QUERYINST_CACHE"
    ):
        with_split(DataConfig(root=str(root)))


def test_the_run_is_the_same_wherever_the_parts_lie(tmp_path: Path):
    """Contents count: in another place, and in the cache folder."""
    here = folder(tmp_path / "here")
    there = Path(shutil.copytree(here, tmp_path / "elsewhere" / "there"))
    (there / "queryinst_split").touch()
    words = ["data=coco", "+experiment=tiny"]
    configs = [compose("config", TrainConfig, [*words, f"data.root={root}"]) for root in (here, there)]
    assert configs[0].data.val_annotations == "queryinst_split/val.json"
    assert Path(configs[1].data.val_annotations).is_absolute()
    one, other = map(identity, configs)
    assert one == other
    assert one["data.train"] != one["data.val"] != "missing"


def test_too_few_images(tmp_path: Path):
    root = folder(tmp_path / "data", coco([1] * 4))
    before = state(root)
    with pytest.raises(UserError, match=r"result\.json has 4 images, and 5 are needed to keep a fifth for validation"):
        with_split(DataConfig(root=str(root)))
    assert state(root) == before
    (root / "result.json").write_text(json.dumps(coco([1] * 5)))
    assert {part: len(ids) for part, ids in parts(with_split(DataConfig(root=str(root)))).items()} == {
        "train": 4,
        "val": 1,
    }


def test_a_fault_is_said_as_training_says_it_and_nothing_is_written(tmp_path: Path):
    content = coco([1] * 8)
    content["annotations"][3]["image_id"] = 77
    root = folder(tmp_path / "data", content)
    with pytest.raises(UserError) as training:
        CocoFile(root / "result.json", root / "images")
    with pytest.raises(UserError) as ours:
        with_split(DataConfig(root=str(root)))
    assert str(ours.value) == str(training.value)
    assert not (root / "queryinst_split").exists()


def test_what_tools_write_in_their_own_way_is_divided_too(tmp_path: Path):
    content = coco([1, 2] * 4)
    for annotation in content["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])
    data = with_split(DataConfig(root=str(folder(tmp_path / "data", content))))
    assert len(parts(data)["train"]) == 6


def test_images_that_are_not_there(tmp_path: Path):
    root = folder(tmp_path / "data")
    shutil.rmtree(root / "images")
    with pytest.raises(UserError, match="none of the 20 images of .*result.json is in .*data, first .*1.jpg: put them"):
        with_split(DataConfig(root=str(root)))
    assert not (root / "queryinst_split").exists()


def test_images_that_cannot_be_read_are_not_to_blame(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folder(tmp_path / "data")
    (root / "images" / "5.jpg").write_text("no image")
    (root / "images" / "6.jpg").unlink()
    made = parts(with_split(DataConfig(root=str(root))))
    assert made["train"] | made["val"] == set(range(1, 21))
    assert "(2 that cannot be read count as unlike all others)" in capsys.readouterr().err


def test_images_that_are_all_alike_do_not_leave_a_part_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folder(tmp_path / "data", same=True)
    assert len(parts(with_split(DataConfig(root=str(root))))["val"]) == 4
    assert "20 images look the same, too many to keep in one part" in capsys.readouterr().err


def test_classes_of_one_image_each_do_not_leave_a_part_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    content = coco(range(1, 11))
    for category in content["categories"]:
        category["name"] = category["id"]  # a number is a name too
    root = folder(tmp_path / "data", content)
    made = parts(with_split(DataConfig(root=str(root))))
    assert {part: len(ids) for part, ids in made.items()} == {"train": 8, "val": 2}
    said = capsys.readouterr().err
    one, other = sorted(made["val"])
    assert f"train has no object of 2 classes ('{one}', '{other}'); val has no object of 8 classes (" in said


def test_among_very_many_images_near_duplicates_are_not_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(own_split, "COMPARED", 19)
    root = folder(tmp_path / "data")
    shutil.rmtree(root / "images")  # nobody looks
    assert len(parts_of_files(with_split(DataConfig(root=str(root))))["val"]["images"]) == 4
    assert "near-duplicates are not looked for among more than 19 images" in capsys.readouterr().err


def parts_of_files(data: DataConfig) -> dict[str, Any]:
    return {part: json.loads(locate(data, part).annotations.read_text()) for part in ("train", "val")}


def test_several_at_once_divide_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = folder(tmp_path / "data")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(with_split, [DataConfig(root=str(root))] * 4))
    assert found == [found[0]] * 4
    assert capsys.readouterr().err.count("note: ") == 1


@pytest.mark.parametrize("survived", range(4))
def test_whoever_is_killed_leaves_nothing_that_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
):
    root, file = folder(tmp_path / "data"), tmp_path / "data" / "result.json"
    old = file.read_text()
    whole = parts(with_split(DataConfig(root=str(root))))
    file.write_text(json.dumps(coco([1] * 10)))
    replaced: list[object] = []

    def replace(source: Path, target: Path) -> None:
        if len(replaced) == survived:
            raise KeyboardInterrupt
        replaced.append(target)
        shutil.move(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(own_split.os, "replace", replace)
        with pytest.raises(KeyboardInterrupt):
            with_split(DataConfig(root=str(root)))
    file.write_text(old)
    assert parts(with_split(DataConfig(root=str(root)))) == whole
    assert sorted(path.name for path in (root / "queryinst_split").iterdir()) == [
        "split.json",
        "train.json",
        "val.json",
    ]


def test_nobody_waits_for_torch_where_the_parts_are_there(tmp_path: Path):
    root = folder(tmp_path / "data")
    with_split(DataConfig(root=str(root)))
    script = (
        "import sys; from queryinst.config import DataConfig; from queryinst.studies.own_split import with_split\n"
        f"data = with_split(DataConfig(root={str(root)!r})); print(data.val_annotations, 'torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["queryinst_split/val.json", "False"]
    assert out.stderr == ""
