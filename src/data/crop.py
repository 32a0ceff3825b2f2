"""A crop of random place, size and shape on the model's square: what classifiers train on (Szegedy 2015, section 6)."""

import math
from random import Random

import cv2
import numpy as np

RATIOS = (3 / 4, 4 / 3)  # of a crop's width to its height


def random_crop(image: np.ndarray, size: int, smallest: float, draws: Random) -> np.ndarray:
    """(H, W, 3) uint8 → (size, size, 3) uint8: a part of at least `smallest` of the picture's area, squashed to the square.

    A side that would reach beyond the picture ends there; elsewhere such crops are drawn again.
    """
    height, width = image.shape[:2]
    area = height * width * draws.uniform(smallest, 1.0)
    ratio = math.exp(draws.uniform(*map(math.log, RATIOS)))
    wide, high = (min(most, max(1, round(math.sqrt(area * by)))) for most, by in ((width, ratio), (height, 1 / ratio)))
    top, left = (round(draws.random() * left_over) for left_over in (height - high, width - wide))  # the same place when shrunk
    return squash(image[top : top + high, left : left + wide], size)


def squash(image: np.ndarray, size: int) -> np.ndarray:
    """To the square: by a whole factor in area averages, which don't alias, and by the rest bilinearly.

    Area averages all the way take five times as long.
    """
    down, across = (max(1, length // size) for length in image.shape[:2])
    if down > 1 or across > 1:
        height, width = (length // by for length, by in zip(image.shape[:2], (down, across), strict=True))
        image = cv2.resize(image[: height * down, : width * across], (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
