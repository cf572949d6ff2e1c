"""What is found wrong in an annotation, or in its box or mask: the kind and the whole sentence, and nothing besides."""

from pathlib import Path
from typing import Any

import pytest
from pycocotools import mask as coco_mask
from test_validation import INFINITE, NAN, SQUARE, annotation, content, found, image, rle, text

from queryinst.data.validation import LARGEST, check_content, faults
from queryinst.errors import UserError

BOX = "wanted four numbers x, y, width, height, finite and at most 1000000"
AREA = "wanted a finite number of pixels, or no `area` at all"
POINTS = "wanted x, y of three points or more"
VALUES = "has a polygon with a value that is no finite number of pixels, at most 1000000"
RUN = "has an RLE with a run that is no whole number of pixels"
COVER = "has an RLE whose runs do not make up the 2000 pixels of its image"
COUNTS = "wanted a list of runs, or COCO's compressed text"
BRACKETS = "wanted [[x, y, x, y, ...], ...]"
ALONE = [
    ({"category_id": 3}, "unknown-category", "names category 3, which is not among the categories (2, 9)"),
    *(
        ({"bbox": box}, "box-values", f"has box {box}; {BOX}")
        for box in (
            [1, 2, 3],
            [1, 2, 3, 4, 5],
            "1234",
            None,
            [1, 2, 3, NAN],
            [LARGEST + 1, 2, 3, 4],
            [1, -LARGEST - 1, 3, 4],
            [1, 2, True, 4],
            [1, 2, "3", 4],
        )
    ),
    *(
        (
            {"bbox": box},
            "box-negative",
            f"has box {box}, whose width or height is negative; wanted x, y, width, height",
        )
        for box in ([1, 2, -3, 4], [1, 2, 3, -0.5])
    ),
    *(({"iscrowd": value}, "iscrowd-value", f"has iscrowd {value}; wanted 0 or 1") for value in (2, -1, "0", None)),
    *(({"area": value}, "area-value", f"has area {value}; {AREA}") for value in (None, "9", NAN, INFINITE, -INFINITE)),
    *(
        ({"segmentation": mask}, "polygon-brackets", f"has the segmentation {str(mask)[:60]}; {BRACKETS}")
        for mask in ([SQUARE, 5], ["123456"], SQUARE, [[[3, 4]], [1, 2]], [{"size": [40, 50], "counts": [2000]}])
    ),
    ({"segmentation": [SQUARE, [1, 2, 3, 4]]}, "polygon-points", f"has a polygon of 4 numbers; {POINTS}"),
    ({"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, "polygon-points", f"has a polygon of 7 numbers; {POINTS}"),
    ({"segmentation": [SQUARE, [1, 2, 3, 4, 5, INFINITE]]}, "polygon-values", VALUES),
    ({"segmentation": [[1, 2, 3, 4, 5, LARGEST + 1]]}, "polygon-values", VALUES),
    *(
        ({"segmentation": mask}, "mask-kind", f"has a segmentation that is neither polygons nor RLE: {mask}")
        for mask in ("mask.png", None, {"size": [40, 50]}, {"counts": [2000]})
    ),
    (
        rle([2000], (50, 40)),
        "rle-size",
        "has an RLE of size [50, 40]; its image is [40, 50] (height, width)",
    ),
    *((rle(counts), "rle-counts", RUN) for counts in ([0.5, 1999.5], [-5, 2005], ["a"], [True, 1999])),
    *(
        (rle(counts), "rle-counts", COVER)
        for counts in ([], [1999], [2001], [1, 2], "0", text([410, 20, 1569]), text([2500, -500]))
    ),
    (rle("P"), "rle-counts", "has a compressed RLE that cannot be read"),
    *((rle(value), "rle-counts", f"has an RLE with counts '{value}'; {COUNTS}") for value in (5, "", "é", None)),
    (rle("é" * 50), "rle-counts", f"has an RLE with counts '{'é' * 40}'; {COUNTS}"),
]


@pytest.mark.parametrize(("changes", "code", "words"), ALONE)
def test_faults_of_an_annotation(changes: dict[str, Any], code: str, words: str):
    sound, spoilt = annotation(id=8), annotation(**changes)
    data = content(annotations=[sound, spoilt])
    assert found(data) == [(code, "annotation 7", f": annotation 7 of image 5 {words}")]
    (fault,) = faults(data)
    assert fault.entry == data["annotations"][1]


def test_an_annotation_may_have_several_faults():
    data = content(annotations=[annotation(image_id=6, category_id=3, bbox=[1], iscrowd=7, area="x", segmentation=[3])])
    assert [fault.code for fault in faults(data)] == [
        "dangling-image", "unknown-category", "box-values", "iscrowd-value", "area-value", "polygon-brackets",
    ]  # fmt: skip
    assert found(data)[0][1:] == (
        "annotation 7",
        ": annotation 7 names image 6, which is not among the 1 images",
    )
    with pytest.raises(UserError, match=r"^x\.json: annotation 7 names image 6"):
        check_content(data, Path("x.json"))


def test_without_an_images_size_its_run_lengths_are_not_judged():
    """That is said of the image, once; the rest of the annotation is looked at."""
    for faulty in (image(height=0), image(file_name="")):
        data = content(images=[faulty], annotations=[rle([3]), annotation(bbox=[])])
        assert [fault.code for fault in faults(data)][1:] == ["box-values"]
    incomplete = {"id": 5, "file_name": "a.png", "height": 40}
    codes = [fault.code for fault in faults(content(images=[incomplete], annotations=[rle([3])]))]
    assert codes == ["missing-field"], "the image is there all the same"


def test_values_of_a_kind_nobody_thinks_of_are_named():
    for field in ("image_id", "category_id"):
        (fault,) = faults(content(annotations=[annotation(**{field: [1]})]))
        assert fault[:2] == ("not-understood", "annotation 7")
        assert fault.sentence == ": annotation 7 cannot be understood: unhashable type: 'list'"
        assert fault.entry["id"] == 7


@pytest.mark.parametrize(
    ("count", "known"), [(10, "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9)"), (11, "(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...)")]
)
def test_at_most_ten_categories_are_listed(count: int, known: str):
    data = content(categories=[{"id": key, "name": f"c{key}"} for key in reversed(range(count))])
    data["annotations"][0]["category_id"] = 99
    (fault,) = faults(data)
    assert fault.sentence.endswith(f"names category 99, which is not among the categories {known}")


def test_the_texts_of_these_tests_are_pycocotools_own():
    for runs in ([410, 20, 1570], [0, 2000], [17, 1, 1982]):
        assert text(runs) == coco_mask.frPyObjects({"size": [40, 50], "counts": runs}, 40, 50)["counts"].decode()


def test_an_image_of_one_pixel():
    one = [image(height=1, width=1)]
    assert (
        found(content(images=one, annotations=[rle([1], (1, 1)), rle([0, 1], (1, 1)), rle(text([0, 1]), (1, 1))])) == []
    )
    (fault,) = faults(content(images=one, annotations=[rle(text([2, -1]), (1, 1))]))
    assert fault.sentence.endswith("has an RLE whose runs do not make up the 1 pixels of its image")
