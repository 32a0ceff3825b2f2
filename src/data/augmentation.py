"""Augmentation recipes. What is drawn is a function of (seed, epoch, row id) alone: the same for any number of workers, after
a resume, on any number of GPUs.

The one file that knows albumentations (2.0.8, the last release under MIT), which draws what is beyond crop, colours and turns.
Left to itself it gives every DataLoader worker the same random stream (16 distinct draws in 96 samples).
"""

import math
import os
import random
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from src.data.colour import Jitter
from src.data.crop import random_crop
from src.data.image import Form

if TYPE_CHECKING:
    import albumentations as A

TURNS = {
    "hflip": (None, lambda image: cv2.flip(image, 1)),
    "vflip": (None, lambda image: cv2.flip(image, 0)),
    "turns": (None, *(lambda image, turn=turn: cv2.rotate(image, turn) for turn in range(3))),
}  # each as likely; None: as it is
AS_THEY_ARE = Jitter()


@dataclass(frozen=True)
class Recipe:
    """In its order: the crop, or the whole picture on its square; the colours; the label-preserving turns; further steps."""

    smallest_crop: float | None = None  # of the picture's area
    jitter: Jitter = AS_THEY_ARE
    further: str = ""  # of _steps


RECIPES = {
    "none": Recipe(),
    "light": Recipe(further="light"),  # the whole object stays in view: scans, centred products
    "medium": Recipe(0.5, Jitter(0.2, 0.2, 0.2, 0.02, chance=0.5)),  # photographs
    "strong": Recipe(0.25, Jitter(0.3, 0.3, 0.4, 0.05, chance=0.7), "strong"),  # long runs of large backbones
}


class Augmentation:
    """image (H, W, 3) uint8 RGB → (size, size, 3) uint8 RGB."""

    def __init__(self, recipe: str, size: int, resize: str, label_preserving: tuple[str, ...], seed: int) -> None:
        self.recipe, self.size, self.seed = RECIPES[recipe], size, seed
        self.turning = label_preserving if recipe != "none" else ()
        self.further = _steps(self.recipe.further) if self.recipe.further else None
        smallest = self.recipe.smallest_crop
        # What is needed of a picture: on its square; or so large that the smallest square crop has `size` pixels.
        self.form = Form(size, resize) if smallest is None else Form(math.ceil(size / math.sqrt(smallest)))

    def __call__(self, image: np.ndarray, epoch: int, row: str) -> np.ndarray:
        draws = random.Random(f"{self.seed} {epoch} {row}")
        smallest = self.recipe.smallest_crop
        image = self.form.of(image) if smallest is None else random_crop(image, self.size, smallest, draws)
        image = self.recipe.jitter(image, draws)
        for name in self.turning:
            turn = draws.choice(TURNS[name])
            image = image if turn is None else turn(image)
        if self.further is not None:
            self.further.set_random_state(np.random.default_rng(draws.getrandbits(64)), draws)
            image = self.further(image=image)["image"]
        return image


def _steps(name: str) -> "A.Compose":
    """albumentations' part of a recipe."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version at import
    import albumentations as A  # here: it takes seconds, and most recipes do without

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an argument that albumentations doesn't know only warns
        if name == "light":
            shift = {"x": (-0.08, 0.08), "y": (-0.08, 0.08)}
            steps = [
                A.Affine(scale=(0.9, 1.1), translate_percent=shift, rotate=(-10, 10), border_mode=cv2.BORDER_REPLICATE, p=0.9)
            ]
        else:
            steps = [
                A.Affine(rotate=(-15, 15), shear=(-8, 8), border_mode=cv2.BORDER_REFLECT_101, p=0.3),
                A.OneOf([A.GaussianBlur(p=1), A.ImageCompression(quality_range=(40, 90), p=1), A.ToGray(p=1)], p=0.15),
                A.CoarseDropout(num_holes_range=(1, 4), hole_height_range=(0.1, 0.25), hole_width_range=(0.1, 0.25), p=0.3),
            ]
        return A.Compose(steps)
