"""Why AP is zero: each known fault is named from the numbers it leaves, and a good result gives no suspicion."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from queryinst.evaluation.diagnosis import diagnose

HEIGHT, WIDTH = 200, 300
NAMES = {2: "cat", 5: "dog", 9: "cow", 10: "hen"}
Entry = dict[str, Any]


def content(images: int = 10, objects: int = 3, seed: int = 0) -> Entry:
    """Images with rectangles of random places, sizes and classes."""
    rng = np.random.default_rng(seed)
    annotations: list[Entry] = []
    for image in range(images):
        for _ in range(objects):
            low, side = rng.uniform([10, 5], [200, 120]), rng.uniform(20, 80, 2)
            annotations.append(annotation(image, int(rng.choice(list(NAMES))), [*low.tolist(), *side.tolist()]))
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(images)],
        "categories": [{"id": key, "name": name} for key, name in NAMES.items()],
        "annotations": annotations,
    }


def annotation(image: int, category: int, box: list[float]) -> Entry:
    x, y, w, h = box
    outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {"image_id": image, "category_id": category, "bbox": box, "segmentation": outline}


def result(of: Entry, **changes: Any) -> Entry:
    (code,) = coco_mask.frPyObjects(of["segmentation"], HEIGHT, WIDTH)
    mask = {**code, "counts": code["counts"].decode()}
    kept = {name: of[name] for name in ("image_id", "category_id", "bbox")}
    return {**kept, "segmentation": mask, "score": 0.8, **changes}


def noise(of: Entry, rng: np.random.Generator, score: float) -> Entry:
    return result(of, bbox=[*rng.uniform(0, 150, 2).tolist(), *rng.uniform(5, 90, 2).tolist()], score=score)


def diagnosed(change: Callable[[Entry], Entry], truth: Entry | None = None) -> str:
    """The paragraph for results that are the ground truth, changed, with some weak predictions beside them."""
    data, rng = truth or content(), np.random.default_rng(1)
    found = [result(a, **change(a)) for a in content()["annotations"]]
    return diagnose(data, found + [noise(a, rng, 0.1 * found[0]["score"]) for a in content()["annotations"]])


def test_a_good_result_raises_no_suspicion():
    text = diagnosed(lambda a: {"bbox": [a["bbox"][0] + 2, *a["bbox"][1:]]})
    assert "60 predictions and 30 ground truths in 10 images." in text
    assert "Scores: lowest 0.080" in text
    assert "highest 0.800." in text
    assert "Best box IoU of a ground truth: with any prediction median 0.9" in text
    assert "with one of its own class median 0.9" in text
    assert "Suspicion" not in text
    assert "\n" not in text


def test_some_confusion_between_classes_raises_no_suspicion():
    rng = np.random.default_rng(3)
    assert "Suspicion" not in diagnosed(
        lambda a: {"category_id": a["category_id"] if rng.random() < 0.5 else int(rng.choice(list(NAMES)))}
    )


def test_shifted_class_ids():
    order = list(NAMES)
    text = diagnosed(lambda a: {"category_id": order[(order.index(a["category_id"]) + 1) % 4]})
    assert "right places, wrong classes: found are" in text
    assert "with one of its own class median 0.0" in text


def test_classes_that_are_off_by_one_everywhere():
    order = list(NAMES)
    truth = content()
    truth["annotations"] = [a for a in truth["annotations"] if a["category_id"] != 10]
    text = diagnose(
        truth,
        [result(a, category_id=order[order.index(a["category_id"]) + 1]) for a in truth["annotations"]],
    )
    assert "in the order of ids all are +1 off" in text


def test_classes_by_chance_are_no_shift():
    rng = np.random.default_rng(0)
    truth = content()
    truth["categories"] += [{"id": key, "name": f"class {key}"} for key in range(20, 60)]
    text = diagnosed(lambda a: {"category_id": int(rng.integers(20, 60))}, truth)
    assert "right places, but classes as by chance" in text


def test_one_class_for_all_names_the_confusion():
    truth = content()
    for a in truth["annotations"]:
        a["category_id"] = 2
    text = diagnosed(lambda a: {"category_id": 5}, truth)
    assert "found are 30 of 30 `cat` as `dog`" in text
    assert "Ground truth: cat 30; predicted: dog " in text
    assert " off; " not in text, "one class is no shift"


def changed_boxes(change: Callable[..., list[float]]) -> Entry:
    truth = content()
    for a in truth["annotations"]:
        a["bbox"] = change(*a["bbox"])
    return truth


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "fit if those of the ground truth are read as x1, y1, x2, y2"),
        (lambda x, y, w, h: [x + w / 2, y + h / 2, w, h], "are read as centre, width, height"),
        (lambda x, y, w, h: [y, x, h, w], "fit if x and y are swapped"),
        (lambda x, y, w, h: [2 * x, 2 * y, 2 * w, 2 * h], "scaled by 0.5 in x and 0.5 in y"),
        (lambda x, y, w, h: [x / 300, y / 200, w / 300, h / 200], "scaled by 300 in x and 200 in y"),
    ],
    ids=["xyxy", "cxcywh", "swapped", "resized", "normalised"],
)
def test_box_formats(change: Callable[..., list[float]], sentence: str):
    text = diagnosed(lambda a: {}, changed_boxes(change))
    assert sentence in text
    assert text.count("Suspicion") == 1


def test_an_untrained_network():
    rng = np.random.default_rng(2)
    text = diagnose(content(), [noise(a, rng, 0.02) for a in content()["annotations"] * 3])
    assert "no score reaches 0.05" in text
    assert text.count("Suspicion") == 1
    text = diagnose(content(), [noise(a, rng, 0.1) for a in content()["annotations"] * 3])
    assert "low scores in wrong places" in text
    assert text.count("Suspicion") == 1


def test_the_same_box_everywhere():
    text = diagnosed(lambda a: {"bbox": [0, 0, WIDTH, HEIGHT]})
    assert "the same box" not in text, "not with others beside it"
    found = [result(a, bbox=[0, 0, WIDTH, HEIGHT]) for a in content()["annotations"]]
    assert "all predictions of an image are the same box" in diagnose(content(), found)


def test_masks_that_do_not_lie_in_their_boxes():
    corner = annotation(0, 2, [0.0, 0, 9, 9])
    text = diagnosed(lambda a: {"segmentation": result(corner)["segmentation"]})
    assert "boxes and classes are right, but masks are not (their median IoU is 0.00)" in text


@pytest.mark.parametrize("kind", ["runs", "compressed"])
def test_ground_truth_as_rle(kind: str):
    truth = content()
    for a in truth["annotations"]:
        mask = result(a)["segmentation"]
        bitmap = coco_mask.decode(mask).flatten("F")
        runs = np.diff(np.flatnonzero(np.diff(bitmap, prepend=2, append=2))).tolist()
        a["segmentation"] = mask if kind == "compressed" else {"size": [HEIGHT, WIDTH], "counts": runs}
    assert "Suspicion" not in diagnosed(lambda a: {}, truth)


def test_sure_predictions_elsewhere():
    text = diagnosed(lambda a: {"bbox": [295, 195, 5, 5]}, content(seed=9))
    assert "hardly one at a ground truth" in text


def test_nothing_and_nan():
    text = diagnose(content(), [])
    assert text.startswith("0 predictions and 30 ground truths in 10 images. Suspicion: nothing is predicted at all")
    broken = [result(a, score=float("nan")) for a in content()["annotations"]]
    assert "30 predictions have NaN or infinite boxes or scores" in diagnose(content(), broken)
    empty = {**content(), "annotations": []}
    assert diagnose(empty, [result(a) for a in content()["annotations"]]).startswith("30 predictions and 0 ground")


def test_only_some_images_of_many_are_compared():
    truth = content(images=1001, objects=1)
    text = diagnose(truth, [result(a) for a in truth["annotations"]])
    assert "(in 334 of 1001 images)" in text
    assert "Suspicion" not in text


def test_crowd_regions_and_empty_boxes_are_passed_over():
    truth = content()
    truth["annotations"][0]["bbox"] = [5, 5, 0, 0]
    truth["annotations"][1]["iscrowd"] = 1
    assert "and 29 ground truths" in diagnosed(lambda a: {}, truth)
