"""Why AP is zero: every sentence in full, and from which number on it is said."""

import pytest
from diagnosed import CAT, COW, DOG, HEN, LEARN, Box, Found, Truth, diagnosed, elsewhere, spot, suspicion


def test_a_whole_paragraph():
    truth = [(0, CAT, spot(0)), (0, DOG, spot(1)), (1, CAT, spot(0)), (1, HEN, spot(7))]
    found: list[Found] = [(1, DOG, spot(0), 0.1), (0, CAT, spot(0), 0.9), (0, COW, [60, 10, 40, 20.0], 0.5)]
    assert diagnosed(truth, found, images=3) == (
        "3 predictions and 4 ground truths in 3 images. "
        "Scores: lowest 0.100, median 0.500, 90% below 0.820, highest 0.900. "
        "Ground truth: cat 2, dog 1, hen 1; predicted: dog 1, cat 1, cow 1; never predicted: hen. "
        "Best box IoU of a ground truth: with any prediction median 0.75, 75% at 0.5 or more; "
        "with one of its own class median 0.00, 25% at 0.5 or more."
    )


def test_eight_classes_are_named():
    names = {key: f"c{key}" for key in range(10)}
    truth = [(0, key, spot(key)) for key in names]
    found: list[Found] = [(0, 77, spot(0), 0.9), (0, 77, spot(1), 0.9)]
    eight = [f"c{key}" for key in range(8)]
    text = diagnosed(truth, found, names=names)
    one_each = ", ".join(f"{name} 1" for name in eight)
    assert f"Ground truth: {one_each} and 2 more classes; predicted: 77 2; never" in text
    assert f"; never predicted: {', '.join(eight)} and 2 more. Best" in text
    text = diagnosed(truth[:9], found, names=names)
    assert f"Ground truth: {one_each} and 1 more classes; predicted: 77 2; never" in text
    assert f"; never predicted: {', '.join(eight)} and 1 more. Best" in text
    text = diagnosed(truth[:8], found, names=names)
    assert f"Ground truth: {one_each}; predicted: 77 2; never predicted: {', '.join(eight)}. Best" in text
    assert "never" not in diagnosed(truth[:2], [(0, 0, spot(0), 0.9), (0, 1, spot(1), 0.9)], names=names)


def test_what_cannot_be_judged():
    truth, right = [(0, CAT, spot(0))], (0, CAT, spot(0), 0.9)
    assert diagnosed(truth, []) == (
        "0 predictions and 1 ground truths in 1 images. "
        "Suspicion: nothing is predicted at all: look at model.postprocess, and at the weights."
    )
    assert diagnosed([], [right], images=2) == "1 predictions and 0 ground truths in 2 images."
    broken: list[Found] = [(0, CAT, spot(0), float("nan")), (0, CAT, [float("inf"), 0, 9, 9], 0.9, spot(0))]
    assert diagnosed(truth, broken) == (
        "2 predictions and 1 ground truths in 1 images. Suspicion: 2 predictions have NaN or infinite boxes or scores."
    )
    assert suspicion(truth, [*broken, right]) == "2 predictions have NaN or infinite boxes or scores."
    beside = diagnosed(truth, [*broken, (0, CAT, elsewhere(0), 0.01)])
    assert beside.partition("Suspicion: ")[2] == (
        "2 predictions have NaN or infinite boxes or scores. "
        f"Suspicion: no score reaches 0.05: the network is not trained yet, {LEARN}."
    )
    assert "Scores: lowest 0.010, median 0.010, 90% below 0.010, highest 0.010." in beside
    assert "predicted: cat 1." in beside
    in_another_image = diagnosed(truth, [(1, CAT, spot(0), 0.9)], images=2)
    assert "with any prediction median 0.00, 0% at 0.5 or more" in in_another_image


def test_regions_that_do_not_count_are_passed_over():
    for more, count in (({"iscrowd": 1}, 0), ({"ignore": 1}, 0), ({"iscrowd": 0, "ignore": 0}, 1)):
        text = diagnosed([(0, CAT, spot(0))], [(0, CAT, spot(0), 0.9)], **more)
        assert text.startswith(f"1 predictions and {count} ground truths")


@pytest.mark.parametrize(
    ("score", "right", "said"),
    [
        (0.0499, 0, f"no score reaches 0.05: the network is not trained yet, {LEARN}."),
        (0.0499, 4, f"no score reaches 0.05: the network is not trained yet, {LEARN}."),
        (0.05, 0, f"low scores in wrong places: the network has hardly begun to learn, {LEARN}."),
        (0.299, 4, f"low scores in wrong places: the network has hardly begun to learn, {LEARN}."),
        (0.299, 5, ""),
        (0.3, 0, ""),
        (0.499, 0, ""),
        (
            0.5,
            0,
            "sure predictions, but hardly one at a ground truth: the annotations may belong to other images, "
            "or the boxes are in a format of their own.",
        ),
        (0.5, 1, ""),
    ],
)
def test_scores_and_places(score: float, right: int, said: str):
    """Of ten objects so many are found, and the other predictions lie where there is nothing."""
    truth = [(0, CAT, spot(k)) for k in range(10)]
    found: list[Found] = [(0, CAT, spot(k) if k < right else elsewhere(k), score / (1 + k)) for k in range(10)]
    assert suspicion(truth, found) == said


def test_what_is_not_trained_is_not_suspected_of_its_classes():
    truth, wrong = [(0, CAT, spot(k)) for k in range(4)], [(0, DOG, spot(k)) for k in range(4)]
    assert suspicion(truth, [(*row, 0.0499) for row in wrong]).startswith("no score reaches 0.05")
    assert "wrong classes" not in suspicion(truth, [(*row, 0.0499) for row in wrong])
    assert suspicion(truth, [(*row, 0.05) for row in wrong]).startswith("right places, wrong classes")


SAME = "all predictions of an image are the same box."


def test_one_box_in_nine_images_of_ten():
    truth = [(image, CAT, spot(k)) for image in range(11) for k in range(3)]
    alone: list[Found] = [(10, CAT, elsewhere(0), 0.4)]  # no image that has several

    def of(same: int, width: float = 39) -> str:
        found = list(alone)
        for image in range(10):
            x, y, *_ = elsewhere(1)
            other = [x, y, width, 40] if image < same else elsewhere(2)
            found += [(image, CAT, elsewhere(1), 0.4), (image, CAT, elsewhere(1), 0.3), (image, CAT, other, 0.2)]
        return suspicion(truth, found, images=11)

    assert [of(10), of(9), of(8)] == [SAME, SAME, ""]
    assert of(10, width=38) == "", "an IoU of 0.95"
    assert suspicion(truth[-3:], alone, images=11) == ""


def test_one_box_is_right_where_it_finds_half_of_the_objects():
    truth, found = [(0, CAT, spot(k)) for k in range(4)], [(0, CAT, spot(0), 0.4), (0, CAT, spot(0), 0.4)]
    assert suspicion(truth[:2], found) == ""
    assert suspicion(truth[:3], found) == SAME


FIT = "the boxes fit if those of the ground truth are"


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ([40.0, 30, 90, 110], f"{FIT} read as x1, y1, x2, y2: COCO's `bbox` is x, y, width, height"),
        ([65.0, 70, 50, 80], f"{FIT} read as centre, width, height: COCO's `bbox` has the corner"),
        ([30.0, 40, 80, 50], "the boxes fit if x and y are swapped"),
        ([80.0, 7.5, 100, 20], f"{FIT} scaled by 0.5 in x and 4 in y: image and annotations may differ in size"),
    ],
)
def test_other_readings_of_a_box(box: Box, said: str):
    """Found at [40, 30, 50, 80]; in a second image nothing is found, in a third the ground truth is in order."""
    truth: list[Truth] = [(0, CAT, box), (1, CAT, box)]
    found: list[Found] = [(0, CAT, [40.0, 30, 50, 80], 0.4)]
    assert suspicion(truth, found, images=2) == f"{said} (50% instead of 0% of them fit)."
    assert suspicion(truth[:1], found) == f"{said} (100% instead of 0% of them fit)."
    assert suspicion([*truth, (1, CAT, box)], found, images=2) == "", "a third"
    if "scaled" not in said:
        found.append((2, CAT, [40.0, 30, 50, 80], 0.4))
        in_order = (2, CAT, [40.0, 30, 50, 80])
        assert suspicion([*truth[:1] * 2, in_order], found, images=3) == "", "a third instead of two"
        assert suspicion([*truth[:1] * 3, in_order], found, images=3) == f"{said} (75% instead of 25% of them fit)."


def test_half_of_the_boxes_fit_as_they_are():
    """Two of four lie on the diagonal, where a swap changes nothing; then one of four."""
    swapped = [[80.0, 10, 40, 30], [150.0, 60, 30, 40]]
    diagonal = [[10.0, 10, 40, 40], [200.0, 200, 40, 40]]
    found: list[Found] = [(0, CAT, [y, x, h, w], 0.4) for x, y, w, h in swapped + diagonal]
    assert suspicion([(0, CAT, box) for box in swapped + diagonal], found) == ""
    said = "the boxes fit if x and y are swapped (100% instead of 33% of them fit)."
    assert suspicion([(0, CAT, box) for box in swapped + diagonal[:1]], found) == said


def test_a_box_that_is_none_fits_nowhere():
    for box in ([10.0, 10, 0, 40], [10.0, 10, 40, 0], [10.0, 10, -40, -40]):
        text = diagnosed([(0, CAT, box), (0, CAT, spot(0))], [(0, CAT, spot(0), 0.9)])
        assert "with any prediction median 0.50, 50% at 0.5 or more" in text
    small = [0.1, 0.2, 0.5, 0.6]
    assert "with any prediction median 1.00, 100%" in diagnosed([(0, CAT, small)], [(0, CAT, small, 0.9)])


def test_a_box_that_is_not_a_number_fits_nowhere():
    truth: list[Truth] = [(0, CAT, [float("nan"), 10, 40, 40]), (0, CAT, spot(0))]
    assert "with any prediction median 0.50, 50% at 0.5 or more" in diagnosed(truth, [(0, CAT, spot(0), 0.9)])


def test_an_iou_of_one_half_fits():
    x, y, w, h = spot(0)
    assert suspicion([(0, CAT, spot(0))], [(0, CAT, [x, y, w, h / 2], 0.2)]) == ""
    said = "the boxes fit if x and y are swapped (100% instead of 0% of them fit)."
    assert suspicion([(0, CAT, [30.0, 40, 80, 50])], [(0, CAT, [40.0, 30, 50, 40], 0.2)]) == said


def test_half_of_the_width_and_height_lead_from_the_centre_to_the_corner():
    said = f"{FIT} read as centre, width, height: COCO's `bbox` has the corner (100% instead of 0% of them fit)."
    assert suspicion([(0, CAT, [55.0, 90, 30, 120])], [(0, CAT, [37.0, 22, 30, 120], 0.4)]) == said
