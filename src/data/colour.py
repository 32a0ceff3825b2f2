"""Colour jitter in one pass: brightness, contrast, saturation and hue are linear in a pixel's r, g, b, and so are all together.

One after the other and through HSV, as albumentations and torchvision compute them, they take nine times as long, which was
half of what loading from the cache costs.
"""

import math
from dataclasses import dataclass
from random import Random

import cv2
import numpy as np

GREY = (0.299, 0.587, 0.114)  # a pixel's luma (ITU-R BT.601)
TO_YIQ = np.array([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])  # luma, and two of colour
FROM_YIQ = np.linalg.inv(TO_YIQ)


@dataclass(frozen=True)
class Jitter:
    """Factors from 1 - x to 1 + x for brightness, contrast and saturation, and the hue turned by up to x of the circle."""

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    chance: float = 0.0  # of being applied

    def __call__(self, image: np.ndarray, draws: Random) -> np.ndarray:
        if draws.random() >= self.chance:
            return image
        factors = (1 + draws.uniform(-most, most) for most in (self.brightness, self.contrast, self.saturation))
        return recoloured(image, *factors, draws.uniform(-self.hue, self.hue))


def recoloured(image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """(H, W, 3) uint8 RGB → the same, rounded and clipped once, at the end.

    brightness: factor. contrast: factor about the picture's mean grey. saturation: factor about each pixel's grey; these three
    as in torchvision's ColorJitter. hue: a turn, as a share of the full circle, about the grey axis of YIQ, from red to
    yellow as HSV's, but keeping the luma. All four leave grey grey, hence their order doesn't matter.
    """
    cosine, sine = saturation * math.cos(2 * math.pi * hue), saturation * math.sin(2 * math.pi * hue)
    colours = FROM_YIQ @ np.array([(1, 0, 0), (0, cosine, sine), (0, -sine, cosine)]) @ TO_YIQ
    mean_grey = np.dot(GREY, cv2.mean(image)[:3])
    matrix = np.full((3, 4), (1 - contrast) * brightness * mean_grey)
    matrix[:, :3] = brightness * contrast * colours
    return cv2.transform(image, matrix)
