"""Pictures of masks, pixel by pixel."""

import numpy as np
import pytest
import torch

from queryinst.ops.masks import LocalMask
from queryinst.structures import Detections
from queryinst.visualize import draw
from queryinst.visualize.draw import Picture


def square(side: int, left: int, top: int) -> LocalMask:
    return LocalMask(np.ones((side, side), np.uint8), left, top)


def grounds(drawn: Picture, number: int) -> list[int]:
    """Left, top, right and bottom of the dark ground below a caption in the n-th colour."""
    found = (drawn == [value // 3 for value in draw.colour(number)]).all(-1)
    rows, columns = np.flatnonzero(found.any(1)), np.flatnonzero(found.any(0))
    return [int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])]


def extent(drawn: Picture, number: int) -> tuple[int, int]:
    """Width and height of that ground."""
    left, top, right, bottom = grounds(drawn, number)
    return right - left, bottom - top


def test_a_mask_is_a_share_of_its_colour_and_its_contour_all_of_it():
    picture = np.full((300, 400, 3), 128, np.uint8)
    picture[:, 200:] = [0, 60, 255]
    for opacity in (0.45, 0.25):
        drawn = draw.overlay(picture, [square(40, 100, 100), square(40, 250, 100)], ["", ""], opacity)
        for number, left in ((0, 100), (1, 250)):
            paint = draw.colour(number)
            below = picture[120, left + 20].astype(float)
            assert (
                drawn[120, left + 20].tolist()
                == (below * (1 - opacity) + np.array(paint) * opacity).astype(int).tolist()
            )
            assert drawn[120, left].tolist() == drawn[139, left + 39].tolist() == list(paint)
            assert (drawn[120, left - 2] == picture[120, left - 2]).all()
    assert (
        draw.overlay(picture, [square(40, 100, 100)], [""]) == draw.overlay(picture, [square(40, 100, 100)], [""], 0.45)
    ).all()


def test_lines_grow_with_the_image():
    widths = []
    for side in (400, 749, 751, 1300, 2600):
        drawn = draw.overlay(np.zeros((100, side, 3), np.uint8), [square(40, 100, 30)], [""], opacity=0.0)
        widths.append(int(drawn[50, 90:120].any(-1).sum()))
    assert widths[0] == widths[1] == 1
    assert widths[1] < widths[2] < widths[3] < widths[4]


@pytest.mark.parametrize(
    ("side", "zoom"), [(400, 1), (201, 1), (200, 2), (133, 3), (1, 400)], ids=lambda value: str(value)
)
def test_a_small_image_is_drawn_a_whole_number_of_times_as_large(side: int, zoom: int):
    picture = np.random.default_rng(0).integers(0, 256, (1, side, 3)).astype(np.uint8)
    assert (draw.overlay(picture, [], []) == picture.repeat(zoom, 0).repeat(zoom, 1)).all()


def test_a_caption_stands_on_its_mask_and_inside_the_image():
    picture = np.full((300, 400, 3), 255, np.uint8)
    masks = [square(40, 100, 120), square(8, 390, 150), square(20, 0, 0), square(9, 200, 290)]
    drawn = draw.overlay(picture, masks, ["one", "another", "corner", "low"], opacity=0.0)
    left, top, right, bottom = grounds(drawn, 0)
    assert (left, bottom) == (100, 120), "its lower left corner is the mask's upper left one"
    assert 10 < right - left < 60
    assert 5 < bottom - top < 30
    assert grounds(drawn, 1)[2] == 399
    assert grounds(drawn, 2)[:2] == [0, 0]
    for number, word in ((1, "another"), (2, "corner")):
        alone = draw.overlay(picture, [square(8, 90, 150)], [word], opacity=0.0)
        assert extent(drawn, number) == pytest.approx(extent(alone, 0), abs=1), "all of it is inside"
    assert grounds(drawn, 3)[3] == 290
    ink = (drawn == 255).all(-1)
    assert ink[top:bottom, left:right].any(), "letters are white"
    for line in (1, 2):
        other = draw.overlay(
            picture, masks, ["one", "another", "corner", "low"][:line] + ["x"] * (4 - line), opacity=0.0
        )
        assert (other != drawn).any(), "the words are those that were given"


def test_captions_lie_above_all_masks_and_the_first_is_on_top():
    picture = np.zeros((300, 400, 3), np.uint8)
    drawn = draw.overlay(picture, [square(100, 50, 50), square(40, 60, 100)], ["", "below"], opacity=1.0)
    assert grounds(drawn, 1)[3] == 100
    both = draw.overlay(picture, [square(40, 60, 100), square(40, 60, 100)], ["same", "same"], opacity=1.0)
    assert grounds(both, 0)[3] == 100
    with pytest.raises(IndexError):
        grounds(both, 1)


def test_what_was_found_is_a_layer():
    found = Detections(
        torch.tensor([[10.0, 20, 30, 60], [5, 5, 5, 5]]),
        torch.tensor([0.996, 0.5]),
        torch.tensor([1, 0]),
        torch.ones(2, 28, 28),
        (300, 400),
    )
    layer = draw.detected(found, ["cat", "dog"])
    assert (layer.labels, layer.captions, layer.numbers) == ([1, 0], ["dog 1.00", "cat 0.50"], None)
    assert [(mask.left, mask.top, mask.bitmap.shape) for mask in layer.masks[:1]] == [(10, 20, (40, 20))]
    picture = np.full((300, 400, 3), 90, np.uint8)
    drawn = draw.overlay(picture, layer.masks, layer.captions)
    assert (draw.predictions(picture, found, ["cat", "dog"]) == drawn).all()
    assert (draw.overlay_layer(picture, layer._replace(numbers=[4, 9])) != drawn).any()


def test_colours_go_round_the_circle():
    assert draw.colour(0) == (255, 38, 38)
    assert len({draw.colour(number) for number in range(100)}) == 100
    assert max(draw.colour(7)) == max(draw.colour(8)) == 255


def test_a_picture_is_made_smaller_only_where_it_is_too_large():
    stripes = np.zeros((40, 80, 3), np.uint8)
    stripes[:, ::2] = 200
    assert draw.at_most(stripes, 80) is stripes
    small = draw.at_most(stripes, 40)
    assert small.shape == (20, 40, 3)
    assert (small == 100).all(), "the mean of what a pixel covers"
    assert draw.at_most(stripes, 79).shape == (40, 79, 3)
    assert draw.at_most(stripes.transpose(1, 0, 2), 40).shape == (40, 20, 3)


def test_each_picture_of_a_grid_stands_in_its_square():
    def plain(height: int, width: int, value: int) -> Picture:
        return np.full((height, width, 3), value, np.uint8)

    drawn = draw.grid([[plain(48, 96, 100), plain(96, 48, 120)], [plain(5, 5, 140), plain(48, 96, 160)]], ["", ""], 100)
    assert drawn.shape == (28 + 200, 200, 3)
    assert (drawn[:28] == 24).all()
    expected = np.full((200, 200, 3), 24, np.uint8)
    expected[2:50, 2:98] = 100
    expected[2:98, 102:150] = 120
    expected[102:198, 2:98] = 140
    expected[102:150, 102:198] = 160
    assert (drawn[28:] == expected).all()
    headed = draw.grid([[plain(48, 96, 100)] * 2], ["", "name"], 100)
    assert (headed[:28, :100] == 24).all()
    assert (headed[:28, 100:] == 255).any()
