"""src/competitions/metrics.py: equal to scikit-learn's on whole arrays, also where a class is missing."""

import math
from typing import get_args

import numpy as np
import pytest
from sklearn import metrics as sk

from src.competitions.metrics import HIGHER_IS_BETTER, interval, score
from src.config import CompetitionConfig

NAMES = get_args(CompetitionConfig.model_fields["metric"].annotation)


def drawn(classes: int, seed: int, present: list[int] | None = None, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Labels from the classes that are `present`, and probabilities for all."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(present if present is not None else np.arange(classes), n)
    probabilities = rng.dirichlet(np.ones(classes), n)
    probabilities[np.arange(n), labels] += 0.3
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def quadratic_kappa(labels: np.ndarray, predicted: np.ndarray, classes: int) -> float:
    """From the definition, over all classes whether they occur or not."""
    observed = np.zeros((classes, classes))
    np.add.at(observed, (labels, predicted), 1)
    weights = (np.arange(classes)[:, None] - np.arange(classes)) ** 2
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / len(labels)
    return 1 - (weights * observed).sum() / (weights * expected).sum()


@pytest.mark.parametrize("seed", range(5))
def test_the_distance_between_classes_counts_one_that_neither_occurs_nor_is_predicted(seed):
    labels, probabilities = drawn(4, seed, present=[0, 2, 3])
    probabilities[:, 1] = 0
    expected = quadratic_kappa(labels, probabilities.argmax(axis=1), 4)
    assert score("quadratic_kappa", labels, probabilities) == pytest.approx(expected)


def test_every_configurable_metric_can_be_computed_and_has_a_direction():
    assert set(NAMES) == set(HIGHER_IS_BETTER)
    for name in NAMES:
        assert isinstance(score(name, *drawn(3, 0)), float)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes, present", [(2, None), (3, None), (5, None), (3, [0, 2]), (4, [0, 1, 3])])
def test_the_metrics_equal_scikit_learns(classes, present, seed):
    labels, probabilities = drawn(classes, seed, present)
    predicted = probabilities.argmax(axis=1)
    every = np.arange(classes)
    assert score("accuracy", labels, probabilities) == pytest.approx(sk.accuracy_score(labels, predicted))
    assert score("log_loss", labels, probabilities) == pytest.approx(sk.log_loss(labels, probabilities, labels=every))
    assert score("macro_f1", labels, probabilities) == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert score("quadratic_kappa", labels, probabilities) == pytest.approx(quadratic_kappa(labels, predicted, classes))


@pytest.mark.parametrize("seed", range(5))
def test_roc_auc_equals_scikit_learns_for_two_classes_and_for_more(seed):
    labels, probabilities = drawn(2, seed)
    assert score("roc_auc", labels, probabilities) == pytest.approx(sk.roc_auc_score(labels, probabilities[:, 1]))
    labels, probabilities = drawn(3, seed)
    assert score("roc_auc", labels, probabilities) == pytest.approx(sk.roc_auc_score(labels, probabilities, multi_class="ovr"))


def test_roc_auc_is_the_mean_over_the_classes_that_occur():
    labels, probabilities = drawn(4, 0, present=[0, 1, 3])
    each = [sk.roc_auc_score(labels == k, probabilities[:, k]) for k in (0, 1, 3)]
    assert score("roc_auc", labels, probabilities) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("classes", [2, 3])
def test_roc_auc_of_a_single_class_is_undefined_not_an_error(classes):
    assert math.isnan(score("roc_auc", *drawn(classes, 0, present=[1])))


def test_log_loss_of_one_confident_mistake_is_finite():
    assert 30 < score("log_loss", np.array([0]), np.array([[0.0, 1.0]])) < 40


@pytest.mark.parametrize("name", NAMES)
def test_the_declared_direction_is_where_the_truth_lies(name):
    labels, probabilities = drawn(3, 0)
    truth = np.eye(3)[labels]
    better = score(name, labels, truth) > score(name, labels, probabilities)
    assert better == HIGHER_IS_BETTER[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_the_rows_does_not_matter(name):
    labels, probabilities = drawn(3, 0)
    order = np.random.default_rng(1).permutation(len(labels))
    assert score(name, labels[order], probabilities[order]) == pytest.approx(score(name, labels, probabilities))


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution_where_rows_are_many():
    parts = np.random.default_rng(1).normal(3, 2, 4000)
    low, high = interval(len(parts), parts, lambda _: math.nan)
    error = 1.96 * parts.std() / len(parts) ** 0.5
    assert low == pytest.approx(parts.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(parts.mean() + error, abs=0.1 * error)
    assert interval(len(parts), parts, lambda _: math.nan) == (low, high), "seeded"


def test_the_interval_of_a_metric_of_all_rows_asks_for_it_anew_each_time():
    values = np.arange(100.0)
    low, high = interval(100, None, lambda rows: float(np.median(values[rows])))
    assert 30 < low < 49.5 < high < 70
