"""Each format, written by hand and imported: the same classes, polygons, boxes and pixels come out."""

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from kit import WILD, Imported, bitmap, names_and_polygons, needs_wild, picture, put
from PIL import Image

from queryinst.formats.found import ellipse, rectangle

MASK = np.zeros((6, 20), np.uint8)
MASK[1:3, 2:5] = MASK[4, 10:19] = MASK[5, 0] = 1
# MASK as an opaque brush, packed by label-studio-converter 0.0.59 (mask2rle).
BRUSH = [0, 0, 1, 224, 57, 27, 254, 87, 0, 183, 255, 144, 192, 45, 255, 235, 48, 12, 71, 255, 24, 4, 127, 249, 44, 0]


def test_yolo_with_splits_polygons_and_boxes(tmp_path: Path, run: Run):
    root = tmp_path / "yolo"
    put(
        root / "data.yaml",
        "path: .\ntrain: images/train\nval: [images/valid]\ntest:\nnames: {0: car, 1: bus, 2: kite}\n",
    )
    picture(root / "images/train/a.jpg")
    picture(root / "images/train/deep/empty.png")
    picture(root / "images/valid/b.jpg", 50, 40)
    put(root / "labels/train/a.txt", "1 0.1 0.1 0.6 0.1 0.6 0.6\n\n0 0.5 0.5 0.25 0.1\n")
    put(root / "labels/valid/b.txt", "2 0 0 1 0 1 1 0 1\n")
    made = Imported(run, root)
    assert "YOLO" in made.said
    assert [(c["id"], c["name"]) for c in made.content["train"]["categories"]] == [(1, "car"), (2, "bus"), (3, "kite")]
    assert made.content["val"]["categories"] == made.content["train"]["categories"]
    bus, car = made.objects("train")["a.jpg"]
    assert (bus["name"], bus["segmentation"], bus["bbox"]) == ("bus", [[20, 10, 120, 10, 120, 60]], [20, 10, 100, 50])
    assert (car["name"], car["bbox"], car["area"]) == ("car", [75, 45, 50, 10], 500)
    assert car["segmentation"] == [[75, 45, 125, 45, 125, 55, 75, 55]]
    assert made.objects("train")["deep/empty.png"] == []
    assert "1 x images have no file of labels" in made.said
    assert names_and_polygons(made.objects("val")["b.jpg"]) == [("kite", [[0, 0, 50, 0, 50, 40, 0, 40]])]
    assert "1 x objects are boxes only" in made.said
    assert len(made.read(root / "images/train", "train").images) == 2


def test_yolo_without_yaml_and_without_boxes(tmp_path: Path, run: Run):
    root = tmp_path / "yolo"
    picture(root / "images/a.jpg")
    put(root / "labels/a.txt", "0 0.5 0.5 0.25 0.1\n1 0 0 0.5 0 0.5 1\n")
    made = Imported(run, root, "--classes", "x", "y", "--no-boxes")
    assert names_and_polygons(made.objects()["a.jpg"]) == [("y", [[0, 0, 100, 0, 100, 100]])]
    assert "1 x objects left out, since they are boxes only" in made.said


def test_yolo_as_roboflow_writes_it(tmp_path: Path, run: Run):
    root = tmp_path / "yolo"
    put(root / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['nut']\n")
    for split in ("train", "valid"):
        picture(root / split / "images/a.jpg")
        put(root / split / "labels/a.txt", "0 0.1 0.1 0.6 0.1 0.6 0.6")
    made = Imported(run, root / "data.yaml")
    assert {split: len(content["annotations"]) for split, content in made.content.items()} == {"train": 1, "val": 1}


def labelme(shapes: list[dict[str, Any]], name: str = "a.png", width: int = 20, height: int = 6) -> dict[str, Any]:
    return {"version": "5.5", "shapes": shapes, "imagePath": name, "imageHeight": height, "imageWidth": width}


def shape(label: str, points: list[list[float]], kind: str = "polygon", group: int | None = None) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": group}


def test_labelme_with_all_its_shapes(tmp_path: Path, run: Run):
    picture(tmp_path / "lm/a.png", 20, 6)
    stored = io.BytesIO()
    Image.fromarray(MASK[1:5, 2:19].astype(bool)).save(stored, "PNG")
    brush = shape("cat", [[2, 1], [18, 4]], "mask") | {"mask": base64.b64encode(stored.getvalue()).decode()}
    shapes = [
        shape("dog", [[1.25, 1], [5, 1], [5, 3.5]]),
        shape("cat", [[9, 5], [4, 2]], "rectangle"),
        shape("dog", [[10, 3], [10, 5]], "circle"),
        shape("cat", [[0, 0], [3, 0], [3, 3]], group=1),
        shape("dog", [[0, 0], [3, 0], [3, 3]], group=1),
        shape("cat", [[8, 0], [11, 0], [11, 3]], group=1),
        brush,
        shape("cat", [[0, 0], [3, 0]], "line"),
    ]
    put(tmp_path / "lm/a.json", labelme(shapes))
    made = Imported(run, tmp_path / "lm")
    first, box, circle, cat, dog, painted = made.objects()["a.png"]
    assert (first["name"], first["segmentation"]) == ("dog", [[1.25, 1, 5, 1, 5, 3.5]])
    assert (box["name"], box["bbox"]) == ("cat", [4, 2, 5, 3])
    assert circle["bbox"] == pytest.approx([8, 1, 4, 4], abs=0.06)
    assert circle["area"] == pytest.approx(math.pi * 4, abs=2)
    assert (cat["name"], cat["segmentation"]) == ("cat", [[0, 0, 3, 0, 3, 3], [8, 0, 11, 0, 11, 3]])
    assert (dog["name"], dog["segmentation"]) == ("dog", [[0, 0, 3, 0, 3, 3]])
    wanted = MASK.copy()
    wanted[5] = 0
    assert (bitmap(painted["segmentation"]) == wanted).all()
    assert painted["bbox"] == [2, 1, 17, 4]
    assert "1 x shapes of the kind line left out" in made.said
    assert len(made.read(tmp_path / "lm").categories) == 2


@needs_wild
def test_labelme_as_it_was_left(tmp_path: Path, run: Run):
    assert WILD
    source = WILD / "labelme_native.json"
    put(tmp_path / "lm/a.json", source.read_text())

    content = json.loads(source.read_text())
    picture(tmp_path / "lm" / content["imagePath"], content["imageWidth"], content["imageHeight"])
    made = Imported(run, tmp_path / "lm")
    (objects,) = made.objects().values()
    shapes = [shape for shape in content["shapes"] if shape["label"] != "__ignore__"]
    assert [shape["group_id"] for shape in shapes] == [None, 0, 0, None]  # the second and the third are one person
    named = [(thing["name"], len(thing["segmentation"])) for thing in objects]
    assert named == [("person", 1), ("person", 2), ("bottle", 1)]
    assert "1 x shapes of the label __ignore__ left out" in made.said
    outlines = [outline for thing in objects for outline in thing["segmentation"]]
    for outline, given in zip(outlines, shapes, strict=True):
        flat = [value for point in given["points"] for value in point]
        assert outline == pytest.approx(flat, abs=0.0006)
    made.read(tmp_path / "lm")


def via_region(kind: str, attributes: dict[str, Any], **shape: Any) -> dict[str, Any]:
    return {"shape_attributes": {"name": kind, **shape}, "region_attributes": attributes}


def test_via_1_with_folders_as_splits(tmp_path: Path, run: Run):
    for split in ("train", "val"):
        picture(tmp_path / "via" / split / "a.jpg")
        outline = via_region("polygon", {}, all_points_x=[10, 60, 60], all_points_y=[5, 5, 40])
        content = {"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": {"0": outline}, "file_attributes": {}}}
        put(tmp_path / "via" / split / "via_region_data.json", content)
    made = Imported(run, tmp_path / "via", "--classes", "balloon")
    for split in ("train", "val"):
        assert names_and_polygons(made.objects(split)["a.jpg"]) == [("balloon", [[10, 5, 60, 5, 60, 40]])]


def test_via_2_project_with_all_its_shapes(tmp_path: Path, run: Run):
    picture(tmp_path / "via/a.jpg")
    regions = [
        via_region("rect", {"name": "cat", "type": "wild"}, x=1, y=2, width=30, height=40),
        via_region("circle", {"name": "dog", "type": "tame"}, cx=100, cy=50, r=20),
        via_region("ellipse", {"name": "dog", "type": "tame"}, cx=100, cy=50, rx=40, ry=10, theta=math.pi / 2),
        via_region("point", {"name": "dog"}, cx=1, cy=2),
        via_region("polygon", {"name": ""}, all_points_x=[10, 60, 60], all_points_y=[5, 5, 40]),
    ]
    images = {"a.jpg9": {"filename": "a.jpg", "size": 9, "regions": regions, "file_attributes": {}}}
    put(tmp_path / "via/project.json", {"_via_settings": {}, "_via_img_metadata": images, "_via_attributes": {}})
    made = Imported(run, tmp_path / "via/project.json")
    made.root = tmp_path / "via/imported"
    cat, circle, oval = made.objects()["a.jpg"]
    assert (cat["name"], cat["bbox"]) == ("cat", [1, 2, 30, 40])
    assert (circle["name"], circle["bbox"]) == ("dog", pytest.approx([80, 30, 40, 40], abs=0.1))
    assert oval["bbox"] == pytest.approx([90, 10, 20, 80], abs=0.1)
    assert "their class is the attribute 'name', not type" in made.said
    assert "1 x regions of the kind point left out" in made.said
    assert "1 x regions without the attribute 'name' left out" in made.said
    made.read(tmp_path / "via")


@needs_wild
@pytest.mark.parametrize(("name", "classes"), [("via1_balloon_val", {"balloon"}), ("via2_project", {"cat", "dog"})])
def test_via_as_it_was_left(name: str, classes: set[str], tmp_path: Path, run: Run):

    assert WILD
    content = json.loads((WILD / f"{name}.json").read_text())
    put(tmp_path / "via/via.json", content)
    for entry in content.values():
        picture(tmp_path / "via" / entry["filename"], 3000, 3000)
    made = Imported(run, tmp_path / "via/via.json", *(["--classes", "balloon"] if classes == {"balloon"} else []))
    objects = made.objects()
    assert {thing["name"] for things in objects.values() for thing in things} == classes
    for entry in content.values():
        regions = entry["regions"].values() if isinstance(entry["regions"], dict) else entry["regions"]
        for thing, region in zip(objects[entry["filename"]], regions, strict=True):
            given = region["shape_attributes"]
            if given["name"] == "polygon":
                (outline,) = thing["segmentation"]
                assert outline[::2] == given["all_points_x"]
                assert outline[1::2] == given["all_points_y"]
            else:
                assert thing["bbox"] == [given[key] for key in ("x", "y", "width", "height")]


def result(kind: str, label: str, key: str = "", **value: Any) -> dict[str, Any]:
    return {
        "id": key or f"{kind}{label}",
        "type": kind,
        "to_name": "image",
        "original_width": 20,
        "original_height": 6,
        "image_rotation": 0,
        "value": {**value, kind: [label]},
    }


def test_label_studio_with_all_its_shapes(tmp_path: Path, run: Run):
    picture(tmp_path / "ls/upload/0a1b2c3d-a b.png", 20, 6)
    picture(tmp_path / "ls/b.png", 20, 6)
    results = [
        result("polygonlabels", "dog", points=[[10, 0], [50, 0], [50, 50]]),
        result("rectanglelabels", "cat", x=25, y=50, width=50, height=25, rotation=0),
        result("rectanglelabels", "hat", x=50, y=0, width=20, height=50, rotation=90),
        result("ellipselabels", "dog", x=50, y=50, radiusX=20, radiusY=50, rotation=0),
        result("brushlabels", "cat", format="rle", rle=BRUSH),
        {**result("polygon", "", key="two tags", points=[[0, 0], [50, 0], [50, 50]])},
        {**result("labels", "kite", key="two tags", points=[[0, 0], [50, 0], [50, 50]])},
        {"id": "choice", "type": "choices", "value": {"choices": ["good"]}},
    ]
    del results[5]["value"]["polygon"]
    tasks = [
        {
            "id": 1,
            "data": {"image": "/data/upload/1/0a1b2c3d-a%20b.png"},
            "file_upload": "0a1b2c3d-a b.png",
            "annotations": [{"was_cancelled": True, "result": []}, {"was_cancelled": False, "result": results}],
        },
        {"id": 2, "data": {"image": "http://localhost/data/local-files/?d=x/b.png"}, "annotations": []},
    ]
    put(tmp_path / "ls/export.json", tasks)
    made = Imported(run, tmp_path / "ls")
    dog, cat, hat, oval, brush, kite = made.objects()["upload/0a1b2c3d-a b.png"]
    assert (dog["name"], dog["segmentation"]) == ("dog", [[2, 0, 10, 0, 10, 3]])
    assert (cat["name"], cat["bbox"]) == ("cat", [5, 3, 10, 1.5])
    assert hat["bbox"] == [7, 0, 3, 4]  # of 4 x 3 pixels, turned about its upper left corner at (10, 0)
    assert oval["bbox"] == pytest.approx([6, 0, 8, 6], abs=0.1)
    assert (bitmap(brush["segmentation"]) == MASK).all()
    assert (kite["name"], kite["segmentation"]) == ("kite", [[0, 0, 10, 0, 10, 3]])
    assert made.objects()["b.png"] == []
    made.read(tmp_path / "ls")


@needs_wild
def test_label_studio_as_it_was_left(tmp_path: Path, run: Run):

    assert WILD
    (task,) = json.loads((WILD / "labelstudio_native_polygons_testdata.json").read_text())
    put(tmp_path / "ls/export.json", [task])
    picture(tmp_path / "ls/000000000025.jpg", 640, 426)  # without the prefix that the upload got
    (given,) = task["annotations"][0]["result"]
    made = Imported(run, tmp_path / "ls/export.json")
    made.root = tmp_path / "ls/imported"
    (thing,) = made.objects()["000000000025.jpg"]
    assert thing["name"] == "Airplane"
    flat = [
        value * side / 100 for point in given["value"]["points"] for value, side in zip(point, (640, 426), strict=True)
    ]
    assert thing["segmentation"] == [pytest.approx(flat, abs=0.0006)]


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels><label><name>dog</name></label><label><name>cat</name></label>
</labels></task></meta>
<image id="0" name="sub/a.png" subset="Train" width="20" height="6">
 <polygon label="dog" occluded="0" points="1.25,1.00;5.00,1.00;5.00,3.50" z_order="0"></polygon>
 <box label="cat" xtl="4.0" ytl="2.0" xbr="9.0" ybr="5.0" z_order="0"></box>
 <box label="cat" xtl="4.0" ytl="2.0" xbr="8.0" ybr="4.0" rotation="90.0" z_order="0"></box>
 <mask label="cat" rle="{rle}" left="2" top="1" width="17" height="4" z_order="0"></mask>
 <polygon label="dog" points="0,0;3,0;3,3" group_id="2"></polygon>
 <polygon label="dog" points="8,0;11,0;11,3" group_id="2"></polygon>
 <polyline label="dog" points="8,0;11,0;11,3"></polyline>
 <tag label="dog"></tag>
</image>
<image id="1" name="b.png" subset="Validation" width="20" height="6"></image>
</annotations>"""


def test_cvat_with_all_its_shapes(tmp_path: Path, run: Run):
    flat = MASK[1:5, 2:19].ravel().tolist()
    runs, last = [0], 0
    for value in flat:
        if value != last:
            runs.append(0)
        runs[-1] += 1
        last = value
    put(tmp_path / "cvat/annotations.xml", CVAT.replace("{rle}", ", ".join(map(str, runs))))
    picture(tmp_path / "cvat/images/Train/sub/a.png", 20, 6)
    picture(tmp_path / "cvat/images/Validation/sub/a.png", 30, 6)  # another of that name, of another task
    picture(tmp_path / "cvat/images/b.png", 20, 6)
    made = Imported(run, tmp_path / "cvat")
    dog, cat, upright, brush, pair = made.objects("train")["a.png"]
    assert [c["name"] for c in made.content["val"]["categories"]] == ["dog", "cat"]
    assert (dog["name"], dog["segmentation"]) == ("dog", [[1.25, 1, 5, 1, 5, 3.5]])
    assert (cat["name"], cat["bbox"]) == ("cat", [4, 2, 5, 3])
    assert upright["bbox"] == [5, 1, 2, 4]
    wanted = MASK.copy()
    wanted[5] = 0
    assert (bitmap(brush["segmentation"]) == wanted).all()
    assert pair["segmentation"] == [[0, 0, 3, 0, 3, 3], [8, 0, 11, 0, 11, 3]]
    assert "1 x shapes of the kind polyline left out" in made.said
    assert "1 x shapes of the kind tag left out" in made.said
    made.read(tmp_path / "cvat/images/Train/sub", "train")
    made.read(tmp_path / "cvat/images", "val")


@pytest.mark.parametrize("kind", ["grey", "16 bits", "colour", "palette"])
def test_maps_of_ids(kind: str, tmp_path: Path, run: Run):
    picture(tmp_path / "maps/images/a.jpg", 20, 6)
    ids = MASK * 3
    ids[0, 0:2] = 7
    classes = np.full((6, 20), 9, np.uint8)
    classes[ids == 3], classes[ids == 7] = 2, 1
    classes[5, 0] = 1  # a pixel of the other class: the most frequent one counts
    stored = {
        "grey": Image.fromarray(ids),
        "16 bits": Image.fromarray(ids.astype(np.uint16) * 1000),
        "colour": Image.fromarray(np.stack([ids * 0, ids * 2, ids], axis=2)),
        "palette": Image.fromarray(ids).convert("P"),
    }[kind]
    (tmp_path / "maps/instances").mkdir()
    (tmp_path / "maps/classes").mkdir()
    stored.save(tmp_path / "maps/instances/a.png")
    Image.fromarray(classes).save(tmp_path / "maps/classes/a.png")
    put(tmp_path / "maps/classes.txt", "car\nbus\n")
    made = Imported(run, tmp_path / "maps")
    bus, car = made.objects()["a.jpg"]
    assert (bus["name"], car["name"], car["bbox"]) == ("bus", "car", [0, 0, 2, 1])
    assert (bitmap(bus["segmentation"]) == MASK).all()
    assert bus["area"] == MASK.sum()
    made.read(tmp_path / "maps/images")


def test_maps_of_ids_of_one_class(tmp_path: Path, run: Run):
    for split in ("train", "val"):
        picture(tmp_path / f"maps/images/{split}/a.jpg", 20, 6)
        (tmp_path / f"maps/instances/{split}").mkdir(parents=True)
        Image.fromarray(MASK).save(tmp_path / f"maps/instances/{split}/a.png")
    made = Imported(run, tmp_path / "maps", "--classes", "cell")
    assert [thing["name"] for thing in made.objects("train")["a.jpg"]] == ["cell"]
    assert len(made.content["val"]["annotations"]) == 1


def test_cityscapes_from_polygons_and_from_maps(tmp_path: Path, run: Run):
    """A pole hides a part of a car; a group is a crowd region; two files of one image are one image."""
    stem = "gtFine/train/aachen/aachen_000000_000019_gtFine"
    picture(tmp_path / "cs/leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png", 20, 6)
    objects = [
        {"label": "road", "polygon": [[0, 0], [19, 0], [19, 5], [0, 5]]},
        {"label": "car", "polygon": [[2, 1], [6, 1], [6, 4], [2, 4]]},
        {"label": "car", "polygon": [[12, 0], [14, 0], [14, 2], [12, 2]]},
        {"label": "pole", "polygon": [[4, 0], [4, 5]]},
        {"label": "persongroup", "polygon": [[16, 3], [18, 3], [18, 5], [16, 5]]},
        {"label": "bus", "polygon": [[0, 0], [9, 0], [9, 5]], "deleted": 1},
    ]
    put(tmp_path / f"cs/{stem}_polygons.json", {"imgHeight": 6, "imgWidth": 20, "objects": objects})
    made = Imported(run, tmp_path / "cs")
    things = made.objects("train")["aachen_000000_000019_leftImg8bit.png"]
    ids = np.zeros((6, 20), np.uint16)
    ids[1:5, 2:7], ids[0:3, 12:15], ids[:, 4], ids[3:6, 16:19] = 26000, 26001, 7, 24
    wanted = {26000: ("car", 0), 26001: ("car", 0), 24: ("person", 1)}
    assert [(thing["name"], thing["iscrowd"]) for thing in things] == [wanted[key] for key in (24, 26000, 26001)]
    for thing, key in zip(things, (24, 26000, 26001), strict=True):
        assert (bitmap(thing["segmentation"]) == (ids == key)).all()
    assert [c["name"] for c in made.content["train"]["categories"]][:3] == ["person", "rider", "car"]
    made.read(tmp_path / "cs/leftImg8bit/train/aachen", "train")

    Image.fromarray(ids).save(tmp_path / f"cs/{stem}_instanceIds.png")
    (tmp_path / "imported/annotations/train.json").unlink()
    assert Imported(run, tmp_path / "cs").content == made.content


def test_a_box_is_turned_clockwise_about_its_corner_or_centre():
    assert rectangle(0, 0, 10, 4) == [0, 0, 10, 0, 10, 4, 0, 4]
    assert rectangle(5, 1, 10, 4, 90) == pytest.approx([5, 1, 5, 11, 1, 11, 1, 1])
    assert rectangle(0, 0, 10, 4, 90, centred=True) == pytest.approx([7, -3, 7, 7, 3, 7, 3, -3])
    right = 10 * math.cos(math.pi / 6), 10 * math.sin(math.pi / 6)
    assert rectangle(0, 0, 10, 4, 30)[2:4] == pytest.approx(right)


@pytest.mark.parametrize("degrees", [0, 30, 90, 200])
def test_an_ellipse_is_where_it_should_be(degrees: float):
    points = np.array(ellipse(50, 40, 30, 10, degrees)).reshape(-1, 2) - (50, 40)
    turn = math.radians(-degrees)
    x = points[:, 0] * math.cos(turn) - points[:, 1] * math.sin(turn)
    y = points[:, 0] * math.sin(turn) + points[:, 1] * math.cos(turn)
    assert np.allclose((x / 30) ** 2 + (y / 10) ** 2, 1)
    assert len(points) >= 50
