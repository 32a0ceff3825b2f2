"""src/data/colour.py: what torchvision's jitter does one after the other, in one pass."""

import random

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms import v2

from src.data.colour import GREY, Jitter, recoloured

# Soft colours, which no factor below pushes over an end: clipped only once, ours would differ from torchvision's.
SOFT = cv2.GaussianBlur(np.random.default_rng(0).integers(60, 190, (40, 50, 3), dtype=np.uint8), (0, 0), 2)
factors = st.floats(0.7, 1.3)


def luma(image: np.ndarray) -> np.ndarray:
    return image @ np.array(GREY)


def test_nothing_changes_at_factors_of_one():
    assert np.array_equal(recoloured(SOFT, 1, 1, 1, 0), SOFT)


@given(factors, factors, factors)
def test_brightness_contrast_and_saturation_are_torchvision_s(brightness: float, contrast: float, saturation: float):
    image = torch.from_numpy(SOFT).permute(2, 0, 1).double() / 255
    image = v2.functional.adjust_brightness(image, brightness)
    image = v2.functional.adjust_contrast(image, contrast)
    image = v2.functional.adjust_saturation(image, saturation)
    expected = image.permute(1, 2, 0).numpy() * 255
    ours = recoloured(SOFT, brightness, contrast, saturation, 0)
    assert np.abs(ours - expected).max() < 1.0  # rounding, and torchvision's weights of grey: 0.2989, 0.587, 0.114


@given(st.floats(-0.05, 0.05))
def test_a_turned_hue_keeps_the_luma_and_what_is_grey(hue: float):
    assert np.abs(luma(recoloured(SOFT, 1, 1, 1, hue)) - luma(SOFT)).max() < 1.0
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(recoloured(grey, 1, 1, 1, hue), grey)


@pytest.mark.parametrize("colour", [(200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60)])
def test_a_hue_is_turned_the_same_way_as_torchvision_s(colour: tuple[int, int, int]):
    image = np.full((2, 2, 3), colour, np.uint8)
    expected = v2.functional.adjust_hue(torch.from_numpy(image).permute(2, 0, 1), 0.05).permute(1, 2, 0).numpy().astype(int)
    ours, backwards = (recoloured(image, 1, 1, 1, hue).astype(int) for hue in (0.05, -0.05))
    assert np.linalg.norm(ours - expected) < np.linalg.norm(backwards - expected)


@pytest.mark.parametrize("brightness", [0.3, 3.0])
def test_colours_end_at_black_and_white(brightness: float):
    image = np.array([[[0, 128, 255]]], np.uint8)
    expected = [0, min(255, round(128 * brightness)), min(255, round(255 * brightness))]
    assert recoloured(image, brightness, 1, 1, 0).tolist() == [[expected]]


def test_it_is_applied_as_often_as_asked_and_draws_its_own_each_time():
    jitter, draws = Jitter(0.2, 0.2, 0.2, 0.02, chance=0.5), random.Random(0)
    drawn = [jitter(SOFT, draws) for _ in range(200)]
    changed = [image.tobytes() for image in drawn if image is not SOFT]
    assert 70 < len(changed) < 130
    assert len(set(changed)) == len(changed)
    assert Jitter()(SOFT, draws) is SOFT
