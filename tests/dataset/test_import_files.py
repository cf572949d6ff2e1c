"""Where images are and stay, how a format is recognised, and what is said of what cannot be read."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from kit import Imported, picture, put, read_all
from PIL import Image

from queryinst import dataset
from queryinst.formats.recognise import FORMATS, recognise

LABELME = {"shapes": [], "imagePath": "a.png", "imageHeight": 100, "imageWidth": 200}


def yolo(root: Path, label: str = "0 0.1 0.1 0.6 0.1 0.6 0.6\n") -> Path:
    for split in ("train", "val"):
        picture(root / f"images/{split}/deep/a b.jpg", seed=len(split))
        put(root / f"labels/{split}/deep/a b.txt", label)
    put(root / "data.yaml", "path: .\ntrain: images/train\nval: images/val\nnames: [car]\n")
    return root


@pytest.mark.parametrize("files", ["leave", "link", "copy"])
def test_images_stay_or_come_along_and_the_doctor_is_content(files: str, tmp_path: Path, run: Run):
    """The command that `import` ends with is one that works, and finds no error."""
    source = yolo(tmp_path / "yolo [1]")
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    made = Imported(run, source, "--files", files)
    command = made.said.strip().splitlines()[-1].removeprefix("now: ")

    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "queryinst.doctor"]
    code, said = run("doctor", *words[3:])
    assert (code, "clean: 0 errors" in said) == (0, True), said
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    brought = made.root / "images/train/a b.jpg"
    assert brought.exists() == (files != "leave")
    assert brought.is_symlink() == (files == "link")


def test_a_turned_photo_is_annotated_as_tools_show_it(tmp_path: Path, run: Run):
    note = Image.Exif()
    note[0x0112] = 6  # a quarter turn
    root = tmp_path / "yolo"
    picture(root / "images/a.jpg", 200, 100, exif=note)
    put(root / "labels/a.txt", "0 0.1 0.1 0.6 0.1 0.6 0.6")
    code, said = run("dataset", "import", str(root), "--classes", "car", "--to", str(tmp_path / "to"))
    assert (code, "1 images, such as" in said, "--files copy stores them upright" in said) == (2, True, True), said
    made = Imported(run, root, "--classes", "car", "--files", "copy")
    (image,) = made.content["all"]["images"]
    assert (image["width"], image["height"]) == (100, 200)
    assert made.objects()["a.jpg"][0]["bbox"] == [10, 20, 50, 100]
    (read,) = read_all(made.root / "annotations/all.json", made.root / "images/all").images
    with Image.open(root / "images/a.jpg") as stored, Image.open(read.path) as copied:
        difference = np.abs(np.asarray(stored.rotate(-90, expand=True), np.int64) - np.asarray(copied))
    assert difference.mean() < 5


def test_a_turned_photo_that_is_annotated_as_it_is_stored_is_left_so(tmp_path: Path, run: Run):
    note = Image.Exif()
    note[0x0112] = 6
    picture(tmp_path / "lm/a.png", exif=note)
    put(tmp_path / "lm/a.json", LABELME | {"shapes": [{"label": "x", "points": [[1, 1], [150, 1], [150, 9]]}]})
    made = Imported(run, tmp_path / "lm")
    assert made.objects()["a.png"][0]["bbox"] == [1, 1, 149, 8]
    made.read(tmp_path / "lm")


def test_nothing_is_overwritten(tmp_path: Path, run: Run):
    source = yolo(tmp_path / "yolo")
    made = Imported(run, source)
    code, said = run("dataset", "import", str(source), "--to", str(made.root))
    assert (code, "train.json exists already, and nothing is overwritten" in said) == (2, True)


def test_missing_images_are_counted_or_left_out(tmp_path: Path, run: Run):
    root = tmp_path / "lm"
    for name in ("a", "b", "c"):
        shapes = [{"label": "x", "points": [[1, 1], [9, 1], [9, 9]]}]
        content = {"shapes": shapes, "imagePath": f"..\\x\\{name}.png", "imageHeight": 100, "imageWidth": 200}
        put(root / f"{name}.json", content)
    picture(root / "elsewhere/b.png")
    code, said = run("dataset", "import", str(root), "--to", str(tmp_path / "to"))
    assert code == 2
    assert f"2 images of {root} are not below {root}: '../x/a.png', '../x/c.png'; say where" in said
    made = Imported(run, root, "--skip-missing")
    assert list(made.objects()) == ["b.png"]
    assert "2 x images left out, since they are not there: '../x/a.png', '../x/c.png'" in made.said


def test_an_image_that_is_annotated_twice_is_not_guessed(tmp_path: Path, run: Run):
    for name in ("old", "new"):
        put(tmp_path / f"lm/{name}.json", LABELME | {"shapes": [{"label": "x", "points": [[1, 1], [9, 1], [9, 9]]}]})
    picture(tmp_path / "lm/a.png")
    code, said = run("dataset", "import", str(tmp_path / "lm"), "--to", str(tmp_path / "to"))
    assert (code, "1 images are annotated more than once, such as" in said, said.count("a.png")) == (2, True, 1), said
    Imported(run, tmp_path / "lm/new.json")


def test_from_labels_without_splits_to_a_data_set_that_the_doctor_finds_clean(tmp_path: Path, run: Run):
    """Every command is the one that the one before has told."""
    root = tmp_path / "my labels"
    for number in range(10):
        picture(root / f"{number}.png", seed=number)
        shapes = [{"label": "xy"[number % 2], "points": [[1, 1], [90, 1], [90, 90]]}]
        put(root / f"{number}.json", LABELME | {"imagePath": f"{number}.png", "shapes": shapes})
    said = Imported(run, root).said
    for verb in ("dataset", "doctor"):
        words = shlex.split(said.strip().splitlines()[-1])
        assert words[:4] == ["now:", "python", "-m", f"queryinst.{verb}"]
        code, said = run(verb, *words[4:])
        assert code == 0, said
    assert "coco val: 2 images, 2 annotations, 2 objects, 2 categories" in said
    assert "clean: 0 errors, 0 warnings" in said


def test_one_name_in_two_folders_is_not_guessed(tmp_path: Path, run: Run):
    content = {"shapes": [], "imagePath": "a.png", "imageHeight": 100, "imageWidth": 200}
    put(tmp_path / "lm/labels/a.json", content)
    for folder in ("x", "y"):
        picture(tmp_path / f"lm/images/{folder}/a.png")
    code, said = run("dataset", "import", str(tmp_path / "lm"), "--to", str(tmp_path / "to"))
    assert (code, "'a.png' may be" in said) == (2, True)


EMPTY: dict[str, tuple[str, Any]] = {
    "cityscapes": ("a_gtFine_polygons.json", {"imgHeight": 1, "imgWidth": 1, "objects": []}),
    "yolo": ("data.yaml", "names: [a]"),
    "cvat": ("a.xml", "<annotations/>"),
    "instance_maps": ("instances/a.png", ""),
    "labelme": ("a.json", {"shapes": [], "imagePath": "a.png"}),
    "via": ("a.json", {"a": {"filename": "a.png", "regions": []}}),
    "label_studio": ("a.json", [{"data": {}, "annotations": []}]),
}


@pytest.mark.parametrize("name", EMPTY)
def test_a_format_is_recognised_by_what_is_in_it(name: str, tmp_path: Path):
    assert FORMATS.keys() == EMPTY.keys() == set(dataset.FORMATS.replace(" or", ",").split(", "))
    path = put(tmp_path / EMPTY[name][0], EMPTY[name][1])
    assert name == recognise(tmp_path).NAME
    if name != "instance_maps":
        assert name == recognise(path).NAME


@pytest.mark.parametrize(
    ("files", "arguments", "sentence"),
    [
        ({}, [], "does not exist; wanted a file or folder of annotations"),
        ({"a.txt": "x"}, [], "is of no format that is known; wanted cityscapes: Cityscapes"),
        (
            {"a.json": {"images": [], "annotations": [], "categories": []}},
            [],
            "is in COCO's format, which training reads",
        ),
        (
            {"a.xml": "<annotations/>", "data.yaml": "names: [a]"},
            [],
            "looks like yolo and cvat; say which with --format",
        ),
        ({"a.json": LABELME}, ["--format", "labelmee"], "'labelmee' is not known; did you mean 'labelme'?"),
        (
            {"a.json": LABELME | {"imageWidth": 10}},
            [],
            "a.png is 200x100, but its annotations are of an image of 10x100",
        ),
        (
            {"a.json": LABELME | {"shapes": [{"label": "x"}]}},
            [],
            "a.json, shape 0, has no label and points; wanted both",
        ),
        (
            {"a.json": LABELME | {"shapes": [{"label": "x", "points": [[1, "y"]] * 3}]}},
            [],
            "a.json, shape 0, has y 'y'; wanted a finite number, of at most 1000000",
        ),
        (
            {"a.json": LABELME | {"shapes": [{"label": "x", "points": [[1, 2], [3, 4]], "shape_type": "mask"}]}},
            [],
            "a.json, shape 0, is a mask that cannot be decoded",
        ),
        ({"a.json": "{"}, [], "a.json cannot be read as JSON"),
        ({"a.xml": "<annotations>"}, [], "a.xml cannot be read as XML"),
        ({"a.xml": "<annotations><track/></annotations>"}, [], "has tracks of a video"),
        (
            {"a.xml": '<annotations><image name="a.png" width="200" height="x"/></annotations>'},
            [],
            "image a.png, has height 'x'; wanted a finite number, of at most 1000000",
        ),
        ({"data.yaml": "names: [a]\ntrain: x"}, [], "data.yaml names x, which is not there; looked for"),
        ({"data.yaml": "names: [a"}, [], "data.yaml cannot be read as YAML"),
        ({"labels/a.txt": "0 1 1 1 1"}, [], "has no data.yaml and no classes.txt: name the classes with --classes"),
        ({"labels/a.txt": "3 1 1 1 1"}, ["--classes", "x"], "a.txt, line 1, has class 3, but 1 classes are named"),
        ({"labels/a.txt": "0 1 1 1"}, ["--classes", "x"], "a.txt, line 1, has 3 numbers after the class; wanted 4"),
        ({"labels/a.txt": "0 1 a 1 1"}, ["--classes", "x"], "a.txt, line 1, is not all numbers: '0 1 a 1 1'"),
        (
            {"a.json": {"a": {"filename": "a.png", "regions": [{"shape_attributes": {"name": "rect", "x": 1}}]}}},
            [],
            "region 0, has y 'None'; wanted a finite number, of at most 1000000",
        ),
        (
            {"a.json": {"a": {"filename": "a.png", "regions": []}}},
            ["--attribute", "kind"],
            "no region has the attribute 'kind'; there are none",
        ),
    ],
)
def test_what_is_said_of_what_cannot_be_read(
    files: dict[str, Any], arguments: list[str], sentence: str, tmp_path: Path, run: Run
):
    for name, content in files.items():
        put(tmp_path / "x" / name, content)
    if files:
        picture(tmp_path / "x/a.png")
    code, said = run("dataset", "import", str(tmp_path / "x"), "--to", str(tmp_path / "to"), *arguments)
    assert (code, sentence in said) == (2, True), said
    assert said.count("\n") == 1
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("instances/a.png", "images/a.png is 20x6, but its annotations are of an image of 30x6"),
        ("classes/a.png", "classes/a.png is 30x6, but"),
        ("nothing", "an object of"),
    ],
)
def test_maps_are_as_large_as_their_image_and_have_classes_that_are_named(
    wrong: str, sentence: str, tmp_path: Path, run: Run
):
    root = tmp_path / "maps"
    picture(root / "images/a.png", 20, 6)
    for name in ("instances/a.png", "classes/a.png"):
        (root / name).parent.mkdir()
        Image.new("L", (30 if name == wrong else 20, 6), 3).save(root / name)
    given = ["import", str(root), "--to", str(tmp_path / "to"), "--classes", "x", "y"]
    code, said = run("dataset", *given)
    assert (code, sentence in said) == (2, True), said


def test_what_has_no_pixel_is_left_out_and_said(tmp_path: Path, run: Run):
    """Two points, a place outside the image, and values that are no number: none of them stops the rest."""
    root = tmp_path / "lm"
    picture(root / "a.png")
    outlines = [[[1, 1], [5, 1]], [[300, 1], [305, 1], [305, 9]], [[1, 1], [50, 1], [50, 9]]]
    shapes = [{"label": "x", "points": points, "shape_type": "polygon"} for points in outlines]
    put(root / "a.json", LABELME | {"shapes": shapes})
    made = Imported(run, root)
    assert [thing["segmentation"] for thing in made.objects()["a.png"]] == [[[1, 1, 50, 1, 50, 9]]]
    assert "1 x outlines of fewer than three points" in made.said
    assert "1 x objects without a pixel inside their image" in made.said
    assert json.loads((made.root / "annotations/all.json").read_text())["annotations"][0]["id"] == 1
