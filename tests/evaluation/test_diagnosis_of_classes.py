"""Wrong classes and wrong masks in right places: every sentence in full, and from which number on it is said."""

import pytest
from diagnosed import CAT, COW, DOG, HEN, LEARN, Found, diagnosed, elsewhere, spot, suspicion

from queryinst.evaluation import diagnosis


def classes(*pairs: tuple[int, int], score: float = 0.8) -> str:
    """What is suspected where objects of one class are found as another, each in an image of its own."""
    truth = [(image, wanted, spot(image % 10)) for image, (wanted, _) in enumerate(pairs)]
    found: list[Found] = [(image, given, spot(image % 10), score) for image, (_, given) in enumerate(pairs)]
    return suspicion(truth, found, images=len(pairs))


COMPARE = "compare the category ids and names of these annotations with those of the training."
CHANCE = f"right places, but classes as by chance: classification has not begun to learn, {LEARN}."


def test_wrong_classes():
    found = "right places, wrong classes: found are"
    assert classes(*[(CAT, DOG)] * 4, (CAT, CAT)) == f"{found} 4 of 5 `cat` as `dog`; {COMPARE}"
    assert classes(*[(CAT, DOG)] * 3, *[(CAT, CAT)] * 2) == "", "three of five"
    assert classes((CAT, DOG), (CAT, DOG), (DOG, COW), (COW, HEN), (HEN, HEN)) == (
        f"{found} 2 of 2 `cat` as `dog`, 1 of 1 `dog` as `cow`, 1 of 1 `cow` as `hen`; "
        f"in the order of ids all are +1 off; {COMPARE}"
    )
    assert classes((HEN, COW), (COW, DOG), (DOG, CAT), (HEN, COW), (HEN, COW)) == (
        f"{found} 3 of 3 `hen` as `cow`, 1 of 1 `cow` as `dog`, 1 of 1 `dog` as `cat`; "
        f"in the order of ids all are -1 off; {COMPARE}"
    )
    assert classes((CAT, 77), (CAT, 77), (DOG, 78)) == f"{found} 2 of 2 `cat` as `77`, 1 of 1 `dog` as `78`; {COMPARE}"


def test_three_confusions_are_named():
    assert classes((CAT, DOG), (DOG, COW), (COW, HEN), (HEN, CAT)) == (
        "right places, wrong classes: found are "
        f"1 of 1 `cat` as `dog`, 1 of 1 `dog` as `cow`, 1 of 1 `cow` as `hen`; {COMPARE}"
    )


def test_two_confusions_are_a_shift():
    assert "; in the order of ids all are +1 off; " in classes((CAT, DOG), (DOG, COW))


def test_half_of_the_places_are_enough():
    truth = [(0, CAT, spot(k)) for k in range(4)]
    found: list[Found] = [(0, DOG, spot(k) if k < 2 else elsewhere(k), 0.4) for k in range(4)]
    assert suspicion(truth, found).startswith("right places, wrong classes: found are 2 of 2 `cat` as `dog`")


def test_a_shift_is_one_of_nine_tenths():
    most = [(CAT, DOG)] * 5 + [(DOG, COW)] * 3
    assert "; in the order of ids all are +1 off; " in classes(*most, (COW, HEN), (HEN, CAT))
    assert " off" not in classes(*most, (HEN, CAT), (HEN, CAT))
    assert " off" not in classes(*most, (HEN, 77), (HEN, 77)), "two of ten have no place in the order"


def test_classes_by_chance():
    assert classes((CAT, DOG), (CAT, COW), (CAT, HEN), (CAT, 77)) == CHANCE
    assert classes((CAT, DOG), (CAT, DOG), (CAT, HEN), (CAT, 77)).startswith("right places, wrong classes"), "half"
    assert classes((CAT, DOG), (CAT, DOG), (CAT, HEN), (CAT, 77), (CAT, COW)) == CHANCE
    # Each class counts for itself: two cats and two dogs found as three classes.
    assert classes((CAT, COW), (CAT, COW), (DOG, HEN), (DOG, 77), (DOG, 78), (DOG, 79)) != CHANCE


def test_the_surest_prediction_at_a_place_counts():
    truth = [(0, CAT, spot(k)) for k in range(4)]
    unsure: list[Found] = [(0, DOG, spot(k), 0.5) for k in range(4)]
    surer: list[Found] = [(0, CAT, spot(k), 0.6) for k in range(4)]
    assert suspicion(truth, unsure + surer) == ""
    assert suspicion(truth, unsure + [(0, CAT, elsewhere(k), 0.6) for k in range(4)]).startswith("right places, wrong")
    half: list[Found] = [(0, DOG, [spot(k)[0], spot(k)[1], 40, 20.0], 0.7) for k in range(4)]  # an IoU of 0.5
    assert "4 of 4 `cat` as `dog`" in suspicion(truth, surer + half)


def masks(*heights: float) -> str:
    """What is suspected of masks that fill so many of the 40 rows of their box."""
    truth = [(0, CAT, spot(k)) for k in range(len(heights))]
    return suspicion(truth, [(*row, 0.9, [*row[2][:3], height]) for row, height in zip(truth, heights, strict=True)])


def test_wrong_masks():
    said = "boxes and classes are right, but masks are not (their median IoU is {}): "
    said += "compare `segmentation` and `bbox` of the annotations, and look at the mask loss."
    assert masks(10, 4, 40) == said.format("0.25")
    assert masks(4, 2) == said.format("0.08")
    assert masks(12) == "", "0.3"
    assert masks(12, 11, 13) == ""
    mask, box = elsewhere(0), spot(1)
    half = [box[0], box[1], 40, 20]  # an IoU of 0.5
    assert suspicion([(0, CAT, box)], [(0, CAT, half, 0.9, mask)]) == said.format("0.00")
    behind: list[Found] = [(0, CAT, box, 0.8, mask), (0, DOG, box, 0.9), (0, CAT, box, 0.7)]
    assert suspicion([(0, CAT, box)], behind).endswith(said.format("0.00")), "that of the surest of its class"
    assert suspicion([(0, DOG, box)], [(0, CAT, box, 0.8, mask), (0, DOG, spot(2), 0.8, mask)]).startswith(
        "right places"
    )


def test_only_some_images_and_masks_are_compared(monkeypatch: pytest.MonkeyPatch):
    truth = [(image, CAT, spot(k)) for image in range(5) for k in range(2)]
    wrong = [(*row, 0.9, elsewhere(0)) if row[0] < 2 else (*row, 0.9) for row in truth]
    assert suspicion(truth, wrong, images=5) == "", "four of ten are wrong"
    monkeypatch.setattr(diagnosis, "MOST_MASKS", 5)
    assert "their median IoU is 0.00" in suspicion(truth, wrong, images=5), "four of five"
    monkeypatch.setattr(diagnosis, "MOST_MASKS", 500)
    assert "of a ground truth: with" in diagnosed(truth, wrong, images=5)
    monkeypatch.setattr(diagnosis, "MOST_IMAGES", 5)
    assert "of a ground truth: with" in diagnosed(truth, wrong, images=5)
    monkeypatch.setattr(diagnosis, "MOST_IMAGES", 4)
    text = diagnosed(truth, [row for row in wrong if row[0] in (0, 2, 4)], images=9)
    assert "of a ground truth (in 3 of 5 images): with any prediction median 1.00, 100% at" in text
