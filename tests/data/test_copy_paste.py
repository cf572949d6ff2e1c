"""Objects of another training image are pasted: pixels, masks and boxes agree, and nothing else changes."""

import hashlib
import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import coco_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from queryinst.config import AugmentationConfig
from queryinst.data import dataset as dataset_module
from queryinst.data.coco import CocoFile
from queryinst.data.copy_paste import CopyPaste, paste
from queryinst.data.dataset import CocoDataset, Sample
from queryinst.data.images import ImageFile
from queryinst.data.transforms import Geometry, Instances, TrainGeometry
from queryinst.ops.masks import LocalMask, Polygons

Rng = np.random.Generator
Pixels = np.ndarray
# Of samples as they were before there was pasting: flips, crops at whole pixels, colours and a step of somebody's own.
BEFORE = "4e821cc5cead9c0bc8684a5ee9394aa28f8b0750cf9e9fadec0cc35194abf5a6"
WITHOUT_RESAMPLING = AugmentationConfig(scale_jitter=[1.5, 1.5], jitter_side=64)  # images have a longest side of 96


@pytest.fixture
def noise(tmp_path: Path) -> list[ImageFile]:
    """Six images of noise, half of them tall."""
    rng, files = np.random.default_rng(8), []
    for key in range(6):
        height, width = (96, 80) if key % 2 else (80, 96)
        path = tmp_path / f"{key}.png"
        cv2.imwrite(str(path), rng.integers(0, 256, (height, width, 3), np.uint8))
        files.append(ImageFile(key, path, height, width))
    return files


def two_objects(image: ImageFile) -> Instances:
    rng = np.random.default_rng(image.id)
    corners = rng.integers(0, 60, (2, 2)).astype(float)
    boxes = np.hstack([corners, corners + 20])
    return Instances(boxes, rng.integers(0, 3, 2), [[np.array([[x, y], [r, y], [r, b]])] for x, y, r, b in boxes])


def plain_colours(pixels: np.ndarray, rng: Rng) -> np.ndarray:
    """In place of those that compute in ways that differ from machine to machine."""
    return pixels + rng.integers(0, 9, 3, np.uint8)


def noisy(pixels: np.ndarray, instances: Instances, rng: Rng) -> tuple[np.ndarray, Instances]:
    return pixels + rng.integers(0, 9, pixels.shape, np.uint8), instances


def digest(samples: list[Sample]) -> str:
    content = hashlib.sha256()
    for sample in samples:
        targets = sample.targets
        for part in (sample.image, targets.boxes, targets.labels, targets.masks, targets.mask_boxes):
            content.update(part.numpy().tobytes())
    return content.hexdigest()


def test_without_pasting_every_sample_is_what_it_was(noise: list[ImageFile], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset_module, "distort", plain_colours)
    geometry = TrainGeometry(WITHOUT_RESAMPLING)
    data = CocoDataset(noise, geometry, two_objects, 16, seed=4, photometric=0.5, substitute=True, steps=noisy)
    samples = [data[epoch, position] for epoch in range(3) for position in range(6)]
    assert digest(samples) == BEFORE


def bitmaps(instances: Instances, height: int, width: int) -> Pixels:
    """(G, height, width) of bool; of an object with a box only nothing."""
    side = max(height, width)
    regions = np.tile(np.array([0, 0, side, side], np.float32), (len(instances), 1))
    return instances.draw(regions, side, height, width)[:, :height, :width] == 1


def rectangle(x: float, y: float, right: float, bottom: float) -> Polygons:
    return [np.array([[x, y], [right, y], [right, bottom], [x, bottom]], float)]


def scene(rng: Rng, height: int, width: int, first: int, apart: bool) -> tuple[Pixels, Instances]:
    """Objects one upon the other, each in the colour that its label says: polygons, bitmaps, and boxes only.

    `apart`: each mask is what is seen of its object, as in a well annotated photograph.
    """
    pixels, boxes, outlines = np.full((height, width), 255 if apart else 0, np.uint8), [], []
    for label in range(first, first + int(rng.integers(0, 7))):
        (x, right), (y, bottom) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in (width, height))
        boxes.append([x, y, right, bottom])
        there = pixels[y:bottom, x:right]
        kind = rng.integers(0, 5)
        if kind == 0 and not apart:
            outlines.append([])
        elif kind < 3 and not (apart and (there < 255).any()):
            outlines.append(rectangle(x, y, right, bottom))
            there[:] = label
        else:
            seen = (rng.random(there.shape) < 0.7) & ((there == 255) | (not apart))
            seen[0, 0] |= not apart
            outlines.append(LocalMask(seen.astype(np.uint8), int(x), int(y)))
            there[seen] = label
    labels = np.arange(first, first + len(boxes))
    return np.repeat(pixels[..., None], 3, 2), Instances(np.array(boxes, float).reshape(-1, 4), labels, outlines)


def whole_pixels(rng: Rng, height: int, width: int) -> Geometry:
    """A flip and a crop, which mix no colours."""
    geometry = Geometry.identity(height, width)
    geometry = geometry.flip() if rng.random() < 0.5 else geometry
    (left, right), (top, bottom) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in (width, height))
    return geometry.crop(left, top, bottom - top, right - left)


def tight(mask: Pixels) -> list[int]:
    y, x = np.nonzero(mask)
    return [x.min(), y.min(), x.max() + 1, y.max() + 1]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_colours_masks_and_boxes_agree(seed: int, height: int, width: int, tall: int, wide: int):
    rng = np.random.default_rng(seed)
    pixels, under = scene(rng, height, width, 1, apart=False)
    source, over = scene(rng, tall, wide, 101, apart=True)
    geometry = whole_pixels(rng, tall, wide)
    source, over = geometry.image(source), geometry.instances(over)
    before, room = bitmaps(under, height, width), np.minimum((height, width), source.shape[:2])
    above = np.zeros((len(over), height, width), bool)
    above[:, : room[0], : room[1]] = bitmaps(over, *source.shape[:2])[:, : room[0], : room[1]]
    original, result = pixels.copy(), paste(pixels, under, source, over)
    assert np.array_equal(pixels, original), "what was given stays"

    pixels, after = result
    masks = bitmaps(after, height, width)
    pasted, covered = after.labels > 100, above.any(axis=0)
    top = np.zeros((height, width), int)
    for label, mask in zip(after.labels, masks, strict=True):
        top[mask] = label
    assert np.array_equal(pixels, np.repeat(top[..., None], 3, 2)), "a pixel has the colour of the top-most object"
    assert (masks[:, covered].sum(axis=0) == 1).all(), "on a pasted object there is no other"

    box_only = {label for label, outline in zip(under.labels, under.outlines, strict=True) if not outline}
    expected = dict(zip(under.labels, before & ~covered, strict=True)) | dict(zip(over.labels, above, strict=True))
    assert after.labels.tolist() == [key for key, mask in expected.items() if mask.any() or key in box_only]
    for label, mask, box, outline, new in zip(after.labels, masks, after.boxes, after.outlines, pasted, strict=True):
        assert np.array_equal(mask, expected[label])
        if new or not np.array_equal(mask, before[label - 1]):
            assert box.tolist() == tight(mask)
        else:
            assert box.tolist() == under.boxes[label - 1].tolist()
            assert outline is under.outlines[label - 1], "what is not hidden is not drawn"


DIAMOND = [np.array([[30.2, 10.1], [49.7, 29.6], [30.4, 49.8], [10.3, 30.7]])]


def test_objects_with_maps_of_their_own_move_on_together():
    """A resized bitmap, a resized polygon and what is pasted, then a flip and a crop of a step of somebody's own."""
    outlines = [DIAMOND, LocalMask(np.tri(30, dtype=np.uint8), 50, 5), rectangle(60, 40, 80, 60)]
    boxes = np.array([[10.0, 10, 50, 50], [50, 5, 80, 35], [60, 40, 80, 60]])
    under = Geometry.identity(60, 80).resize(79, 96).instances(Instances(boxes, np.arange(3), outlines))
    over = Geometry.identity(60, 80).flip().resize(90, 90).instances(Instances(boxes[:1], np.array([3]), [DIAMOND]))
    _, joined = paste(np.zeros((79, 96, 3), np.uint8), under, np.ones((90, 90, 3), np.uint8), over)
    (above,) = bitmaps(over, 79, 96)
    masks = bitmaps(joined, 79, 96)
    assert np.array_equal(masks, [*(bitmaps(under, 79, 96) & ~above), above])
    assert [isinstance(outline, LocalMask) for outline in joined.outlines] == [True, True, False, True]
    further = Geometry.identity(79, 96).flip().crop(10, 4, 60, 70)
    moved = bitmaps(further.instances(joined), 60, 70)
    assert np.array_equal(moved, masks[:, 4:64, ::-1][:, :, 10:80])
    assert np.array_equal(bitmaps(joined.take(np.array([2, 0])), 79, 96), masks[[2, 0]])


def test_pasted_objects_overlap_as_they_did():
    """A window in a wall, say: neither is cut, as neither was in the other image."""
    over = Instances(
        np.array([[0.0, 0, 8, 8], [2, 2, 4, 4]]), np.arange(2), [rectangle(0, 0, 8, 8), rectangle(2, 2, 4, 4)]
    )
    blank = np.zeros((9, 9, 3), np.uint8)
    assert bitmaps(paste(blank, Instances.none(), blank, over)[1], 9, 9).sum(axis=(1, 2)).tolist() == [64, 4]


@pytest.fixture
def plain(tmp_path: Path) -> list[ImageFile]:
    """Four images of 10 x 10 pixels, each of one colour: 100 and its position."""
    files = []
    for key in range(4):
        cv2.imwrite(str(tmp_path / f"{key}.png"), np.full((10, 10, 3), 100 + key, np.uint8))
        files.append(ImageFile(key, tmp_path / f"{key}.png", 10, 10))
    return files


def as_it_is(height: int, width: int, rng: Rng) -> Geometry:
    return Geometry.identity(height, width)


def columns(image: ImageFile) -> Instances:
    """Three objects of one column each, and a box."""
    boxes = np.array([[x, 0.0, x + 1, 10] for x in (1, 3, 5, 7)])
    outlines = [*(rectangle(*box) for box in boxes[:3]), []]
    return Instances(boxes, 10 * image.id + np.arange(4), outlines)


def pasted(sample: Sample) -> tuple[int, list[int]]:
    """The image that objects are of, and which ones."""
    labels = [label for label in sample.targets.labels.tolist() if label // 10 != sample.image_id]
    (other,) = {label // 10 for label in labels} or {-1}
    return other, [label % 10 for label in labels]


def test_any_objects_with_masks_of_any_other_image_as_often_as_asked_for(plain: list[ImageFile]):
    data = CocoDataset(plain, as_it_is, columns, seed=1, copy_paste=0.6)
    drawn = [pasted(data[epoch, 2]) for epoch in range(400)]
    assert 0.54 < np.mean([other >= 0 for other, _ in drawn]) < 0.66
    for other in (0, 1, 3):
        assert 60 < sum(of == other for of, _ in drawn) < 100, "never the image itself, and the others equally"
    subsets = [tuple(objects) for _, objects in drawn if objects]
    every = {part for count in (1, 2, 3) for part in itertools.combinations(range(3), count)}
    assert set(subsets) == every, "never the one that has a box only"
    assert 50 < subsets.count((0, 1, 2)) < 110, "one, two or three, equally"


def test_the_other_image_has_a_geometry_of_its_own(plain: list[ImageFile]):
    def shifted(height: int, width: int, rng: Rng) -> Geometry:
        return Geometry.identity(height, width).crop(int(rng.integers(0, 2)), 0, height, width)

    data = CocoDataset(plain, shifted, columns, seed=1, copy_paste=1.0)
    shifts = set()
    for epoch in range(30):
        sample = data[epoch, 0]
        begins = sample.targets.boxes[:, 0] - 1 - 2 * (sample.targets.labels % 10)
        shifts |= {(bool(label >= 10), int(begin)) for begin, label in zip(begins, sample.targets.labels, strict=True)}
        (plain_shift,) = set(begins[sample.targets.labels == 3].tolist())
        without = CocoDataset(plain, shifted, columns, seed=1)[epoch, 0].targets
        assert plain_shift == float(without.boxes[3, 0]) - 7
    assert shifts == {(False, 0), (False, -1), (True, 0), (True, -1)}


def test_a_sample_depends_on_seed_epoch_and_position_only(noise: list[ImageFile]):
    """And all else in it is drawn as it is without pasting."""
    geometry = TrainGeometry(
        AugmentationConfig(short_sides=[40, 64], crop=0.5, crop_short_sides=[70], crop_sides=[30, 60])
    )

    def data(probability: float) -> CocoDataset:
        return CocoDataset(
            noise, geometry, two_objects, 16, 4, photometric=0.5, substitute=True, steps=noisy, copy_paste=probability
        )

    keys = [(epoch, position) for epoch in range(4) for position in range(6)]
    first, second = data(0.5), data(0.5)
    samples = [first[key] for key in keys]
    assert digest(samples) == digest([second[key] for key in keys[::-1]][::-1])
    same = [digest([sample]) == digest([data(0.0)[key]]) for key, sample in zip(keys, samples, strict=True)]
    assert 4 < sum(same) < 20
    assert all(sample.image.shape == data(0.0)[key].image.shape for key, sample in zip(keys, samples, strict=True))


def test_colours_and_steps_come_after(plain: list[ImageFile], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dataset_module, "distort", lambda pixels, rng: pixels + np.uint8(50))
    met = []

    def step(pixels: Pixels, instances: Instances, rng: Rng) -> tuple[Pixels, Instances]:
        met.append((np.unique(pixels).tolist(), len(instances)))
        return pixels, instances

    sample = CocoDataset(plain[:2], as_it_is, columns, photometric=1.0, steps=step, copy_paste=1.0)[0, 0]
    assert met == [([150, 151], len(sample.targets.labels))]
    assert pasted(sample)[0] == 1


def test_where_nothing_can_be_pasted_nothing_changes(plain: list[ImageFile], tmp_path: Path):
    def served(images: list[ImageFile], probability: float, instances: object = columns) -> Sample:
        return CocoDataset(images, as_it_is, instances, copy_paste=probability, substitute=True)[0, 0]

    alone = served(plain[:1], 0)
    assert digest([served(plain[:1], 1)]) == digest([alone]), "there is no other image"
    missing = ImageFile(9, tmp_path / "gone.png", 10, 10)
    assert digest([served([plain[0], missing], 1)]) == digest([alone]), "the other image cannot be read"
    assert served([plain[0], missing], 1).problems == ()
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "segmentation": []}
    crowd = box | {"id": 2, "iscrowd": 1, "segmentation": {"size": [10, 10], "counts": [0, 100]}}
    content = {"categories": [{"id": 1, "name": "a"}], "annotations": [box, crowd]}
    content["images"] = [{"id": key, "file_name": f"{key}.png", "height": 10, "width": 10} for key in (0, 1)]
    source = CocoFile(coco_folder(tmp_path, content), tmp_path)
    sample = served(list(source.images), 1, source.instances)
    assert (sample.image == 100).all(), "the other has a crowd region and a box only"
    assert sample.targets.counts == [0]


def test_an_image_without_masks_is_not_read(plain: list[ImageFile], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("queryinst.data.copy_paste.read_image", lambda image: pytest.fail("it was read"))
    draw = CopyPaste(1.0, plain, as_it_is, lambda image: columns(image).take(np.array([3])))
    draw(plain[0], np.zeros((10, 10, 3), np.uint8), columns(plain[0]), np.random.default_rng(0))
