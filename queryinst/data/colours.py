"""Random colours of a training image, as SSD draws them ("photometric distortion"); objects stay as they are."""

import cv2
import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32.0, (0.5, 1.5), (0.5, 1.5), 18.0  # of 255; factors; degrees


def distort(pixels: NDArray[np.uint8], rng: Rng) -> NDArray[np.uint8]:
    """Brightness, contrast, saturation and hue, each changed in half of the calls (Liu et al., SSD, section 2.2).

    Args:
        pixels: (H, W, 3) uint8 RGB.
        rng: draws what happens.
    """
    shift = rng.uniform(-BRIGHTNESS, BRIGHTNESS) * (rng.random() < 0.5)
    contrast = rng.uniform(*CONTRAST) if rng.random() < 0.5 else 1.0
    saturation = rng.uniform(*SATURATION) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-HUE, HUE) * (rng.random() < 0.5)
    if shift or contrast != 1:  # one table of 256 values does both
        table = ((np.arange(256) + shift) * contrast).clip(0, 255).astype(np.uint8)
        pixels = np.asarray(cv2.LUT(pixels, table), np.uint8)
    if hue or saturation != 1:
        hsv = np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2HSV_FULL), np.uint8)
        turned = (np.arange(256) + hue / 360 * 256).round() % 256
        stretched = (np.arange(256) * saturation).clip(0, 255)
        tables = np.stack([turned, stretched, np.arange(256)], axis=-1).astype(np.uint8)
        pixels = np.asarray(cv2.cvtColor(cv2.LUT(hsv, tables[:, None]), cv2.COLOR_HSV2RGB_FULL), np.uint8)
    return pixels
