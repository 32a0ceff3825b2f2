"""src/data/crop.py: parts of the picture that is there, of the sizes that are asked for."""

import random

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data import crop
from src.data.crop import RATIOS, random_crop, squash
from src.data.image import resize

sizes = st.integers(1, 300)


@given(sizes, sizes, st.integers(1, 64), st.sampled_from([0.25, 0.5, 1.0]), st.integers(0, 99))
def test_any_picture_becomes_the_square(height: int, width: int, size: int, smallest: float, seed: int):
    image = random_crop(np.full((height, width, 3), 99, np.uint8), size, smallest, random.Random(seed))
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert (image == 99).all()  # nothing but the picture is in it


def cut(monkeypatch, height: int, width: int, smallest: float, seed: int) -> np.ndarray:
    """Rows and columns (high, wide, 2) of the part that is cut out."""
    places = np.stack(np.mgrid[:height, :width], axis=-1)
    monkeypatch.setattr(crop, "squash", lambda image, _: image)
    return random_crop(places, 1, smallest, random.Random(seed))


def test_areas_and_shapes_are_those_asked_for_and_reach_everywhere(monkeypatch):
    parts = [cut(monkeypatch, 300, 300, 0.5, seed) for seed in range(400)]
    shares = np.array([part.shape[0] * part.shape[1] / 300**2 for part in parts])
    ratios = np.array([part.shape[1] / part.shape[0] for part in parts])
    assert 0.495 < shares.min() < 0.53
    assert shares.max() > 0.93
    assert RATIOS[0] - 0.01 < ratios.min() < 0.8
    assert 1.25 < ratios.max() < RATIOS[1] + 0.01
    corners = {(place == edge) for part in parts for place, edge in ((part[0, 0, 0], 0), (part[-1, -1, 0], 299))}
    assert corners == {True, False}
    starts = np.array([part[0, 0] for part in parts])
    assert (starts.max(axis=0) > 60).all()


def test_whole_pictures_are_only_squashed(monkeypatch):
    monkeypatch.setattr(crop, "RATIOS", (1.0, 1.0))
    assert cut(monkeypatch, 50, 50, 1.0, 0).shape == (50, 50, 2)


def test_an_elongated_picture_is_cut_at_its_ends(monkeypatch):
    for seed in range(50):
        part = cut(monkeypatch, 40, 400, 0.5, seed)
        assert part.shape[0] == 40
        assert part.shape[1] <= 400


@pytest.mark.parametrize("side", [224, 300, 447, 448, 700, 1200])
def test_squashing_hardly_differs_from_area_averages_and_does_not_alias(side: int):
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (side, side, 3), dtype=np.uint8), (0, 0), 3 * side / 224)
    squashed, averaged = squash(noise, 224).astype(int), resize(noise, 224, 224).astype(int)
    assert np.abs(squashed - averaged).mean() < 1.0
    stripes = np.tile(np.uint8([0, 255])[None, :, None], (side, side // 2, 3))  # the finest there are
    if side >= 448:
        bilinear = cv2.resize(stripes, (224, 224), interpolation=cv2.INTER_LINEAR)
        assert np.abs(squash(stripes, 224) - 127.5).mean() < 0.5 * np.abs(bilinear - 127.5).mean() or side % 448 == 0
        assert np.abs(squash(stripes, 224) - 127.5).mean() < 25
