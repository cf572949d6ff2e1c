"""One image's instances in every form."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from queryinst.errors import UserError
from queryinst.inference import result as results
from queryinst.inference.result import Classes, Result, save
from queryinst.inference.select import labels_of, suppress
from queryinst.ops import masks as mask_ops
from queryinst.structures import Detections
from queryinst.visualize import draw

CLASSES = Classes((4, 7, 90), ("cat", "dog", "traffic light"))
IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
BOXES = [[10, 10, 30, 40], [10, 10, 30, 38], [50, 20, 90, 50], [10, 10, 30, 40], [5, 5, 5, 5]]


@pytest.fixture
def result() -> Result:
    detections = Detections(
        torch.tensor(BOXES, dtype=torch.float32),
        torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]),
        torch.tensor([0, 0, 1, 2, 0]),
        torch.ones(5, 28, 28),
        (60, 80),
        torch.arange(5),
    )
    return Result(detections, CLASSES, pixels=IMAGE)


def test_columns(result: Result):
    assert len(result) == 5
    assert result.boxes.shape == (5, 4)
    assert (result.boxes.dtype, result.scores.dtype, result.labels.dtype) == (np.float32, np.float32, np.int64)
    assert result.names == ["cat", "cat", "dog", "traffic light", "cat"]
    assert result.size == (60, 80)
    assert repr(result) == "Result(0, 80x60: 3 cat, 1 dog, 1 traffic light)"
    assert repr(result[:0]) == "Result(0, 80x60: nothing)"
    assert repr(replace(result, path=Path("some/a.jpg"))) == "Result(a.jpg, 80x60: 3 cat, 1 dog, 1 traffic light)"
    assert repr(replace(result[2:], number=7)) == "Result(7, 80x60: 1 dog, 1 traffic light, 1 cat)"


def test_the_most_frequent_class_is_said_first(result: Result):
    assert repr(result[[2, 0, 1]]) == "Result(0, 80x60: 2 cat, 1 dog)"


def test_some_of_them(result: Result):
    assert result[result.scores > 0.65].labels.tolist() == [0, 0, 1]
    assert result[[3, 0]].labels.tolist() == [2, 0]
    assert result[-1].scores.tolist() == [0.5]
    assert result[1:3].detections.queries.tolist() == [1, 2]
    assert [one.names for one in result][:3] == [["cat"], ["cat"], ["dog"]]
    with pytest.raises(IndexError):
        result[5]


def test_masks_that_were_made_are_not_made_again(result: Result, monkeypatch: pytest.MonkeyPatch):
    expected = result[[3, 1]].rles
    assert len(result.rles) == 5
    assert len(result.local_masks) == 5
    monkeypatch.setattr(mask_ops, "paste", None)
    monkeypatch.setattr(results, "rles_of", None)
    assert result[[3, 1]].rles == expected
    assert [mask.top for mask in result[2:].local_masks] == [mask.top for mask in result.local_masks[2:]]
    assert result[result.scores > 0.85][0].rles == result.rles[:1]


def test_masks_are_made_when_they_are_asked_for_and_kept(result: Result):
    assert not {"masks", "rles", "local_masks"} & vars(result).keys()
    assert result.rles[0]["size"] == [60, 80]
    assert "masks" not in vars(result), "codes need no bitmap of the image"
    masks = result.masks
    assert (masks.shape, masks.dtype) == ((5, 60, 80), np.bool_)
    assert masks is result.masks
    assert masks.sum((1, 2)).tolist() == [600, 560, 30 * 30, 600, 0]
    assert masks[0, 10:40, 10:30].all()
    assert (coco_mask.decode(result.rles).transpose(2, 0, 1) == masks).all()


def test_coco(result: Result):
    entry = result.to_coco(17)[2]
    assert entry["segmentation"]["counts"].encode() == result.rles[2]["counts"]
    del entry["segmentation"]
    assert entry == {"image_id": 17, "category_id": 7, "bbox": [50, 20, 40, 30], "score": pytest.approx(0.7)}


def test_pictures(result: Result, tmp_path: Path):
    drawn = result.draw()
    assert drawn.shape == (60 * 5, 80 * 5, 3)
    colour = draw.colour(2)  # of the third instance, which nothing covers; here is no contour and no letter
    plain = IMAGE[45, 75].astype(float)
    for opacity, picture in ((0.45, drawn), (0.9, result.draw(0.9))):
        expected = plain * (1 - opacity) + np.array(colour) * opacity
        assert picture[45 * 5 + 2, 75 * 5 + 2] == pytest.approx(expected, abs=1)
    result.save(tmp_path / "seen.png")
    assert (cv2.imread(str(tmp_path / "seen.png"))[..., ::-1] == drawn).all()
    for name in ("seen.jpg", "seen.webp"):
        result.save(str(tmp_path / name))
        assert cv2.imread(str(tmp_path / name)).shape == drawn.shape
    wrong = dict.fromkeys(("seen.doc", "seen"), "as '{}'; give a name that ends in .png, .jpg or .webp")
    for name, sentence in (wrong | {"no/seen.png": "(No such file or directory); give another place"}).items():
        with pytest.raises(UserError) as error:
            result.save(tmp_path / name)
        suffix = Path(name).suffix
        assert str(error.value) == f"{tmp_path / name} cannot be written {sentence.format(suffix)}"
    with pytest.raises(UserError, match="has no image"):
        Result(result.detections, CLASSES).draw()
    save(IMAGE, tmp_path / "image.png")
    from_file = Result(result.detections, CLASSES, tmp_path / "image.png")
    assert (from_file.draw() == drawn).all()


def test_cutouts(result: Result, tmp_path: Path):
    cut = result.cutouts()
    assert [one.shape for one in cut] == [(30, 20, 4), (28, 20, 4), (30, 30, 4), (30, 20, 4), (0, 0, 4)]
    assert (cut[0][..., :3] == IMAGE[10:40, 10:30]).all()
    assert (cut[0][..., 3] == 255).all()
    save(cut[0], tmp_path / "cut.png")
    assert (cv2.imread(str(tmp_path / "cut.png"), cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]] == cut[0]).all()


def test_a_cutout_is_what_the_mask_covers_not_what_its_box_does(result: Result):
    masks = torch.zeros(1, 28, 28)
    masks[:, 7:14, 14:28] = 1  # of the box's height the second quarter, of its width the right half
    detections = replace(result.detections.take(torch.tensor([0])), masks=masks, boxes=torch.tensor([[8.0, 4, 36, 32]]))
    (cut,) = Result(detections, CLASSES, pixels=IMAGE).cutouts()
    assert cut.shape == (7, 14, 4)
    assert (cut[..., :3] == IMAGE[11:18, 22:36]).all()


def test_tracks_colour_what_is_drawn(result: Result):
    assert result.tracks is None
    one, other = (
        Result(replace(result.detections, tracks=torch.tensor(tracks)), CLASSES, pixels=IMAGE)
        for tracks in ([9, 8, 7, 6, 5], [9, 8, 3, 6, 5])
    )
    assert one.tracks is not None
    assert one.tracks.tolist() == [9, 8, 7, 6, 5]
    place = 45 * 5 + 2, 75 * 5 + 2
    for drawn, track in ((one.draw(1.0), 7), (other.draw(1.0), 3), (result.draw(1.0), 2)):
        assert drawn[place].tolist() == list(draw.colour(track))


def test_a_cutout_has_holes_where_the_mask_has(result: Result):
    masks = torch.ones(1, 28, 28)
    masks[:, 10:18, 10:18] = 0
    result = Result(
        Detections(*[getattr(result[0].detections, n) for n in ("boxes", "scores", "labels")], masks, (60, 80)),
        CLASSES,
        pixels=IMAGE,
    )
    (cut,) = result.cutouts()
    assert cut[15, 10, 3] == 0
    assert cut[0, 0, 3] == 255
    assert (cut[..., 3] > 0).sum() == result.masks.sum()


def test_supervision(result: Result, monkeypatch: pytest.MonkeyPatch):
    found = result.to_supervision()
    assert len(found) == 5
    assert list(found.data["class_name"]) == result.names
    assert (found.xyxy == result.boxes).all()
    assert (found.mask == result.masks).all()
    assert found.class_id.tolist() == [0, 0, 1, 2, 0]
    assert found.confidence.tolist() == result.scores.tolist()
    assert len(result[:0].to_supervision()) == 0
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"pip install 'queryinst\[supervision\]'"):
        result.to_supervision()


def test_of_two_masks_of_a_class_the_better_stays(result: Result):
    assert suppress(result, 0.5).detections.queries.tolist() == [0, 2, 3, 4], "another class and an empty mask stay"
    overlap = float(coco_mask.iou(result.rles[:1], result.rles[1:2], [0])[0, 0])
    assert suppress(result, overlap).detections.queries.tolist() == [0, 1, 2, 3, 4], "as much is not above"
    assert suppress(result, 0.95).detections.queries.tolist() == [0, 1, 2, 3, 4], "the IoU is 0.93"
    assert len(suppress(result[:0], 0.5)) == 0
    chain = [[0, 0, 20, 20], [8, 0, 28, 20], [16, 0, 36, 20]]  # the second goes, so the third has no rival
    detections = Detections(
        torch.tensor(chain, dtype=torch.float32), torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64),
        torch.ones(3, 28, 28), (60, 80), torch.arange(3),
    )  # fmt: skip
    assert suppress(Result(detections, CLASSES), 0.3).detections.queries.tolist() == [0, 2]


def test_classes_by_name_or_id():
    assert labels_of(["traffic light", 4], CLASSES) == [0, 2]
    assert labels_of("dog", CLASSES) == [1]
    assert labels_of(["7"], Classes((7, 1), ("one", "7"))) == [1], "a name counts before an id"
