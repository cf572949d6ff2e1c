"""`python -m queryinst.dataset fix`: every kind of fault that is mended, what it becomes, and what is left alone."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import WILD, needs_wild, picture, put, read_all

from queryinst.curation.mend import left, mend
from queryinst.data import validation
from queryinst.data.faults import RULES

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
NAN = float("nan")
Content = dict[str, Any]


def sound() -> Content:
    """Two images, categories 1 and 2, and annotations 1 and 2 of image 1, 3 of image 2."""
    shape = {"bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [list(SQUARE)]}
    objects = [(1, 1, 1), (2, 1, 2), (3, 2, 1)]
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 100, "width": 200} for n in (1, 2)],
        "annotations": [
            {"id": key, "image_id": image, "category_id": category, **copy.deepcopy(shape)}
            for key, image, category in objects
        ],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}],
    }


def mended(content: Content, folder: Path | None = None, **options: bool) -> tuple[Content, list[tuple[str, str]]]:
    """The mended file, which training can read, and kind and place of what was changed."""
    before = copy.deepcopy(content)
    made, changes = mend(content, Path("x.json"), folder, **options)
    assert repr(content) == repr(before), "the original is not touched"
    assert not list(validation.faults(made))
    again, more = mend(made, Path("x.json"), folder, **options)
    assert (again, more.all) == (made, []), "once is enough"
    assert {change.code for change in changes.all} <= {*RULES, "mask-changed"}
    return made, [(change.code, change.where) for change in changes.all]


def test_a_sound_file_stays_as_it_is():
    content = sound()
    assert mended(content) == (content, [])


FIRST = "annotation 1"
RUNS = {"size": [100, 200], "counts": [0, 20, 19980]}

# Kind of fault; fields of annotation 1 that make it; fields that it has afterwards, or None where it is removed.
ONE: list[tuple[str, dict[str, Any], dict[str, Any] | None]] = [
    ("box-values", {"bbox": ["10", "10.0", "20", "20"]}, {"bbox": [10, 10, 20, 20]}),
    ("box-values", {"bbox": [10, NAN, 20, 20]}, {"bbox": [10, 10, 20, 20]}),
    ("box-values", {"bbox": None}, {"bbox": [10, 10, 20, 20]}),
    ("box-negative", {"bbox": [30, 30, -20, -20]}, {"bbox": [10, 10, 20, 20]}),
    ("box-xyxy", {"bbox": [10, 10, 30, 30]}, {"bbox": [10, 10, 20, 20]}),
    ("box-outside", {"bbox": [300, 10, 20, 20]}, {"bbox": [10, 10, 20, 20]}),
    ("box-overhangs", {"bbox": [10, 10, 200, 20]}, {"bbox": [10, 10, 20, 20]}),
    ("mask-far-from-box", {"bbox": [60, 60, 20, 20]}, {"bbox": [10, 10, 20, 20]}),
    ("iscrowd-value", {"iscrowd": "0"}, {"iscrowd": 0}),
    ("iscrowd-value", {"iscrowd": None}, {"iscrowd": 0}),
    ("area-value", {"area": "400"}, {"area": 400}),
    ("area-value", {"area": None}, {"area": 400}),
    ("area-value", {"area": NAN}, {"area": 400}),
    ("area-not-positive", {"area": 0}, {"area": 400}),
    (  # between the centres of pixels: no pixel is its, and its area is what it encloses
        "area-not-positive",
        {"segmentation": [[10.6, 10.6, 10.9, 10.6, 10.9, 10.9, 10.6, 10.8]], "bbox": [10.6, 10.6, 0.3, 0.3], "area": 0},
        {"area": 0.075},
    ),
    ("area-above-box", {"area": 4000}, {"area": 400}),
    ("mask-empty", {"segmentation": []}, None),
    ("mask-kind", {"segmentation": "mask.png"}, None),
    ("polygon-points", {"segmentation": [[10, 10, 30, 10]]}, None),
    ("polygon-points", {"segmentation": [SQUARE, [1, 1]]}, {"segmentation": [SQUARE]}),
    ("polygon-brackets", {"segmentation": SQUARE}, {"segmentation": [SQUARE]}),
    (
        "polygon-brackets",
        {"segmentation": [[[10, 10], [30, 10], [30, 30]]]},
        {"segmentation": [[10, 10, 30, 10, 30, 30]]},
    ),
    ("polygon-values", {"segmentation": [[10, 10, 30, NAN, 30, 30]]}, None),
    ("polygon-values", {"segmentation": [["10", 10, 30, 10, 30, 30]]}, {"segmentation": [[10, 10, 30, 10, 30, 30]]}),
    ("polygon-outside", {"segmentation": [[300, 10, 330, 10, 330, 30]]}, None),
    (
        "polygon-outside",
        {"segmentation": [[180, 10, 220, 10, 220, 30, 180, 30]], "bbox": [180, 10, 40, 20], "area": 800},
        {"segmentation": [[180, 10, 200, 10, 200, 30, 180, 30]], "bbox": [180, 10, 20, 20], "area": 400},
    ),
    ("mask-flat", {"segmentation": [[10, 10, 30, 10, 20, 10]]}, None),
    ("mask-flat", {"segmentation": {"size": [100, 200], "counts": [20000]}}, None),
    ("rle-size", {"segmentation": {"size": [200, 100], "counts": [20000]}}, None),
    ("rle-counts", {"segmentation": {"size": [100, 200], "counts": [5, 5]}}, None),
    ("dangling-image", {"image_id": 9}, None),
    ("unknown-category", {"category_id": 9}, None),
    ("annotation-id-0", {"id": 0}, {"id": 4}),
    ("duplicate-annotation-id", {"id": 3}, {"id": 3}),
]


@pytest.mark.parametrize(("code", "wrong", "right"), ONE, ids=[f"{n} {row[0]}" for n, row in enumerate(ONE)])
def test_one_annotation(code: str, wrong: dict[str, Any], right: dict[str, Any] | None):
    content = sound()
    content["annotations"][0] |= copy.deepcopy(wrong)
    assert code in {fault.code for fault in left(content, Path())}, "the doctor knows it"
    made, changes = mended(content)
    assert code in {change for change, _ in changes}
    assert code not in {fault.code for fault in left(made, Path())}
    if right is None:
        assert {change for change, where in changes if where == FIRST} == {code}
        assert [a["id"] for a in made["annotations"]] == [2, 3]
    else:
        assert made["annotations"][0] == {**sound()["annotations"][0], **wrong, **right} | (
            {"area": 190} if right.get("segmentation") == [[10, 10, 30, 10, 30, 30]] else {}
        )
        others = made["annotations"][1:]
        assert [{**a, "id": 0} for a in others] == [{**a, "id": 0} for a in sound()["annotations"][1:]]
        assert len({a["id"] for a in made["annotations"]}) == 3


def test_a_crowd_region_becomes_an_rle():
    content = sound()
    content["annotations"][0]["iscrowd"] = 1
    made, changes = mended(content)
    assert changes == [("crowd-without-rle", FIRST)]
    assert made["annotations"][0]["segmentation"]["size"] == [100, 200]
    assert (made["annotations"][0]["bbox"], made["annotations"][0]["area"]) == ([10, 10, 20, 20], 400)


def test_crowd_regions_become_objects_where_asked():
    content = sound()
    content["annotations"][0] |= {"iscrowd": 1, "segmentation": RUNS, "bbox": [0, 0, 1, 20], "area": 20}
    assert mended(content) == (content, [])
    made, changes = mended(content, crowd=False)
    assert (made["annotations"][0]["iscrowd"], changes) == (0, [("no-objects", FIRST)])


def test_boxes_become_masks_where_asked():
    content = sound()
    content["annotations"][0] |= {"segmentation": [], "bbox": [190, 10, 20, 20]}
    made, _ = mended(content, boxes=True)
    assert made["annotations"][0]["segmentation"] == [[190, 10, 200, 10, 200, 30, 190, 30]]
    assert (made["annotations"][0]["bbox"], made["annotations"][0]["area"]) == ([190, 10, 10, 20], 200)


def test_fields_that_lack():
    content = sound()
    for key in ("bbox", "id"):
        del content["annotations"][0][key]
    del content["annotations"][1]["segmentation"], content["categories"][0]["name"]
    content["images"].append("x")
    made, changes = mended(content)
    assert [(a["id"], a["bbox"]) for a in made["annotations"]] == [(4, [10, 10, 20, 20]), (3, [10, 10, 20, 20])]
    assert made["categories"][0]["name"] == "class 1"
    assert [code for code, _ in changes].count("missing-field") == 4


def test_ids_as_text_become_numbers_everywhere():
    content = sound()
    for image, key in zip(content["images"], ("b", "2"), strict=True):
        image["id"] = key
    for category in content["categories"]:
        category["id"] = str(category["id"])
    for annotation, key in zip(content["annotations"], ("b", "b", 2), strict=True):
        annotation |= {"image_id": key, "category_id": str(annotation["category_id"])}
        annotation["id"] = str(annotation["id"])
    made, _ = mended(content)
    assert [image["id"] for image in made["images"]] == [3, 2]
    assert [annotation["id"] for annotation in made["annotations"]] == [1, 2, 3]
    assert [(a["image_id"], a["category_id"]) for a in made["annotations"]] == [(3, 1), (3, 2), (2, 1)]


def test_categories_of_one_name_are_joined_and_strange_names_are_text():
    content = sound()
    content["categories"] += [{"id": 3, "name": "car"}, {"id": 4, "name": 7}, {"id": 5, "name": "a\tb"}]
    content["categories"].append(dict(content["categories"][0]))
    content["annotations"][1]["category_id"] = 3
    made, changes = mended(content)
    assert {c["id"]: c["name"] for c in made["categories"]} == {1: "car", 2: "bus", 4: "7", 5: "ab"}
    assert [(a["id"], a["category_id"]) for a in made["annotations"]] == [(1, 1), (3, 1)]
    kinds = {"duplicate-categories-id", "duplicate-category-name", "category-name", "unprintable-category-name"}
    assert {code for code, _ in changes} == kinds | {"duplicate-object"}  # two cars in one place are one


@pytest.mark.parametrize(("start", "shift"), [(0, 1), (2, -1)])
def test_labels_one_beside_are_moved(start: int, shift: int):
    content = sound()
    for annotation in content["annotations"]:
        annotation["category_id"] += start - 1
    made, changes = mended(content)
    assert [a["category_id"] for a in made["annotations"]] == [1, 2, 1]
    assert [code for code, _ in changes] == ["labels-shifted"]


def test_images_that_are_one_file_are_joined(tmp_path: Path):
    content = sound()
    content["images"].append({"id": 7, "file_name": "1.jpg", "height": 100, "width": 200})
    content["images"].append(dict(content["images"][0]))
    content["annotations"][2]["image_id"] = 7
    made, changes = mended(content)
    assert [image["id"] for image in made["images"]] == [1, 2]
    assert [(a["id"], a["image_id"]) for a in made["annotations"]] == [(1, 1), (2, 1)]  # the third is the first again
    assert {code for code, _ in changes} == {"duplicate-file", "duplicate-images-id", "duplicate-object"}


def test_names_and_sizes_are_those_of_the_files(tmp_path: Path):
    for n in (1, 2):
        picture(tmp_path / f"deep/{n}.jpg")
    content = sound()
    content["images"][0] |= {"file_name": "deep\\1.jpg", "width": None}
    content["images"][1] |= {"file_name": "C:\\data\\deep\\2.jpg", "height": "100", "width": 200.0}
    made, changes = mended(content, tmp_path)
    assert [image["file_name"] for image in made["images"]] == ["deep/1.jpg", "deep/2.jpg"]
    assert [(image["height"], image["width"]) for image in made["images"]] == [(100, 200)] * 2
    assert {code for code, _ in changes} == {"file-name-path", "size-field"}
    without, _ = mended(content)  # nobody knows the size of the first
    assert [image["id"] for image in without["images"]] == [2]
    assert [annotation["id"] for annotation in without["annotations"]] == [3]


def test_what_has_no_one_right_way_is_left_and_said(tmp_path: Path, run: Run):
    content = sound()
    content["images"][1]["id"] = 1
    path, to = put(tmp_path / "x.json", content), tmp_path / "y/fixed.json"
    code, said = run("dataset", "fix", str(path), "--to", str(to))
    assert (code, "left: error duplicate-images-id: 1 x [images id 1]" in said) == (1, True), said


def test_the_command_writes_a_file_that_training_reads_and_all_changes(tmp_path: Path, run: Run):
    content = sound()
    for annotation in content["annotations"]:
        annotation["bbox"] = ["10", "10", "20", "20"]
    content["images"][0]["file_name"] = ".\\1.jpg"
    path, to = put(tmp_path / "x.json", content), tmp_path / "fixed.json"
    for n in (1, 2):
        picture(tmp_path / f"images/{n}.jpg")
    before = path.read_bytes()
    code, said = run("dataset", "fix", str(path), "--to", str(to), "--images", str(tmp_path / "images"))
    assert code == 0, said
    assert "box-values: 3 x [annotation 1 has bbox as numbers, not text; annotation 2 has" in said
    listed = json.loads((tmp_path / "fixed.changes.json").read_text())
    assert [one["code"] for one in listed] == ["file-name-path"] + ["box-values"] * 3
    assert listed[0] == {"code": "file-name-path", "where": "image 1", "did": "is 1.jpg"}
    assert len(read_all(to, tmp_path / "images").images) == 2
    assert path.read_bytes() == before
    code, said = run("dataset", "fix", str(path), "--to", str(to))
    assert (code, "fixed.json exists already, and nothing is overwritten" in said) == (2, True), said


@pytest.mark.parametrize("content", [[], {"shapes": []}, 3, {"images": {}, "annotations": [], "categories": []}])
def test_what_is_no_coco_file_is_sent_to_import(content: Any, tmp_path: Path, run: Run):
    path = put(tmp_path / "x.json", content)
    code, said = run("dataset", "fix", str(path), "--to", str(tmp_path / "y.json"))
    assert (code, "is not a COCO annotation file" in said, "queryinst.dataset import" in said) == (2, True, True), said


@needs_wild
@pytest.mark.parametrize(
    ("name", "objects"),
    [
        ("roboflow_plant_valid", 29),  # boxes as text
        ("roboflow_duplicate_names_facade", 72),  # two categories of one name
        ("labelstudio_coco_result", 24),  # backslashes
        ("taco_unofficial", None),  # empty segmentations
        ("roboflow_mixed_empty_seg_cardamage", None),
        ("labelme_official_labelme2coco", None),
    ],
)
def test_files_as_tools_left_them(name: str, objects: int | None, tmp_path: Path):
    assert WILD
    content = json.loads((WILD / f"{name}.json").read_text())
    usable = sum(bool(annotation["segmentation"]) for annotation in content["annotations"])
    made, _ = mended(content)
    assert len(made["annotations"]) == (objects or usable)
    assert not [fault for fault in left(made, tmp_path) if fault.rule.severity == "error"]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(-300, 300),
    st.sampled_from([NAN, float("inf"), 10**30, "1", "1.5", "x", "", "a\\b.jpg", "/a.jpg", [], {}]),
    st.lists(st.one_of(st.integers(-300, 300), st.none(), st.sampled_from(["3", NAN])), max_size=9),
    st.lists(st.lists(st.integers(-50, 250), max_size=9), max_size=3),
    st.fixed_dictionaries(
        {"size": st.just([100, 200]), "counts": st.sampled_from([[20000], [1, 19999], "", "x", [3]])}
    ),
)
PLACES = [(name, key) for name, keys in validation.FIELDS.items() for key in (*keys, "iscrowd", "area", "extra")]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.integers(0, 2), VALUES), min_size=1, max_size=4))
def test_whatever_a_file_holds_it_is_mended_once_and_for_all(strange: list[tuple[tuple[str, str], int, Any]]):
    """No value stops it; what it writes it would not change again; and what it cannot mend is ids of two images."""
    content = sound()
    for (name, key), place, value in strange:
        content[name][place % len(content[name])][key] = copy.deepcopy(value)
    made, _ = mend(content, Path("x.json"))
    again, more = mend(made, Path("x.json"))
    assert repr(again) == repr(made), more.all
    allowed = {"duplicate-images-id", "duplicate-categories-id", "no-images", "no-categories"}
    assert {fault.code for fault in validation.faults(made)} <= allowed
    json.dumps(made)
