"""Colour jitter in one pass: brightness, contrast, saturation and hue are linear in a pixel's (r, g, b), so together they are too.

Done one after the other through HSV, as albumentations and torchvision do, they take most of what loading from the cache costs.
"""

import math

import cv2
import numpy as np

GREY = np.array([0.299, 0.587, 0.114])  # a pixel's luma (ITU-R BT.601)
TO_YIQ = np.array([GREY, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
FROM_YIQ = np.linalg.inv(TO_YIQ)


def jitter(image: np.ndarray, brightness: float, contrast: float, saturation: float, hue: float) -> np.ndarray:
    """(H, W, 3) uint8 RGB → the same, rounded and clipped once, at the end.

    brightness: factor. contrast: factor about the picture's mean grey. saturation: factor about each pixel's grey; all as in
    torchvision's ColorJitter. hue: turn about the grey axis in YIQ, as a share of the full circle: unlike a turn of HSV's hue it
    keeps the luma. All four keep grey grey, hence their order doesn't matter.
    """
    colours = hue_turn(hue) @ (saturation * np.eye(3) + (1 - saturation) * np.outer(np.ones(3), GREY))
    mean_grey = GREY @ cv2.mean(image)[:3]
    shift = (1 - contrast) * brightness * mean_grey
    return cv2.transform(image, np.column_stack([brightness * contrast * colours, np.full(3, shift)]).astype(np.float32))


def hue_turn(share: float) -> np.ndarray:
    """(3, 3) float64: the turn of (r, g, b) about the grey axis that leaves the luma as it is."""
    cosine, sine = math.cos(2 * math.pi * share), math.sin(2 * math.pi * share)
    return FROM_YIQ @ np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]) @ TO_YIQ
