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

from src.data.loader import OrderedBatches, ShuffledBatches, make_loader
from src.models import backbone
from src.training import evaluation
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
        logits = evaluation.predict(Known(), loader, AS_IT_IS, torch.device("cpu"), FP32, ("identity",), channels_last, "")
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits[:, :2], expected * [1, 2], rtol=1e-5)


def test_views_are_averaged_as_probabilities():
    data = Memory(5)
    loader = make_loader(data, OrderedBatches(5, 2), 0, False)

    def over(*views: str) -> np.ndarray:
        return evaluation.predict(Known(), loader, AS_IT_IS, torch.device("cpu"), FP32, views, True, "")

    one, mirrored, both = (softmax(over(*views), axis=1) for views in (["identity"], ["hflip"], ["identity", "hflip"]))
    flipped = np.ascontiguousarray(data.images[:, :, ::-1])
    data.images = flipped
    np.testing.assert_allclose(softmax(over("identity"), axis=1), mirrored, rtol=1e-5)
    np.testing.assert_allclose(both, (one + mirrored) / 2, rtol=1e-5)
    assert np.abs(one - mirrored).max() > 0.01


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 5))  # views, rows, classes


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(arrays(np.float32, SHAPES, elements=st.floats(-80, 80, width=32)))
def test_the_mean_of_views_is_the_log_of_the_mean_probability(logits: np.ndarray):
    mean = evaluation.mean_view(torch.from_numpy(logits.astype(np.float64))).numpy()
    np.testing.assert_allclose(np.exp(mean), softmax(logits.astype(np.float64), axis=-1).mean(axis=0), rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(np.exp(mean).sum(axis=-1), 1)


def test_the_mean_of_views_is_exact_where_a_probability_vanishes():
    logits = torch.tensor([[[0.0, -200.0]], [[0.0, -210.0]]])
    assert float(evaluation.mean_view(logits)[0, 1]) == pytest.approx(-200 + math.log((1 + math.exp(-10)) / 2))
