"""What is found wrong in an annotation file: every fault by its kind, place and whole sentence, and nothing besides."""

import copy
from pathlib import Path
from typing import Any

import pytest

from queryinst.data.validation import LARGEST, by_id, check_content, faults, held, positive, short, whole_number
from queryinst.errors import UserError

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
LISTS = "it needs the lists images, annotations and categories"
ANNOTATION = "id, image_id, category_id, bbox, segmentation"
NAN = float("nan")
INFINITE = float("inf")


def content(**lists: Any) -> dict[str, Any]:
    sound = {
        "images": [{"id": 5, "file_name": "a.png", "height": 40, "width": 50}],
        "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [annotation()],
    }
    return {**sound, **copy.deepcopy(lists)}


def annotation(**changes: Any) -> dict[str, Any]:
    sound = {"id": 7, "image_id": 5, "category_id": 9, "bbox": [10, 10, 20, 20], "segmentation": [SQUARE]}
    return {key: value for key, value in {**sound, **changes}.items() if value is not ...}


def image(**changes: Any) -> dict[str, Any]:
    return {"id": 5, "file_name": "a.png", "height": 40, "width": 50, **changes}


def rle(counts: Any, size: Any = (40, 50)) -> dict[str, Any]:
    return annotation(segmentation={"size": [*size], "counts": counts})


def text(runs: list[int]) -> str:
    """COCO's compressed text of up to three runs: five bits a character, the last of a run without the sixth."""
    made = ""
    for run in runs:
        more = True
        while more:
            five, run = run & 31, run >> 5
            more = run != (-1 if five & 16 else 0)
            made += chr(five + 32 * more + 48)
    return made


def found(data: Any) -> list[tuple[str, str, str]]:
    return [(fault.code, fault.where, fault.sentence) for fault in faults(data)]


def test_a_sound_file_has_no_fault_and_may_lack_what_is_optional():
    tight = annotation(bbox=[-LARGEST, 0, LARGEST, 0.5], iscrowd=1, area=-3.5)
    tight["segmentation"] = [SQUARE, [0, 0, LARGEST, -LARGEST, 1, 1]]
    largest = image(id=2**63 - 1, height=LARGEST, width=1)
    data = content(
        images=[image(), largest],
        annotations=[
            annotation(),
            tight,
            rle(text([410, 20, 1570])),
            rle(text([0, 2000])),
            rle([2000]),
            rle([0, 2000]),
        ],
    )
    assert found(data) == []
    assert found(content(annotations=[])) == []
    assert found(content(annotations=[annotation(bbox=[1, 2, *sides]) for sides in ((0, 3), (3, 0), (0.5, 0.5))])) == []
    names = ["x" * 90 + "a", "x" * 90 + "b", 5, 6]
    categories = [{"id": 9 + number, "name": name} for number, name in enumerate(names)]
    assert found(content(categories=categories)) == []
    assert found(content(annotations=[annotation(area=0), annotation()])) == []
    assert check_content(data, Path("x.json")) is None


@pytest.mark.parametrize(
    ("data", "has"),
    [
        ([], "list"),
        (None, "NoneType"),
        ({}, "nothing"),
        ({"images": {}, "annotations": [], "categories": []}, "images, annotations, categories"),
        ({"images": [], "annotations": None, "categories": []}, "images, annotations, categories"),
        ({"images": [], "annotations": []}, "images, annotations"),
        ({"x" * 300: 1}, "x" * 200),
    ],
)
def test_what_is_no_coco_file(data: Any, has: str):
    sentence = f" is not a COCO annotation file: {LISTS}; it has {has}"
    assert found(data) == [("not-coco", "the file", sentence)]
    assert held(data) == has
    with pytest.raises(UserError) as raised:
        check_content(data, Path("x.json"))
    assert str(raised.value) == f"x.json{sentence}"


WRONG_IDS = "ids must be whole numbers of at most 64 bits"
LISTED: list[tuple[dict[str, Any], list[tuple[str, str, str]]]] = [
    (
        {"annotations": [annotation(bbox=..., segmentation=...), annotation(category_id=3)]},
        [
            (
                "missing-field",
                "annotations id 7",
                f": annotations, id 7, has no bbox and no segmentation; COCO asks for {ANNOTATION}",
            ),
            (
                "unknown-category",
                "annotation 7",
                ": annotation 7 of image 5 names category 3, which is not among the categories (2, 9)",
            ),
        ],
    ),
    (
        {"images": [image(), "b.png", {"height": 4, "width": 5}]},
        [
            (
                "missing-field",
                "images entry 1",
                ": images, entry 1, has no id and no file_name and no height and no width; "
                "COCO asks for id, file_name, height, width",
            ),
            (
                "missing-field",
                "images entry 2",
                ": images, entry 2, has no id and no file_name; COCO asks for id, file_name, height, width",
            ),
        ],
    ),
    (
        {"categories": [], "annotations": []},
        [("no-categories", "the file", " has no categories; a model needs at least one class to learn")],
    ),
    ({"images": [], "annotations": []}, [("no-images", "the file", " has no images")]),
    (
        {"images": [image(), image(id=6), image(id=6, file_name="b.png"), image(id=True)]},
        [
            ("duplicate-images-id", "images id 6", ": images: id 6 occurs twice"),
            ("id-kind", "images id True", f": images: an id is True; {WRONG_IDS}"),
        ],
    ),
    (
        {"categories": [{"id": 9, "name": "cat"}, {"id": "9", "name": "a"}, {"id": 9, "name": "b"}]},
        [
            ("id-kind", "categories id 9", f": categories: an id is '9'; {WRONG_IDS}"),
            ("duplicate-categories-id", "categories id 9", ": categories: id 9 occurs twice"),
        ],
    ),
    (
        {"categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "x" * 90}]},
        [("duplicate-category-name", "category 2", ": two categories are called 'cat'; give each its own name")],
    ),
    (
        {"categories": [{"id": 9, "name": None}, {"id": 2, "name": "None"}]},
        [("duplicate-category-name", "category 2", ": two categories are called 'None'; give each its own name")],
    ),
    (
        {"categories": [{"id": 9, "name": "a\nb"}, {"id": 2, "name": "\ud800"}, {"id": 3, "name": "é 日"}]},
        [
            (
                "unprintable-category-name",
                f"category {key}",
                f": a category is called {name}; wanted text without control characters",
            )
            for key, name in ((9, r"'a\nb'"), (2, r"'\ud800'"))
        ],
    ),
    (
        {"images": [image(file_name=None), image(id=6, file_name="")]},
        [
            ("file-name", "image 5", ": image 5 has file_name None; wanted a file's name"),
            ("file-name", "image 6", ": image 6 has file_name ; wanted a file's name"),
        ],
    ),
    *(
        (
            {"images": [image(**{side: value})]},
            [
                (
                    "size-field",
                    "image 5",
                    f": image 5 has width {value if side == 'width' else 50} and height "
                    f"{value if side == 'height' else 40}; both must be positive whole numbers, and at most 1000000",
                )
            ],
        )
        for side in ("width", "height")
        for value in (0, -1, LARGEST + 1, 40.0, "40", None)
    ),
    (
        {"images": [image(height="1" * 30, width="2" * 30)]},
        [
            (
                "size-field",
                "image 5",
                f": image 5 has width {'2' * 20} and height {'1' * 20}; "
                "both must be positive whole numbers, and at most 1000000",
            )
        ],
    ),
    (
        {"annotations": [annotation(area=0), annotation(area=0.0)]},
        [
            (
                "area-all-zero",
                "the file",
                ": every annotation has area 0, which means nothing to learn; correct or remove `area`",
            )
        ],
    ),
]


@pytest.mark.parametrize(("lists", "expected"), LISTED)
def test_faults_of_lists(lists: dict[str, Any], expected: list[tuple[str, str, str]]):
    data = content(**lists)
    assert found(data) == expected
    for fault in faults(data):
        assert any(fault.entry is entry for entry in named(data, fault.where)), fault.where


def named(data: dict[str, Any], where: str) -> list[Any]:
    """What "image 5", "categories id 9" or "images entry 1" may mean."""
    if where == "the file":
        return [None]
    kind, *how, key = where.split()
    entries = data[{"image": "images", "category": "categories", "annotation": "annotations"}.get(kind, kind)]
    if how == ["entry"]:
        return [entries[int(key)]]
    return [entry for entry in entries if isinstance(entry, dict) and str(entry.get("id")) == key]


def test_values_in_a_sentence_are_short():
    assert short("x" * 61) == "x" * 60
    assert short(10**5000) == "a int too large to write"
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert short(nested) == "a list too large to write"
    while nested:  # its end would go too deep as well
        nested = nested.pop()


def test_what_can_be_an_id_or_a_side():
    bounds = 2**63 - 1, 1 - 2**63, 0, -1
    assert all(map(whole_number, bounds))
    assert not any(map(whole_number, (2**63, -(2**63), True, 1.0, "1", None)))
    assert by_id([{"id": 3}, {"id": "4"}, 5, {}, {"id": True}, {"id": 6, "a": 1}]) == {
        3: {"id": 3},
        6: {"id": 6, "a": 1},
    }
    assert [value for value in (-1, 0, 1, LARGEST, LARGEST + 1, 2.0, "3") if positive(value)] == [1, LARGEST]
