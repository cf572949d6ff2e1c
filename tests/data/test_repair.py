"""What annotation tools write in ways of their own: it is read as it is meant, or said for what it is."""

import copy
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from queryinst.data.coco import CocoFile, EncodingError, read_json
from queryinst.data.doctor_annotations import examine
from queryinst.data.faults import Findings
from queryinst.data.images import ImageFile, check_header, read_image
from queryinst.data.names import existing
from queryinst.data.repair import repair
from queryinst.errors import UserError

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
POINTS = [[10, 10], [30, 10], [30, 30], [10, 30]]
RLE = {"size": [40, 50], "counts": [500, 20, 1480]}


def content(**changes: Any) -> dict[str, Any]:
    annotation = {"id": 7, "image_id": 5, "category_id": 9, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}
    return {
        "images": [{"id": 5, "file_name": "a.png", "height": 40, "width": 50}],
        "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{**annotation, "segmentation": [SQUARE], **changes}],
    }


def read(folder: Path, data: Any, **settings: Any) -> CocoFile:
    path = folder / "x.json"
    path.write_text(json.dumps(data))
    return CocoFile(path, folder, **settings)


def test_a_file_as_coco_has_it_stays_as_it_is():
    data = content()
    data["annotations"].append({**data["annotations"][0], "id": 8, "iscrowd": 1, "segmentation": RLE})
    before = copy.deepcopy(data)
    assert repair(data) == []
    assert data == before


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (SQUARE, [SQUARE]),
        ([str(value) for value in SQUARE], [SQUARE]),
        (POINTS, [SQUARE]),
        ([POINTS], [SQUARE]),
        ([[SQUARE]], [SQUARE]),
        ([POINTS, [[1, 1], [5, 1], [5, 5]]], [SQUARE, [1, 1, 5, 1, 5, 5]]),
        ([[str(value) for value in SQUARE]], [SQUARE]),
        ([SQUARE, [1, 1, 2, 2], [3, 3]], [SQUARE]),
        ([RLE], RLE),
        ({**RLE, "size": ["40", "50"]}, RLE),
    ],
)
def test_brackets_of_masks(tmp_path: Path, given: Any, wanted: Any):
    source = read(tmp_path, content(segmentation=given))
    (annotation,) = source.annotations(source.images[0])
    assert annotation["segmentation"] == wanted


@pytest.mark.parametrize("given", [[SQUARE, POINTS[0], [POINTS]], [[[1, 2], 3]], [RLE, RLE], [POINTS[0], POINTS[1]]])
def test_brackets_that_may_mean_several_things_are_said_and_the_mask_is_not_blamed(tmp_path: Path, given: Any):
    with pytest.raises(
        UserError, match=r"annotation 7 of image 5 has .*wanted (\[\[x, y, x, y|x, y of three)"
    ) as raised:
        read(tmp_path, content(segmentation=given))
    assert "remove" not in str(raised.value)


def test_numbers_as_text(tmp_path: Path):
    data = content(image_id="5", category_id="9", id="7", bbox=["10", 10.0, "20.5", "2e1"], area="400", iscrowd="0")
    data["images"][0] |= {"id": "5", "height": "40", "width": 50.0}
    data["categories"][0]["id"] = "9"
    notes = repair(copy.deepcopy(data))
    assert {code for code, _ in notes} == {"number-as-text"}
    source = read(tmp_path, data)
    assert source.images[0] == ImageFile(5, tmp_path / "a.png", 40, 50)
    assert source.categories.ids == (2, 9)
    instances = source.instances(source.images[0])
    assert instances.boxes.tolist() == [[10, 10, 30.5, 30]]
    assert instances.labels.tolist() == [1]


@pytest.mark.parametrize("key", ["five", "5a", "1.5", "", "\u0665"])
def test_text_that_is_no_number_is_no_id(tmp_path: Path, key: str):
    data = content()
    data["images"][0]["id"] = key
    with pytest.raises(UserError, match="images: an id is '.*'; ids must be whole numbers"):
        read(tmp_path, data)


def test_crowd_regions_are_objects_where_the_user_says_so(tmp_path: Path):
    data = content(iscrowd=1, segmentation=RLE)
    source = read(tmp_path, data)
    assert source.learnable(source.images[0]) == []
    assert source.index.summary().crowds == 1
    source = read(tmp_path, data, crowd="objects")
    assert [annotation["iscrowd"] for annotation in source.learnable(source.images[0])] == [0]
    assert source.index.summary().crowds == 0


def test_coordinates_that_are_fractions_are_said(tmp_path: Path):
    small = [value / 50 for value in SQUARE]
    for changes, what in (({"bbox": [0.2, 0.2, 0.4, 0.4]}, "boxes"), ({"segmentation": [small]}, "polygons")):
        with pytest.raises(UserError, match=f"all {what} lie between 0 and 1, which is fractions of the image"):
            read(tmp_path, content(**changes))
    data = content(bbox=[0, 0, 1, 1], segmentation=[[0, 0, 1, 0, 1, 1]])
    assert read(tmp_path, data).index.summary().annotations == 1, "an object of a pixel"


def test_a_root_category_with_the_name_of_a_class_is_left_out(tmp_path: Path):
    data = content(category_id=3)
    data["categories"] = [
        {"id": 0, "name": "facade", "supercategory": "none"},
        {"id": 3, "name": "facade", "supercategory": "facade"},
    ]
    assert read(tmp_path, data).categories.ids == (3,)
    assert repair(data) == [("category-root", "category 0 (facade)")]
    used = content(category_id=0) | {"categories": [{"id": 0, "name": "x"}, {"id": 3, "name": "x"}]}
    with pytest.raises(UserError, match="two categories are called 'x'"):
        read(tmp_path, used)


def test_boxes_without_masks_are_read(tmp_path: Path):
    for mask in ([], None, ...):
        data = content(segmentation=mask)
        if mask is ...:
            del data["annotations"][0]["segmentation"]
        source = read(tmp_path, data)
        assert source.index.summary().unmasked == 1
        instances = source.instances(source.images[0])
        regions = instances.regions(40, 50, 8)
        assert (instances.draw(regions, 8, 40, 50) == 2).all()


NAMES = [
    ("é.png", unicodedata.normalize("NFD", "é.png")),
    (unicodedata.normalize("NFD", "é.png"), "é.png"),
    ("sub/a.png", "sub\\a.png"),
    ("a.png", "train/a.png"),
    ("a.png", "images\\train\\a.png"),
    ("a b.png", "a%20b.png"),
    ("a%20b.png", "a b.png"),
    ("é b.png", f"train\\{unicodedata.normalize('NFD', 'é')}%20b.png"),
]


@pytest.mark.parametrize(("there", "called"), NAMES)
def test_files_that_are_called_otherwise_are_found(tmp_path: Path, there: str, called: str):
    folder = tmp_path / "images" / "train"
    path = folder / there
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((4, 6, 3), 9, np.uint8)).save(path)
    assert existing(folder / called) == path
    image = ImageFile(1, folder / called, 4, 6)
    check_header(image)
    assert (read_image(image) == 9).all()
    assert existing(folder / "b.png") == folder / "b.png", "nothing is made up"


@pytest.mark.parametrize("encoding", ["gbk", "latin-1"])
def test_a_file_in_another_encoding_is_said(tmp_path: Path, encoding: str):
    path = tmp_path / "x.json"
    text = {"gbk": "车", "latin-1": "é"}[encoding]
    path.write_bytes(json.dumps({"name": text}, ensure_ascii=False).encode(encoding))
    with pytest.raises(EncodingError, match=r"is not text in UTF-8: byte 0x.. at 10; if it is in GBK or Latin-1, save"):
        read_json(path, "")
    for known in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(json.dumps({"name": text}, ensure_ascii=False).encode(known))
        assert read_json(path, "") == {"name": text}


def test_an_annotation_of_nothing_is_left_out(tmp_path: Path):
    data = content()
    infinite = float("inf")
    for key, box in ((8, [infinite, infinite, -infinite, -infinite]), (9, []), (10, None)):
        data["annotations"].append({**data["annotations"][0], "id": key, "bbox": box, "segmentation": []})
    source = read(tmp_path, data)
    assert [annotation["id"] for annotation in source.annotations(source.images[0])] == [7]
    assert [where for code, where in repair(data) if code == "annotation-empty"] == [
        "annotation 8", "annotation 9", "annotation 10",
    ]  # fmt: skip


WILD = Path(__file__).parents[3] / "shared" / "real" / "wild"
ANSWERS = {  # what the doctor finds by kind, and the objects that it counts
    "coco_person_keypoints_mini": (21, {"image-without-objects": 6}),
    "cvat_brushmasks_rle_logseg": (
        0, {"crowd-many": 1, "no-objects": 1, "category-unused": 1, "image-without-objects": 4},
    ),
    "cvat_polygons_plant": (10, {}),
    "labelme2coco_py_nuts": (27, {}),
    "labelme_native": (0, {"other-format": 1}),
    "labelme_official_labelme2coco": (12, {"annotation-id-0": 1, "category-unused": 15}),
    "labelstudio_coco_result": (24, {"annotation-id-0": 1, "file-name-path": 6}),
    "labelstudio_native_polygons_testdata": (0, {"other-format": 1}),
    "lvis_val_100": (21, {"category-unused": 32}),
    "roboflow_duplicate_names_facade": (72, {"annotation-id-0": 1, "category-root": 1, "category-unused": 2}),
    "roboflow_mixed_empty_seg_cardamage": (34, {"mask-empty": 17, "category-parent": 1, "category-unused": 4}),
    "roboflow_plant_valid": (29, {"number-as-text": 29, "category-parent": 1}),
    "taco_unofficial": (46, {"annotation-empty": 12, "category-unused": 39, "image-without-objects": 5}),
    "via1_balloon_val": (0, {"other-format": 1}),
    "via2_project": (0, {"other-format": 1}),
    "youtubevis_mmtracking_demo": (1, {}),
}  # fmt: skip


@pytest.mark.skipif(not WILD.is_dir(), reason=f"{WILD} is not here: files that tools and people have left")
@pytest.mark.parametrize("name", ANSWERS)
def test_files_as_tools_leave_them(name: str):
    data = json.loads((WILD / f"{name}.json").read_bytes())
    findings = Findings()
    for code, where in repair(data):
        findings.add("train", code, where)
    survey = examine(data, Path(), "train", findings, 32, False)
    assert (survey.used.total(), {finding.code: finding.times for finding in findings}) == ANSWERS[name]


@pytest.mark.skipif(not WILD.is_dir(), reason=f"{WILD} is not here: files that tools and people have left")
def test_brushed_masks_are_objects_where_that_is_said():
    data = json.loads((WILD / "cvat_brushmasks_rle_logseg.json").read_bytes())
    repair(data, "objects")
    assert examine(data, Path(), "train", Findings(), 32, False).used.total() == 5


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"shapes": [], "imagePath": "a.jpg"}, "labelme"),
        ({"_via_img_metadata": {}}, "VIA"),
        ({"a.jpg5": {"filename": "a.jpg", "regions": []}}, "VIA"),
        ([{"id": 1, "data": {}, "annotations": []}], "Label Studio"),
        ([{"image": "a.jpg", "annotations": []}], "CreateML"),
    ],
)
def test_formats_of_other_tools_are_named(tmp_path: Path, data: Any, name: str):
    with pytest.raises(UserError, match=rf"is in .*{name}.*, and COCO is wanted: `python -m queryinst.dataset import`"):
        read(tmp_path, data)
    with pytest.raises(UserError, match="is in a list of COCO results, which are predictions"):
        read(tmp_path, [{"image_id": 1, "score": 0.5}])
    with pytest.raises(UserError, match="is not a COCO annotation file"):
        read(tmp_path, {"data": 1})
