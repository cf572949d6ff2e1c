"""The files of a folder are found by the names that tools give them; where they are not clear nothing is guessed."""

import json
from pathlib import Path

import pytest
from conftest import ROOT

from queryinst.config import DataConfig, ShapesConfig
from queryinst.data.layout import PARTS, Undivided, find
from queryinst.errors import UserError
from queryinst.part_config import PartConfig

REAL = ROOT.parent / "shared" / "real"


def put(root: Path, annotations: str, images: str, names: tuple[str, ...] = ("1.jpg", "2.jpg")) -> None:
    """A COCO file and its images, empty: nobody reads them here."""
    content = {"images": [{"id": n, "file_name": name} for n, name in enumerate(names)], "annotations": []}
    path = root / annotations
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**content, "categories": []}))
    for name in names:
        (root / images / name).parent.mkdir(parents=True, exist_ok=True)
        (root / images / name).touch()


def found(root: Path, **settings: object) -> tuple[str, str, str, str]:
    data = find(DataConfig(root=str(root), **settings))  # type: ignore[arg-type]
    return data.train_annotations, data.train_images, data.val_annotations, data.val_images


@pytest.mark.parametrize(
    ("train", "val"),
    [
        (("train/_annotations.coco.json", "train"), ("valid/_annotations.coco.json", "valid")),
        (("train/_annotations.coco.json", "train"), ("test/_annotations.coco.json", "test")),
        (("annotations/instances_train.json", "images/train"), ("annotations/instances_val.json", "images/val")),
        (("annotations/instances_train2014.json", "train2014"), ("annotations/instances_val2014.json", "val2014")),
        (("train.json", "images"), ("val.json", "images")),
        (("labels/my-Training.json", "labels"), ("labels/my-validation.json", "labels")),
        (("a/annotations/train.json", "a/images"), ("a/annotations/dev.json", "a/images")),
        (("train/labels.json", "train/images"), ("val/labels.json", "val/images")),
        (("training/x.json", "training"), ("training/val.json", "training")),  # a file's own name counts first
    ],
)
def test_what_tools_write(tmp_path: Path, train: tuple[str, str], val: tuple[str, str]):
    put(tmp_path, *train)
    put(tmp_path, *val)
    assert found(tmp_path) == (*train, *val)


def test_a_validation_set_goes_before_a_test_set(tmp_path: Path):
    for name in ("train", "valid", "test"):
        put(tmp_path, f"{name}/_annotations.coco.json", name)
    assert found(tmp_path)[2:] == ("valid/_annotations.coco.json", "valid")


def test_files_that_hold_no_instances_are_none(tmp_path: Path):
    for split in ("train2014", "val2014"):
        for kind in ("instances", "captions", "person_keypoints"):
            put(tmp_path, f"annotations/{kind}_{split}.json", split)
        (tmp_path / split / "train.json").write_text('{"shapes": [], "imagePath": "1.jpg"}')  # of LabelMe
    (tmp_path / "train.json").write_text("[1, 2]")
    assert found(tmp_path) == (
        "annotations/instances_train2014.json",
        "train2014",
        "annotations/instances_val2014.json",
        "val2014",
    )


def test_the_folder_with_the_images_is_the_one(tmp_path: Path):
    """Not the first of a good name: an empty `train` beside `images/train`."""
    put(tmp_path, "train.json", "images/train")
    put(tmp_path, "val.json", "images/val")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.jpg").touch()  # one of two
    assert found(tmp_path)[1::2] == ("images/train", "images/val")


def test_images_are_found_as_training_finds_them(tmp_path: Path):
    """Here with a backslash, which is no folder on this system."""
    for split in ("train", "val"):
        put(tmp_path, f"{split}.json", "pictures", (r"a\1.jpg",))
        (tmp_path / "pictures" / r"a\1.jpg").unlink()
        (tmp_path / "images" / split / "a").mkdir(parents=True)
        (tmp_path / "images" / split / "a" / "1.jpg").touch()
    assert found(tmp_path)[1::2] == ("images/train", "images/val")


def test_what_is_given_stays_and_the_rest_is_found(tmp_path: Path):
    for name in ("train", "valid"):
        put(tmp_path, f"{name}/_annotations.coco.json", name)
    put(tmp_path, "train/fixed.json", "train")
    given = found(tmp_path, train_annotations="train/fixed.json")
    assert given == ("train/fixed.json", "train", "valid/_annotations.coco.json", "valid")
    put(tmp_path, "more/half.json", "train")  # its name says nothing, nor does its folder
    assert found(tmp_path, train_annotations="more/half.json")[:2] == ("more/half.json", "train")
    given = found(tmp_path, val_images="elsewhere", val_annotations="train/fixed.json")
    assert given == ("train/_annotations.coco.json", "train", "train/fixed.json", "elsewhere")


def test_a_file_outside_of_the_folder_is_of_its_images(tmp_path: Path):
    root = tmp_path / "data"
    for name in ("train", "valid"):
        put(root, f"{name}/_annotations.coco.json", name)
    put(tmp_path, "parts/half.json", "data/train")
    given = found(root, train_annotations=str(tmp_path / "parts/half.json"))
    assert given[1:] == ("train", "valid/_annotations.coco.json", "valid")


def test_parts_and_copies_beside_a_file_of_roboflow_are_not_it(tmp_path: Path):
    put(tmp_path, "valid/_annotations.coco.json", "valid")
    for name in ("_annotations.coco", "train", "filtered"):
        put(tmp_path, f"train/{name}.json", "train")
    assert found(tmp_path)[0] == "train/_annotations.coco.json"


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["all.json"], r"has all\.json, and none that says by its name that it is the training set: set data\.train_"),
        (
            ["train.json", "b.json"],
            r"that it is the validation set: set data\.val_annotations=FILE and data\.val_images=",
        ),
        (
            ["train.json", "train_2.json", "val.json"],
            r"several files for the training set \(train\.json, train_2\.json\)",
        ),
        (["train.json", "val.json", "valid.json"], r"several files for the validation set .*set data\.val_annotations"),
        (["a.json", "b.json"], r"has a\.json, b\.json, and none that says by its name that it is the training set"),
        (["val.json"], r"has val\.json, and none that says by its name that it is the training set"),
    ],
)
def test_what_is_not_clear_is_asked(tmp_path: Path, files: list[str], sentence: str):
    for name in files:
        put(tmp_path, name, "images")
    with pytest.raises(UserError, match=sentence) as caught:
        found(tmp_path)
    assert isinstance(caught.value, Undivided) == (files == ["all.json"])


@pytest.mark.parametrize(
    ("name", "images", "says_train"),
    [
        ("result.json", "images", False),  # Label Studio
        ("annotations.json", ".", False),  # labelme2coco
        ("annotations/instances_default.json", "images/default", False),  # CVAT
        ("train/_annotations.coco.json", "train", True),
        ("annotations/instances_train2017.json", "train2017", True),
    ],
)
def test_one_file_can_be_divided(tmp_path: Path, name: str, images: str, says_train: bool):
    put(tmp_path, name, images)
    for part in ("train", "val"):
        put(tmp_path, f"{PARTS}/{part}.json", PARTS)  # made of it before
    with pytest.raises(Undivided) as only:
        found(tmp_path)
    caught = only.value
    assert (caught.annotations, caught.images) == (tmp_path / name, tmp_path / images)
    assert caught.says_train == says_train


def test_what_somebody_has_said_stays(tmp_path: Path):
    put(tmp_path, "train/_annotations.coco.json", "train")
    put(tmp_path, "valid/_annotations.coco.json", "valid")
    standard = DataConfig()
    for name in ("train_annotations", "val_images"):
        data = DataConfig(root=str(tmp_path), **{name: "mine"})  # type: ignore[arg-type]
        assert getattr(find(data), name) == "mine"
    for settings in ({"shapes": ShapesConfig(1, 1)}, {"reader": PartConfig("mine:Reader")}):
        assert found(tmp_path, **settings)[0] == standard.train_annotations
    assert find(DataConfig(root=str(tmp_path / "nowhere"))).train_annotations == standard.train_annotations
    put(tmp_path, standard.train_annotations, "train2017")
    assert found(tmp_path)[0] == standard.train_annotations


def test_a_folder_without_annotations_is_left_to_whoever_opens_it(tmp_path: Path):
    assert found(tmp_path)[0] == DataConfig().train_annotations


@pytest.mark.skipif(not REAL.exists(), reason="the real photographs are not beside this repository")
def test_real_folders():
    assert found(REAL / "facade") == ("train/_annotations.coco.json", "train", "valid/_annotations.coco.json", "valid")
    assert found(REAL / "coco_ccby")[0] == "annotations/instances_train2017.json"
