"""Logits of every row, in order, in one or several views."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from torch import nn
from torch.nn import functional

from src.data.loader import OrderedBatches, ShuffledBatches, make_loader
from src.models import backbone
from src.training import evaluation
from src.views import read_views
from synthetic import Memory

FP32 = torch.autocast("cpu", enabled=False)


class Known(nn.Module):
    """Logits that tell the image and whether it came mirrored: its top left and top right pixel, and their product."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        left, right = pixels[:, 0, 0, 0], pixels[:, 0, 0, -1]
        return torch.stack([left, 2 * right, left * right], dim=1)


AS_IT_IS = backbone.ImageInput(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("channels_last", [True, False])
def test_predictions_stand_in_the_rows_order_whatever_the_batches(channels_last: bool):
    data = Memory(11)
    expected = data.images[:, 0, [0, -1], 0] / np.float32(255)
    for batches in (OrderedBatches(11, 4), ShuffledBatches(11, 1, 3)):
        loader = make_loader(data, batches, 0, False)
        logits = evaluation.predict(Known(), loader, AS_IT_IS, torch.device("cpu"), FP32, channels_last, "")
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits[:, :2], expected * [1, 2], rtol=1e-5)


def test_every_view_is_what_the_model_says_of_the_image_turned_so():
    data = Memory(5)

    def over(expression: str) -> np.ndarray:
        loader, views = make_loader(data, OrderedBatches(5, 2), 0, False), read_views(expression)
        return evaluation.predict_views(Known(), loader, AS_IT_IS, torch.device("cpu"), FP32, views, True, "")

    every = dict(zip(map(str, read_views("hflip * turns")), over("hflip * turns"), strict=True))
    assert every["identity"].shape == (5, 3)
    upright = data.images
    for name, mirrored, turns in [
        ("identity", False, 0), ("turn 90", False, 1), ("turn 180", False, 2), ("turn 270", False, 3),
        ("hflip", True, 0), ("hflip turn 90", True, 1), ("vflip", True, 2), ("hflip turn 270", True, 3),
    ]:  # fmt: skip
        data.images = np.ascontiguousarray(np.rot90(upright[:, :, ::-1] if mirrored else upright, turns, (1, 2)))
        np.testing.assert_allclose(every[name], over("identity")[0], rtol=1e-5)


def test_images_are_loaded_as_large_as_the_largest_view_and_cut_from_there():
    views = read_views("scales(0.5, 1.0) * crops(1.5)")
    assert evaluation.loaded_size(views, 32) == 48
    pixels = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    seen = dict(zip(map(str, views), evaluation.see(pixels, views, 32), strict=True))
    assert {tuple(view.shape) for view in seen.values()} == {(2, 3, 16, 16), (2, 3, 32, 32)}
    torch.testing.assert_close(seen["crop 1.5 centre"], pixels[:, :, 8:40, 8:40])
    torch.testing.assert_close(seen["crop 1.5 top right"], pixels[:, :, :32, 16:])
    torch.testing.assert_close(seen["crop 1.5 bottom left"], pixels[:, :, 16:, :32])
    whole = functional.interpolate(pixels, size=(24, 24), mode="bilinear", antialias=True)
    torch.testing.assert_close(seen["scale 0.5 crop 1.5 bottom right"], whole[:, :, 8:, 8:])


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 5))  # views, rows, classes


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(arrays(np.float32, SHAPES, elements=st.floats(-80, 80, width=32)))
def test_the_mean_of_views_is_the_log_of_the_mean_probability_or_the_mean_logit(logits: np.ndarray):
    mean = np.exp(evaluation.mean_view(logits, "probabilities").astype(np.float64))
    np.testing.assert_allclose(mean, softmax(logits.astype(np.float64), axis=-1).mean(axis=0), rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(mean.sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(evaluation.mean_view(logits, "logits"), logits.mean(axis=0), rtol=1e-4, atol=1e-4)


def test_the_mean_of_views_is_exact_where_a_probability_vanishes():
    logits = np.array([[[0.0, -200.0]], [[0.0, -210.0]]], np.float32)
    mean = evaluation.mean_view(logits, "probabilities")
    assert mean[0, 1] == pytest.approx(-200 + math.log((1 + math.exp(-10)) / 2))
