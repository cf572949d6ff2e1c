"""Strange values anywhere in a file of another tool: what is read is what training reads, or one sentence is said."""

import copy
import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import picture, put

from queryinst.errors import UserError
from queryinst.formats.found import Request
from queryinst.formats.label_studio import unpack
from queryinst.formats.recognise import read
from queryinst.formats.to_coco import convert, summary

POINTS = [[1, 1], [50, 1], [50, 40]]
LABELME = {
    "imagePath": "a.png",
    "imageHeight": 100,
    "imageWidth": 200,
    "shapes": [
        {"label": "x", "points": POINTS, "shape_type": "polygon", "group_id": 1},
        {"label": "x", "points": POINTS[:2], "shape_type": "circle", "group_id": None},
        {"label": "x", "points": POINTS[:2], "shape_type": "mask", "group_id": None, "mask": "iVBORw0KGgo="},
    ],
}
VIA = {
    "a": {
        "filename": "a.png",
        "regions": [
            {
                "shape_attributes": {"name": "rect", "x": 1, "y": 1, "width": 9, "height": 9},
                "region_attributes": {"a": "x"},
            },
            {
                "shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]},
                "region_attributes": {"a": "x"},
            },
        ],
    }
}
RESULT = {"id": "1", "type": "polygonlabels", "to_name": "image", "original_width": 200, "original_height": 100}
LABEL_STUDIO = [
    {
        "data": {"image": "a.png"},
        "annotations": [
            {
                "result": [
                    RESULT | {"value": {"points": POINTS, "polygonlabels": ["x"]}},
                    RESULT | {"id": "2", "value": {"rle": [0, 0, 1, 224], "brushlabels": ["x"]}},
                    RESULT | {"id": "3", "value": {"x": 1, "y": 1, "width": 5, "height": 5, "rectanglelabels": ["x"]}},
                ]
            }
        ],
    }
]
CITYSCAPES = {"imgHeight": 100, "imgWidth": 200, "objects": [{"label": "car", "polygon": POINTS}]}
FORMATS = {
    "labelme": ("a.json", LABELME),
    "via": ("a.json", VIA),
    "label_studio": ("a.json", LABEL_STUDIO),
    "cityscapes": ("a_gtFine_polygons.json", CITYSCAPES),
}
STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(),
    st.sampled_from(["", "x" * 5000, "a\0b", "../a.png", "polygon", "mask", "circle", 1e308, 7, 250, 26]),
    st.lists(st.one_of(st.integers(-9, 300), st.text(max_size=3), st.none()), max_size=4),
    st.dictionaries(st.sampled_from(["x", "rle", "points", "name"]), st.integers(0, 9), max_size=2),
)


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every container in a file with every key or position in it."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else []
    return [pair for key in keys for pair in [(content, key), *places(content[key])]]


def import_or_say(root: Path, name: str | None) -> None:
    try:
        found, _ = read(Request(root, skip_missing=True), name)
        for one in convert(found, root / "to", "leave"):
            json.dumps(one.content, allow_nan=False)
        summary(found, convert(found, root / "to", "leave"))
    except UserError:
        pass


@pytest.mark.parametrize("name", FORMATS)
def test_strange_values_in_json(name: str, tmp_path: Path):
    file, sound = FORMATS[name]
    picture(tmp_path / "a.png")

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(st.integers(0, 10**6), STRANGE), min_size=1, max_size=3))
    def check(changes: list[tuple[int, Any]]) -> None:
        content = copy.deepcopy(sound)
        for place, value in changes:
            known = places(content)
            if known:
                holder, key = known[place % len(known)]
                holder[key] = copy.deepcopy(value)
        put(tmp_path / file, content)
        import_or_say(tmp_path, name)

    check()


WORDS = st.sampled_from(
    ["", "x", "nan", "inf", "1e400", "-5", "0", "3", "1,2;3,4;5,6", "1,2;3", "3, 5, 1", "9" * 400, "²"]
)


def test_strange_values_in_xml_and_text(tmp_path: Path):
    picture(tmp_path / "a.png")
    fields = (
        "points",
        "xtl",
        "ytl",
        "xbr",
        "ybr",
        "rotation",
        "rle",
        "left",
        "top",
        "width",
        "height",
        "group_id",
        "cx",
    )

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(["polygon", "box", "mask", "ellipse", "other"]), st.lists(WORDS, min_size=13, max_size=13))
    def xml(kind: str, words: list[str]) -> None:
        given_ = " ".join(f"{field}={quoteattr(word)}" for field, word in zip(fields, words, strict=True))
        image = f'<image name="a.png" width="200" height="100"><{kind} label="x" {given_}/></image>'
        put(tmp_path / "a.xml", f"<annotations>{image}</annotations>")
        import_or_say(tmp_path, "cvat")

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(WORDS, max_size=9), st.text(max_size=20))
    def text(words: list[str], rest: str) -> None:
        (tmp_path / "a.txt").write_text(" ".join(words) + "\n" + rest, encoding="utf-8", errors="replace")
        put(tmp_path / "classes.txt", "x\ny\n")
        import_or_say(tmp_path, "yolo")

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.one_of(STRANGE, st.lists(STRANGE, max_size=3)), STRANGE, STRANGE)
    def described(names: Any, train: Any, path: Any) -> None:
        put(tmp_path / "data.yaml", json.dumps({"names": names, "train": train, "path": path}))
        import_or_say(tmp_path, "yolo")

    xml()
    text()
    described()


def test_a_number_in_place_of_a_brush_makes_no_bytes():
    with pytest.raises(UserError, match="task 1 has a brush that is no list of bytes; wanted 80000 values"):
        unpack(10**10, 100, 200, "task 1")
