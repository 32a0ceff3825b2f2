"""Augmentation recipes. The one file that knows albumentations (2.0.8, the last release under MIT).

What is drawn is a function of (seed, epoch, row id) alone: the same for any number of workers, after a resume, on any
number of GPUs. Left to itself, albumentations 2.0.8 gives every DataLoader worker the same random stream (16 distinct
draws in 96 samples); reseeding it for each sample costs 33 µs.
"""

import math
import os
import random
import warnings
import zlib

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version at import

import albumentations as A
import cv2
import numpy as np

from src.data.cache import Form
from src.data.image import fit

SMALLEST_CROP = {"medium": 0.5, "strong": 0.25}  # of the picture's area
TURNED = {"hflip": A.HorizontalFlip, "vflip": A.VerticalFlip, "turns": A.RandomRotate90}


class Augmentation:
    """image (H, W, 3) uint8 RGB → (size, size, 3) uint8 RGB."""

    def __init__(self, recipe: str, size: int, resize: str, label_preserving: tuple[str, ...], seed: int) -> None:
        self.size, self.resize, self.seed = size, resize, seed
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an argument that albumentations doesn't know only warns
            self.fits_first, steps = _recipe(recipe, size)
            turned = [TURNED[name](p=0.5) for name in label_preserving]
            self.transform = A.Compose([*steps, *turned]) if recipe != "none" else None

    def __call__(self, image: np.ndarray, epoch: int, row: str) -> np.ndarray:
        if self.fits_first:
            image = fit(image, self.size, self.resize)
        if self.transform is None:
            return image
        key = [self.seed, epoch, zlib.crc32(row.encode())]
        generator = np.random.default_rng(key)
        self.transform.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        return self.transform(image=image)["image"]


def form(recipe: str, size: int, how: str) -> Form:
    """How the decoded-picture cache keeps pictures for this recipe at `size` pixels; how: data.resize."""
    if recipe not in SMALLEST_CROP:
        return Form(size, how)
    return Form(math.ceil(size / math.sqrt(SMALLEST_CROP[recipe])))  # the smallest square crop still has `size` pixels


def _recipe(name: str, size: int) -> tuple[bool, list[A.BasicTransform]]:
    """Whether the image is fitted to its square first, and the steps that follow. Flips are added where they keep the label."""
    border = cv2.BORDER_REFLECT_101
    if name == "none":
        return True, []
    if name == "light":  # the whole object stays in view: scans, centred products
        shift = {"x": (-0.08, 0.08), "y": (-0.08, 0.08)}
        return True, [
            A.Affine(scale=(0.9, 1.1), translate_percent=shift, rotate=(-10, 10), border_mode=cv2.BORDER_REPLICATE, p=0.9)
        ]
    if name == "medium":  # photographs
        return False, [
            A.RandomResizedCrop((size, size), scale=(SMALLEST_CROP[name], 1.0), ratio=(3 / 4, 4 / 3), p=1),
            A.ColorJitter(brightness=(0.8, 1.2), contrast=(0.8, 1.2), saturation=(0.8, 1.2), hue=(-0.02, 0.02), p=0.5),
        ]
    return False, [  # strong: long runs of large backbones
        A.RandomResizedCrop((size, size), scale=(SMALLEST_CROP[name], 1.0), ratio=(3 / 4, 4 / 3), p=1),
        A.Affine(rotate=(-15, 15), shear=(-8, 8), border_mode=border, p=0.3),
        A.ColorJitter(brightness=(0.7, 1.3), contrast=(0.7, 1.3), saturation=(0.6, 1.4), hue=(-0.05, 0.05), p=0.7),
        A.OneOf([A.GaussianBlur(p=1), A.ImageCompression(quality_range=(40, 90), p=1), A.ToGray(p=1)], p=0.15),
        A.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.1, 0.25), hole_width_range=(0.1, 0.25), p=0.3),
    ]
