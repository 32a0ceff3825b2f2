"""The loss against torch's and against hand-made sums."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from src.config import TrainConfig
from src.training.loss import Loss, evened, make_loss

CPU = torch.device("cpu")
LOGITS = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 0, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_focal_loss_with_gamma_near_0_and_even_weights_is_cross_entropy(smoothing: float):
    expected = F.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing)
    torch.testing.assert_close(Loss(smoothing)(LOGITS, LABELS), expected)
    torch.testing.assert_close(Loss(smoothing, gamma=1e-9)(LOGITS, LABELS), expected)
    torch.testing.assert_close(Loss(smoothing, weights=torch.ones(4))(LOGITS, LABELS), expected)


def test_focal_loss_is_its_papers_formula():
    p = LOGITS.softmax(1)[torch.arange(6), LABELS]
    torch.testing.assert_close(Loss(gamma=2.0)(LOGITS, LABELS), (-((1 - p) ** 2) * p.log()).mean())


def test_mixed_labels_count_by_their_shares():
    shares = torch.full((6, 4), 0.25)
    torch.testing.assert_close(Loss(smoothing=0.3)(LOGITS, shares), F.cross_entropy(LOGITS, shares))
    weighed = Loss(weights=torch.tensor([1.0, 2.0, 3.0, 4.0]))(LOGITS, shares)
    expected = -(shares * torch.tensor([1.0, 2.0, 3.0, 4.0]) * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(weighed, expected)


def test_auxiliary_logits_count_0_3_each():
    """Szegedy et al. 2014, section 5: their losses are added with a discount weight of 0.3."""
    loss, others = Loss(smoothing=0.1), (LOGITS.flip(0).half(), LOGITS.flip(1))
    expected = loss(LOGITS, LABELS) + 0.3 * (loss(others[0].float(), LABELS) + loss(others[1], LABELS))
    torch.testing.assert_close(loss.of((LOGITS, *others), LABELS), expected)
    assert torch.equal(loss.of(LOGITS, LABELS), loss(LOGITS, LABELS))


def test_class_weights_even_out_the_classes():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    loss = make_loss(TrainConfig(class_weights=1.0, label_smoothing=0.1), labels, 3, CPU)
    assert loss.smoothing == 0.1
    np.testing.assert_allclose(loss.weights, [10 / 18, 10 / 9, 10 / 3], rtol=1e-6)
    halfway = make_loss(TrainConfig(class_weights=0.5), labels, 3, CPU).weights
    assert float(halfway[2] / halfway[0]) == pytest.approx(6**0.5)
    assert make_loss(TrainConfig(), labels, 3, CPU) == Loss()


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.floats(0, 1))
def test_evened_rows_weigh_1_on_average_and_with_power_1_each_class_alike(labels: list[int], power: float):
    rows = np.array(labels)
    assert evened(rows, 6, power).mean() == pytest.approx(1)
    sums = np.bincount(rows, evened(rows, 6, 1.0))
    np.testing.assert_allclose(sums[sums > 0], len(rows) / (sums > 0).sum())
