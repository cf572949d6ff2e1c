"""Random colours: bytes in, bytes out, the same for the same draw, and not too far from what they were."""

import numpy as np
import pytest

from queryinst.data.colours import distort


@pytest.mark.parametrize("seed", range(20))
def test_colours_change_and_shapes_stay(seed: int):
    pixels = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    before = pixels.copy()
    changed = distort(pixels[:, ::-1], np.random.default_rng(seed))
    assert (pixels == before).all(), "the image itself must not change"
    assert changed.shape == pixels.shape
    assert changed.dtype == np.uint8
    assert (changed != pixels[:, ::-1]).any(), "none of these seeds leaves all as it is"
    assert (changed == distort(pixels[:, ::-1], np.random.default_rng(seed))).all()


def test_most_draws_change_something_and_grey_stays_grey():
    grey = np.full((4, 4, 3), 128, np.uint8)
    results = [distort(grey, np.random.default_rng(seed)) for seed in range(200)]
    assert all(np.ptp(result, axis=2).max() <= 1 for result in results), "hue and saturation of grey"
    values = np.array([result[0, 0, 0] for result in results], float)
    assert 0.6 < (values != 128).mean() < 0.9  # three of four draws change brightness or contrast
    assert values.min() >= (128 - 32) * 0.5 - 1
    assert values.max() <= (128 + 32) * 1.5 + 1


def test_hue_turns_and_saturation_fades():
    red = np.full((2, 2, 3), (200, 40, 40), np.uint8)
    results = np.array([distort(red, np.random.default_rng(seed))[0, 0] for seed in range(300)], int)
    assert (results[:, 1] - results[:, 2]).max() > 10, "towards yellow"
    assert (results[:, 2] - results[:, 1]).max() > 10, "towards magenta"
    assert (results.argmax(axis=1) == 0).all()
