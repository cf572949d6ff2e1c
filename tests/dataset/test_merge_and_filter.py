"""`python -m queryinst.dataset merge` and `filter`."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from kit import picture, put, read_all

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def coco(
    categories: dict[int, str], objects: list[tuple[int, int]], names: dict[int, str], **fields: Any
) -> dict[str, Any]:
    """`objects`: image and category of each; `names`: file name of each image."""
    shape = {"bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [SQUARE]}
    return {
        "images": [{"id": key, "file_name": name, "height": 100, "width": 200} for key, name in names.items()],
        "annotations": [
            {"id": 50 - n, "image_id": image, "category_id": category, **shape}
            for n, (image, category) in enumerate(objects)
        ],
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
        **fields,
    }


def seen(content: dict[str, Any]) -> list[tuple[str, str]]:
    """File and class of every object."""
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    return [(files[a["image_id"]], names[a["category_id"]]) for a in content["annotations"]]


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """Two files that number the same classes in other ways, in folders of their own with images of the same names."""
    one = coco({3: "car", 7: "bus"}, [(1, 3), (1, 7), (2, 3)], {1: "a.jpg", 2: "b.jpg"})
    other = coco({0: "bus", 3: "kite"}, [(1, 0), (1, 3)], {1: "a.jpg"})
    for folder, content in (("x", one), ("y", other)):
        put(tmp_path / folder / "all.json", content)
        for image in content["images"]:
            picture(tmp_path / folder / "images" / image["file_name"])
    return [str(tmp_path / folder / "all.json") for folder in "xy"]


def test_categories_are_joined_by_name_and_files_by_folder(pair: list[str], tmp_path: Path, run: Run):
    before = [Path(path).read_bytes() for path in pair]
    folders = [str(Path(path).parent / "images") for path in pair]
    to = tmp_path / "z/both.json"
    code, said = run("dataset", "merge", *pair, "--images", *folders, "--to", str(to))
    assert code == 0, said
    content = json.loads(to.read_text())
    assert {c["id"]: c["name"] for c in content["categories"]} == {3: "car", 7: "bus", 8: "kite"}
    a, b, c = "x/images/a.jpg", "x/images/b.jpg", "y/images/a.jpg"
    assert seen(content) == [(a, "car"), (a, "bus"), (b, "car"), (c, "bus"), (c, "kite")]
    assert [image["id"] for image in content["images"]] == [1, 2, 3]
    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2, 3, 4, 5]
    assert f"file names are from {tmp_path}, which is the folder of the images now" in said
    assert f"{pair[0]} does not know 'kite': if its images show them, they count as background" in said
    assert len(read_all(to, tmp_path).images) == 3
    assert [Path(path).read_bytes() for path in pair] == before


def test_one_name_in_two_files_is_said_and_joined_where_asked(pair: list[str], tmp_path: Path, run: Run):
    to = tmp_path / "both.json"
    code, said = run("dataset", "merge", *pair, "--to", str(to))
    assert (code, "1 file names are of more than one image: 'a.jpg'; if they are different" in said) == (2, True), said
    assert not to.exists()
    code, said = run("dataset", "merge", *pair, "--to", str(to), "--join")
    assert (code, "1 images of one name were joined: 'a.jpg'" in said) == (0, True), said
    content = json.loads(to.read_text())
    names = ["car", "bus", "bus", "kite"]
    assert [name for file, name in seen(content) if file == "a.jpg"] == names
    assert len(content["images"]) == 2
    read_all(to, tmp_path / "x/images")


def test_joined_images_have_one_size(pair: list[str], tmp_path: Path, run: Run):
    other = json.loads(Path(pair[1]).read_text())
    other["images"][0]["width"] = 300
    Path(pair[1]).write_text(json.dumps(other))
    code, said = run("dataset", "merge", *pair, "--to", str(tmp_path / "both.json"), "--join")
    assert (code, "'a.jpg' is 200x100 in one file and 300x100 in" in said) == (2, True), said


def test_licences_and_names_that_nearly_agree(tmp_path: Path, run: Run):
    free, other = {"id": 1, "name": "CC BY", "url": "u"}, {"id": 5, "name": "CC0", "url": "v"}
    one = coco({1: "car"}, [(1, 1)], {1: "a.jpg"}, licenses=[free])
    two = coco({1: "Car"}, [(1, 1)], {1: "b.jpg", 2: "c.jpg"}, licenses=[other, free | {"id": 9}])
    one["images"][0]["license"], two["images"][0]["license"], two["images"][1]["license"] = 1, 9, 5
    paths = [str(put(tmp_path / f"{n}.json", content)) for n, content in enumerate((one, two))]
    code, said = run("dataset", "merge", *paths, "--to", str(tmp_path / "both.json"))
    content = json.loads((tmp_path / "both.json").read_text())
    assert content["licenses"] == [free, other | {"id": 2}]
    assert [image["license"] for image in content["images"]] == [1, 1, 2]
    assert (code, "names differ only in capitals or spaces: 'car', 'Car'" in said) == (0, True), said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{0}"], "there is one file to join; give two or more"),
        (["{0}", "{1}", "--images", "x"], "--images has 1 folders for 2 files"),
        (["{0}", "{1}", "--images", "nowhere", "x"], "nowhere is not a folder; expected the images of"),
        (["{0}", "{1}x"], "all.jsonx does not exist"),
    ],
)
def test_what_cannot_be_merged(arguments: list[str], sentence: str, pair: list[str], tmp_path: Path, run: Run):
    code, said = run("dataset", "merge", *[word.format(*pair) for word in arguments], "--to", str(tmp_path / "z.json"))
    assert (code, sentence in said, said.count("\n")) == (2, True, 1), said


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Image 1: a car of 400 pixels and one of 6; 2: a bus; 3: nothing; 4: a crowd of cars; 5: small, with a car."""
    objects = [(1, 1), (1, 1), (2, 2), (4, 1), (5, 1)]
    content = coco({1: "car", 2: "bus", 3: "kite"}, objects, {n: f"{n}.jpg" for n in range(1, 6)}, info={"year": 1})
    content["annotations"][1] |= {"bbox": [5, 5, 3, 2], "segmentation": [[5, 5, 8, 5, 8, 7, 5, 7]]}
    del content["annotations"][1]["area"]
    content["annotations"][3] |= {"iscrowd": 1, "segmentation": {"size": [100, 200], "counts": [0, 20, 19980]}}
    content["images"][4] |= {"height": 40, "width": 300}
    for image in content["images"]:
        picture(tmp_path / "images" / image["file_name"], image["width"], image["height"])
    return put(tmp_path / "all.json", content)


@pytest.mark.parametrize(
    ("arguments", "images", "annotations", "classes", "said"),
    [
        ([], [1, 2, 3, 4, 5], [50, 49, 48, 47, 46], 3, ""),
        (["--classes", "bus", "kite"], [1, 2, 3, 4, 5], [48], 2, "left out: 4 annotations of other classes"),
        (["--without", "bus"], [1, 2, 3, 4, 5], [50, 49, 47, 46], 2, "left out: 1 classes"),
        (["--classes", "bus", "--no-empty"], [2], [48], 1, "left out: 4 images without objects"),
        (["--min-area", "7"], [1, 2, 3, 4, 5], [50, 48, 47, 46], 3, "left out: 1 objects below 7 pixels"),
        (["--min-area", "6"], [1, 2, 3, 4, 5], [50, 49, 48, 47, 46], 3, ""),
        (
            ["--min-side", "2.5"],
            [1, 2, 3, 4, 5],
            [50, 48, 47, 46],
            3,
            "left out: 1 objects with a side below 2.5 pixels",
        ),
        (["--no-crowd"], [1, 2, 3, 4, 5], [50, 49, 48, 46], 3, "left out: 1 crowd regions"),
        (["--no-empty"], [1, 2, 5], [50, 49, 48, 46], 3, "left out: 2 images without objects"),
        (["--min-image-side", "41"], [1, 2, 3, 4], [50, 49, 48, 47], 3, "left out: 1 annotations of these images"),
    ],
)
def test_filter_keeps_what_is_asked_for(
    arguments: list[str], images: list[int], annotations: list[int], classes: int, said: str, mixed: Path, run: Run
):
    before, to = mixed.read_bytes(), mixed.with_name("part.json")
    code, out = run("dataset", "filter", str(mixed), "--to", str(to), *arguments)
    assert (code, said in out) == (0, True), out
    assert said or "left out" not in out
    content = json.loads(to.read_text())
    assert [image["id"] for image in content["images"]] == images
    assert [annotation["id"] for annotation in content["annotations"]] == annotations
    assert (len(content["categories"]), content["info"]) == (classes, {"year": 1})
    given = json.loads(before)
    assert all(entry in given[name] for name in ("images", "annotations", "categories") for entry in content[name])
    read_all(to, mixed.parent / "images")
    assert mixed.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--classes", "cars"], "there is no class 'cars'; did you mean 'car'?; there are bus, car, kite"),
        (["--classes", "car", "--without", "car"], "no class is left; name others"),
        (["--min-image-side", "1000"], "no image is left; ask for less"),
    ],
)
def test_what_cannot_be_filtered(arguments: list[str], sentence: str, mixed: Path, run: Run):
    to = mixed.with_name("part.json")
    code, said = run("dataset", "filter", str(mixed), "--to", str(to), *arguments)
    assert (code, sentence in said, said.count("\n"), to.exists()) == (2, True, 1, False), said
