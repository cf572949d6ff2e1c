"""`queryinst.load(path).predict(images)`: the same as evaluation finds, and less of it where that is asked for."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

import queryinst
from queryinst.checkpoints.load import load
from queryinst.data.collate import collate
from queryinst.data.dataset import CocoDataset
from queryinst.data.images import ImageFile
from queryinst.data.transforms import EvaluationGeometry
from queryinst.errors import UserError
from queryinst.evaluation.coco import to_coco
from queryinst.inference.predictor import Predictor, device_of
from queryinst.inference.result import Result
from queryinst.inference.tracking import tracked
from queryinst.models.postprocess import detect
from queryinst.video_config import TrackerConfig

Photos = list[NDArray[np.uint8]]


@pytest.fixture(scope="module")
def predictor(untrained: Path) -> Predictor:
    return queryinst.load(untrained, device="cpu")


@pytest.fixture
def photos() -> Photos:
    rng = np.random.default_rng(0)
    sizes = [(60, 80), (80, 60), (40, 120), (64, 64), (90, 70)]
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


def same(a: Result, b: Result) -> None:
    assert a.labels.tolist() == b.labels.tolist()
    np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-3)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


@pytest.mark.parametrize("module", ["queryinst", "queryinst.inference.sources"])
def test_torch_is_not_waited_for(module: str):
    code = f"import sys, queryinst, {module}; queryinst.load; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "False\n"


def test_it_finds_what_evaluation_finds(untrained: Path, predictor: Predictor, photos: Photos, tmp_path: Path):
    files = []
    for number, photo in enumerate(photos):
        path = tmp_path / f"{number}.png"
        cv2.imwrite(str(path), photo[..., ::-1])
        files.append(ImageFile(number, path, *photo.shape[:2]))
    checkpoint = load(untrained)
    model, dataset = checkpoint.build(), CocoDataset(files, EvaluationGeometry(checkpoint.config.augmentation))
    batch = collate([dataset[0, number] for number in range(len(photos))])
    with torch.no_grad():
        output = model(batch.images, batch.sizes)
    expected = detect(model, output, batch.sizes, batch.original_sizes, checkpoint.config.model.postprocess)
    found = predictor.predict([file.path for file in files], score=0, batch_size=5)
    for number, (result, detections) in enumerate(zip(found, expected, strict=True)):
        for ours, theirs in zip(result.to_coco(number), to_coco(number, detections, [4, 7, 90]), strict=True):
            assert (ours["image_id"], ours["category_id"]) == (number, theirs["category_id"])
            assert ours["score"] == pytest.approx(theirs["score"], abs=1e-5)
            assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-3)
            masks = [coco_mask.decode(entry["segmentation"]) for entry in (ours, theirs)]
            assert (masks[0] != masks[1]).mean() < 0.001
        assert result.path == files[number].path
        assert (result.image == photos[number]).all()


def test_one_image_gives_a_result_and_a_list_a_list(predictor: Predictor, photos: Photos, tmp_path: Path):
    photo, path = photos[0], tmp_path / "a.png"
    Image.fromarray(photo).save(path)
    alone = predictor.predict(photo)
    assert isinstance(alone, Result)
    many: list[Any] = [path, str(path), Image.fromarray(photo), torch.from_numpy(photo).permute(2, 0, 1), photo]
    results = predictor.predict(many, batch_size=2)
    assert isinstance(results, list)
    for result in results:
        same(result, alone)
    assert len(predictor.predict(path)) == len(alone) > 0
    assert predictor.predict([]) == []
    assert [result.path for result in results] == [path, path, None, None, None]
    assert (predictor.names, predictor.category_ids) == (["cat", "dog", "traffic light"], [4, 7, 90])
    assert (predictor.num_stages, predictor.num_proposals) == (2, 6)


def test_results_come_in_order_whatever_the_batch(predictor: Predictor, photos: Photos):
    for size in (1, 2, 8):
        results = list(predictor.stream(photos, batch_size=size, workers=3))
        assert [result.number for result in results] == list(range(5))
        assert [result.size for result in results] == [photo.shape[:2] for photo in photos]
    alone, pair = predictor.predict(photos[3]), predictor.predict([photos[3], photos[3]])
    assert len(alone) > 0
    same(pair[0], alone)
    same(pair[1], alone)


def test_score_classes_and_number(predictor: Predictor, photos: Photos):
    everything = predictor.predict(photos[0], score=0, max_detections=18)
    assert len(everything) == 18
    assert (np.diff(everything.scores) <= 0).all()
    middle = float(everything.scores[8])
    same(predictor.predict(photos[0], score=middle, max_detections=18), everything[:9])
    same(predictor.predict(photos[0], score=0, max_detections=4), everything[:4])
    for classes in (["dog"], [7], ["7"], "dog"):
        same(predictor.predict(photos[0], score=0, classes=classes), everything[everything.labels == 1])
    assert len(predictor.predict(photos[0], score=1)) == 0
    assert predictor.predict(photos[0], score=1).to_coco(3) == []
    assert predictor.predict(photos[0], score=1).masks.shape == (0, 60, 80)


def test_one_class_a_query(predictor: Predictor, photos: Photos):
    everything = predictor.predict(photos[0], score=0, max_detections=18)
    assert everything.detections.queries is not None
    queries = everything.detections.queries.numpy()
    assert sorted(queries) == sorted([*range(6)] * 3)
    _, best = np.unique(queries, return_index=True)  # rows are in order of score
    one = predictor.predict(photos[0], score=0, one_class=True)
    same(one, everything[np.sort(best)])
    dogs = predictor.predict(photos[0], score=0, one_class=True, classes=["dog"])
    same(dogs, one[one.labels == 1])


def test_mask_nms(predictor: Predictor, photos: Photos):
    everything = predictor.predict(photos[0], score=0, max_detections=18)
    thinned = predictor.predict(photos[0], score=0, nms=0.1, max_detections=18)
    assert 0 < len(thinned) < len(everything)
    same(predictor.predict(photos[0], score=0, nms=0.1, max_detections=2), thinned[:2])


def test_fewer_stages_and_proposals(predictor: Predictor, photos: Photos):
    whole = predictor.predict(photos[0], score=0)
    first = predictor.predict(photos[0], score=0, stages=1)
    assert not np.allclose(first.boxes, whole.boxes)
    assert len(predictor.predict(photos[0], score=0, proposals=2)) == 2
    same(predictor.predict(photos[0], score=0, stages=2, proposals=6), whole)


def test_bf16_is_nearly_the_same(untrained: Path, predictor: Predictor, photos: Photos):
    rounded, exact = (p.predict(photos[0], score=0) for p in (queryinst.load(untrained, "cpu", "bf16"), predictor))
    assert len(rounded) == len(exact)
    assert rounded.boxes.dtype == np.float32
    np.testing.assert_allclose(rounded.scores, exact.scores, atol=0.1)


def test_a_stream_takes_images_as_they_are_needed_and_tells_of_faults(predictor: Predictor, photos: Photos):
    taken: list[int] = []

    def endless() -> Any:
        while True:
            taken.append(1)
            yield photos[len(taken) % 5] if len(taken) % 2 else "gone.jpg"

    faults: list[UserError] = []
    stream = predictor.stream(endless(), batch_size=1, workers=1, fault=faults.append)
    assert [next(stream).number for _ in range(3)] == [0, 2, 4]
    stream.close()  # type: ignore[attr-defined]
    assert len(taken) < 15
    assert len(faults) >= 2
    assert "gone.jpg does not exist" in str(faults[0])
    with pytest.raises(UserError, match=r"gone\.jpg does not exist"):
        predictor.predict([photos[0], "gone.jpg"])


def test_whoever_closes_the_results_closes_the_images(predictor: Predictor, photos: Photos):
    closed: list[str] = []

    def camera() -> Iterator[NDArray[np.uint8]]:
        try:
            while True:
                yield photos[0]
        finally:
            closed.append("camera")

    images = camera()  # held here, so that nothing lets go of it by chance
    stream = predictor.stream(images, batch_size=1, workers=1, score=0)
    followed = tracked(stream, TrackerConfig(by="iou"))
    next(followed)
    assert not closed
    followed.close()  # type: ignore[attr-defined]
    assert closed == ["camera"]
    assert next(stream, None) is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"score": 2}, "score must be at least 0 and at most 1"),
        ({"nms": -0.5}, "nms must be at least 0 and at most 1"),
        ({"stages": 3}, "stages must be at least 1 and at most 2, of this model; got 3"),
        ({"proposals": 7}, "proposals must be at least 1 and at most 6"),
        ({"max_detections": 0}, "max_detections must be at least 1"),
        ({"batch_size": 0}, "batch_size and workers must be at least 1"),
        ({"classes": ["dgo"]}, r"the model has no 'dgo'; did you mean 'dog'\?; it knows cat, dog, traffic light"),
        ({"classes": [5]}, "the model has no '5'"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(predictor: Predictor, photos: Photos, options: dict[str, Any], sentence: str):
    with pytest.raises(UserError, match=sentence):
        predictor.predict(photos[0], **options)


def test_what_cannot_be_loaded(untrained: Path):
    with pytest.raises(UserError, match="precision takes one of fp32, bf16; got 'int8'"):
        queryinst.load(untrained, precision="int8")
    for name in ("gpu", "tpu", "cuda:99", "cpu:x"):
        if not (name == "gpu" and torch.cuda.is_available()):
            with pytest.raises(UserError, match=f"there is no device '{name}'"):
                queryinst.load(untrained, device=name)
    assert device_of("cpu") == "cpu"
    assert device_of("auto") in ("cpu", "cuda", "mps", "xpu")
