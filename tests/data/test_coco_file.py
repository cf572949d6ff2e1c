"""Reading COCO folders: what is served, and what is said about what cannot be."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import coco_folder
from PIL import Image

from queryinst.config import AugmentationConfig
from queryinst.data.coco import CocoFile
from queryinst.data.dataset import CocoDataset
from queryinst.data.images import ImageFile, check_header, read_image
from queryinst.data.transforms import EvaluationGeometry
from queryinst.errors import UserError
from queryinst.inference.pictures import to_picture

GEOMETRY = EvaluationGeometry(AugmentationConfig(test_short_side=64, long_side=64))
SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def annotation(**changes: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "image_id": 5,
        "category_id": 9,
        "bbox": [10, 10, 20, 20],
        "area": 400,
        "iscrowd": 0,
        "segmentation": [SQUARE],
        **changes,
    }


def content(*annotations: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [{"id": 5, "file_name": "a.png", "height": 40, "width": 50}],
        "categories": [{"id": 9, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": list(annotations or [annotation()]),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((40, 50, 3), 100, np.uint8)).save(tmp_path / "images" / "a.png")
    return tmp_path


def read(folder: Path, data: Any) -> CocoFile:
    return CocoFile(coco_folder(folder, data), folder / "images")


def test_labels_follow_ascending_category_ids(folder: Path):
    source = read(folder, content())
    assert source.categories.ids == (2, 9)
    assert source.categories.names == ("dog", "cat")
    instances = source.instances(source.images[0])
    assert instances.labels.tolist() == [1]
    assert instances.boxes.tolist() == [[10, 10, 30, 30]]


@pytest.mark.parametrize(
    "changes",
    [{"iscrowd": 1}, {"ignore": 1}, {"area": 0}, {"bbox": [10, 10, 0.5, 20]}, {"bbox": [60, 10, 20, 20]}],
    ids=["crowd", "ignored", "no area", "under a pixel", "outside"],
)
def test_what_is_not_learned(folder: Path, changes: dict[str, Any]):
    source = read(folder, content(annotation(**changes), annotation(id=8, bbox=[1, 2, 30, 20])))
    assert source.instances(source.images[0]).boxes.tolist() == [[1, 2, 31, 22]]
    assert len(source.annotations(source.images[0])) == 2


def test_polygons_and_both_kinds_of_rle_give_the_same_target(folder: Path):
    from pycocotools import mask as coco_mask

    compressed = coco_mask.merge(coco_mask.frPyObjects([SQUARE], 40, 50))
    bitmap = coco_mask.decode(compressed)
    runs = np.diff(np.flatnonzero(np.diff(bitmap.flatten("F"), prepend=2, append=2))).tolist()
    masks = []
    for segmentation in (
        [SQUARE],
        {"size": [40, 50], "counts": compressed["counts"].decode()},
        {"size": [40, 50], "counts": runs},
    ):
        source = read(folder, content(annotation(segmentation=segmentation)))
        targets = CocoDataset(source.images, GEOMETRY, source.instances, mask_size=112)[0, 0].targets
        masks.append(targets.masks)
        assert targets.boxes.tolist() == [pytest.approx([12.8, 12.75, 38.4, 38.25])]
    assert all((mask != masks[0]).float().mean() < 0.01 for mask in masks)
    assert 0.9 < masks[0].sum() / (25.6 * 25.5) < 1.1


def change(path: str, value: Any) -> Any:
    """A COCO content with one value changed, or deleted where the value is `...`."""
    data: Any = copy.deepcopy(content())
    *way, last = path.split(".")
    node = data
    for step in way:
        node = node[int(step)] if step.isdecimal() else node[step]
    if value is ...:
        del node[last]
    else:
        node[int(last) if last.isdecimal() else last] = value
    return data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "needs the lists images, annotations and categories; it has list"),
        (change("images", ...), "it has categories, annotations"),
        (change("categories", []), "has no categories"),
        (change("images", []), "has no images"),
        (change("images.0.height", ...), "images, id 5, has no height"),
        (change("images.0.width", 0), "image 5 has width 0 and height 40"),
        (change("images.0", "a.png"), "images, entry 0, has no id"),
        (change("categories.1.id", 9), "categories: id 9 occurs twice"),
        (change("categories.1.id", "nine"), "categories: an id is 'nine'"),
        (
            change("annotations.0.category_id", 3),
            "annotation 7 of image 5 names category 3, which is not among the categories \\(2, 9\\)",
        ),
        (change("annotations.0.image_id", 6), "annotation 7 names image 6, which is not among the 1 images"),
        (change("annotations.0.bbox", [1, 2, 3]), "annotation 7 of image 5 has box \\[1, 2, 3\\]"),
        (change("annotations.0.bbox.2", float("nan")), r"has box \[10, 10, nan, 20\]; wanted four numbers"),
        (change("annotations.0.bbox", ...), "annotations, id 7, has no bbox"),
        (change("annotations.0.segmentation", [[1, 2, 3, 4]]), "a polygon of 4 numbers"),
        (change("annotations.0.segmentation", [[1, 2, 3, 4, 5, float("inf")]]), "no finite number"),
        (
            change("annotations.0.segmentation", {"size": [50, 40], "counts": [2000]}),
            "RLE of size \\[50, 40\\]; its image is \\[40, 50\\]",
        ),
        (
            change("annotations.0.segmentation", {"size": [40, 50], "counts": [3]}),
            "runs do not make up the 2000 pixels",
        ),
        (
            change("annotations.0.segmentation", {"size": [40, 50], "counts": [0.5, 1999.5]}),
            "a run that is no whole number",
        ),
        (
            change("annotations.0.segmentation", {"size": [40, 50], "counts": [-5, 2005]}),
            "a run that is no whole number",
        ),
        (change("annotations.0.segmentation", {"size": [40, 50], "counts": ["a"]}), "a run that is no whole number"),
        (change("annotations.0.segmentation", {"size": [40, 50], "counts": 5}), "an RLE with counts '5'"),
        (change("annotations.0.segmentation", {"size": [40, 50], "counts": ""}), "an RLE with counts ''; wanted"),
        (change("annotations.0.segmentation", {"size": [40, 50], "counts": "é一"}), "an RLE with counts 'é一'; wanted"),
        (
            change("annotations.0.segmentation", {"size": [40, 50], "counts": "\x7fnonsense"}),
            "annotation 7 of image 5 has a compressed RLE that cannot be read",
        ),
        (
            change("annotations.0.segmentation", {"size": [40, 50], "counts": "oooooooooooo0"}),
            "an RLE whose runs do not make up the 2000 pixels",
        ),
        (change("annotations.0.segmentation", {"size": 5, "counts": [2000]}), "RLE of size 5"),
        (change("annotations.0.segmentation", [[1e9, 1, 2, 1e9, 3, 3]]), "no finite number of pixels"),
        (change("annotations.0.segmentation", [[10**400, 1, 2, 9, 3, 3]]), "no finite number of pixels"),
        (change("annotations.0.bbox", [5, 5, -3, 3]), "whose width or height is negative"),
        (change("annotations.0.bbox", [5, 5, 1e308, 3]), "finite and at most"),
        (change("annotations.0.bbox", [True, True, True, True]), "wanted four numbers"),
        (change("annotations.0.image_id", [1]), "annotation 7 cannot be understood"),
        (change("annotations.0.category_id", {}), "annotation 7 cannot be understood"),
        (change("annotations.0.iscrowd", []), "has iscrowd \\[\\]; wanted 0 or 1"),
        (change("images.0.file_name", None), "image 5 has file_name None"),
        (change("images.0.height", 10**400), "at most 1000000"),
        (change("annotations.0.segmentation", "mask.png"), "neither polygons nor RLE"),
        (change("categories.1.name", "cat"), "two categories are called 'cat'"),
        (change("annotations.0.area", 0), "every annotation has area 0"),
        (change("annotations.0.area", float("nan")), "annotation 7 of image 5 has area nan"),
        (change("images.0.id", 2**63), "ids must be whole numbers of at most 64 bits"),
        (change("categories.0.id", True), "an id is True"),
        (change("categories.0.name", "a\ud800"), r"a category is called 'a\\ud800'"),
    ],
)
def test_faults_are_named(folder: Path, data: Any, sentence: str):
    with pytest.raises(UserError, match=sentence):
        read(folder, data)


def test_missing_and_malformed_files(folder: Path):
    path = coco_folder(folder, content())
    with pytest.raises(UserError, match=r"no\.json does not exist; .* its folder has instances_val\.json"):
        CocoFile(path.with_name("no.json"), folder / "images")
    with pytest.raises(UserError, match="is not a folder"):
        CocoFile(path, folder / "pictures")
    path.write_text(path.read_text()[:50])
    with pytest.raises(UserError, match="cannot be read as JSON: .*line 1 column"):
        CocoFile(path, folder / "images")


def test_images_that_cannot_be_read_are_named(folder: Path):
    source = read(folder, content())
    image, path = source.images[0], folder / "images" / "a.png"
    whole = path.read_bytes()
    assert read_image(image).shape == (40, 50, 3)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"image 5 \(.*a\.png\) cannot be read"):
        read_image(image)
    Image.new("RGB", (50, 50)).save(path)
    with pytest.raises(UserError, match="is 50x50, but its annotations say 50x40"):
        read_image(image)
    path.unlink()
    Image.new("F", (50, 40)).save(path, format="TIFF")
    with pytest.raises(UserError, match=r"image 5 \(.*a\.png\) has pixels of 32 bits, .* convert it to 8 bits"):
        read_image(image)
    path.unlink()
    with pytest.raises(UserError, match=r"image 5 \(.*a\.png\) does not exist"):
        read_image(image)


def test_a_photo_of_a_camera_on_its_side(folder: Path):
    """Stored lying, with a note to turn it: upright, unless only the stored pixels have the annotated size."""
    path = folder / "images" / "photo.jpg"
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[:, :25] = 255
    note = Image.Exif()
    note[274] = 6  # turn by 90 degrees, clockwise
    Image.fromarray(pixels).save(path, exif=note)
    data = content()
    data["images"] = [{"id": 5, "file_name": "photo.jpg", "height": 40, "width": 50}]
    image = read(folder, data).images[0]
    check_header(image)
    assert read_image(image)[:, 10].min() > 200 > read_image(image)[:, 40].min()
    data["images"][0] |= {"height": 50, "width": 40}
    data["annotations"] = []
    image = read(folder, data).images[0]
    check_header(image)
    assert (read_image(image) == np.rot90(read_image(replace(image, height=40, width=50)), -1)).all()
    data["images"][0] |= {"height": 50, "width": 41}
    for refuse in (check_header, read_image):
        with pytest.raises(UserError, match="see its EXIF orientation"):
            refuse(read(folder, data).images[0])
    note[274] = 3  # upside down
    Image.fromarray(pixels).save(path, exif=note)
    assert read_image(replace(image, height=40, width=50))[:, 40].min() > 200, "upright, as in prediction"


def test_training_reads_what_prediction_reads(tmp_path: Path):
    """Every orientation of every kind of file, 8 and 16 bits."""
    shallow = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9) * 4
    for number, (kind, how) in enumerate(
        [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"}), ("webp", {"lossless": True})]
    ):
        for deep in (False, True)[: 1 if kind == "webp" else 2]:
            for orientation, turn in {1: 0, 3: 2, 6: 3, 8: 1}.items():
                note = Image.Exif()
                note[274] = orientation
                path = tmp_path / f"{number}-{deep}-{orientation}.{kind}"
                Image.fromarray(shallow.astype(np.uint16) * 257 if deep else shallow).save(path, exif=note, **how)
                expected = np.rot90(shallow, turn)
                assert (to_picture(path) == expected[..., None]).all(), path.name
                image = ImageFile(1, path, *expected.shape)
                check_header(image)
                assert (read_image(image) == expected[..., None]).all(), path.name


def test_12_bits_in_16_are_not_black(tmp_path: Path):
    grey = np.array([[0, 16, 2048, 4095]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "b.png"), np.repeat(grey[..., None], 3, 2))
    for name in ("a.png", "b.png"):
        assert read_image(ImageFile(1, tmp_path / name, 1, 4)).tolist() == [[[v] * 3 for v in (0, 0, 127, 255)]]
        assert to_picture(tmp_path / name)[0, :, 0].tolist() == [0, 0, 127, 255]
    cv2.imwrite(str(tmp_path / "b.png"), np.stack([grey, grey, grey * 16], 2))
    assert read_image(ImageFile(1, tmp_path / "b.png", 1, 4))[0, 3].tolist() == [254, 15, 15], "16 bits, RGB"


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True, "quality": 30}], ids=str)
def test_a_jpeg_has_the_pixels_that_pillow_reads(folder: Path, options: dict[str, Any]):
    path = folder / "images" / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    Image.fromarray(pixels).resize((50, 40)).save(path, **options)
    with Image.open(path) as picture:
        expected = np.asarray(picture.convert("RGB"))
    assert (read_image(ImageFile(1, path, 40, 50)) == expected).all()
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match=r"image 1 \(.*photo\.jpg\) cannot be read: .*truncated"):
        read_image(ImageFile(1, path, 40, 50))


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA", "1", "LA"])
def test_every_kind_of_picture_becomes_rgb(folder: Path, mode: str):
    path = folder / "images" / f"b.{'tif' if mode == 'CMYK' else 'png'}"
    Image.new("RGB", (50, 40), (220, 150, 80)).convert(mode).save(path)
    pixels = read_image(ImageFile(1, path, 40, 50))
    assert pixels.shape == (40, 50, 3)
    expected = (220, 150, 80) if mode in ("CMYK", "P", "RGBA") else (163, 163, 163)  # its luminance
    assert np.abs(pixels.mean(axis=(0, 1)) - expected).max() < (30 if mode == "P" else 3)  # a palette of 216 colours


def test_an_unreadable_image_is_replaced_only_where_asked_for(folder: Path):
    data = content()
    data["images"].append({"id": 6, "file_name": "gone.png", "height": 40, "width": 50})
    source = read(folder, data)
    replaced = CocoDataset(source.images, GEOMETRY, source.instances, substitute=True)[0, 1]
    assert (replaced.image_id, len(replaced.targets.boxes), len(replaced.problems)) == (5, 1, 1)
    blank = CocoDataset(source.images, GEOMETRY)[0, 1]
    assert (blank.image_id, len(blank.problems)) == (-1, 1)
    assert "gone.png" in blank.problems[0]


def test_a_sample_depends_on_seed_epoch_and_position_only(shapes_source: Path):
    from queryinst.data.transforms import TrainGeometry

    source = CocoFile(shapes_source / "annotations" / "instances_train.json", shapes_source / "images" / "train")
    geometry = TrainGeometry(
        AugmentationConfig(
            short_sides=[64, 96, 128], long_side=128, crop=0.5, crop_short_sides=[90], crop_sides=[48, 80]
        )
    )

    def sizes(seed: int, keys: list[tuple[int, int]]) -> list[tuple]:
        dataset = CocoDataset(source.images, geometry, source.instances, seed=seed)
        return [(tuple(dataset[key].image.shape), int(dataset[key].image.sum())) for key in keys]

    keys = [(epoch, position) for epoch in range(3) for position in range(6)]
    assert sizes(0, keys) == sizes(0, keys[::-1])[::-1]
    assert sizes(0, keys) != sizes(1, keys)
    assert sizes(0, keys[:6]) != sizes(0, keys[6:12])


def test_every_annotation_of_shapes_makes_a_target(shapes_source: Path):
    source = CocoFile(shapes_source / "annotations" / "instances_train.json", shapes_source / "images" / "train")
    dataset = CocoDataset(source.images, GEOMETRY, source.instances, mask_size=112)
    plain = [a for a in json.loads(source.path.read_text())["annotations"] if not a["iscrowd"]]
    targets = [dataset[0, position].targets for position in range(len(dataset))]
    assert sum(len(t.boxes) for t in targets) == len(plain)
    assert all((t.masks.flatten(1).sum(1) > 0).all() for t in targets)
