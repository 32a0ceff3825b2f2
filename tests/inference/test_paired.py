"""src/inference/paired.py: the error of a difference, and the simplest candidate within it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from src.inference import paired


def planted(rows: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from probabilities of two classes, and these probabilities with noise on their log-odds."""
    rng = np.random.default_rng(seed)
    log_odds = rng.normal(0, 2, rows)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-log_odds))).astype(np.int64)
    seen = 1 / (1 + np.exp(-log_odds - np.random.default_rng(seed + 1).normal(0, noise, rows)))
    return labels, np.stack([1 - seen, seen], axis=1)


@pytest.mark.parametrize("metric", ["log_loss", "accuracy", "macro_f1", "roc_auc"])
def test_a_gain_is_positive_for_the_better_one_and_changes_its_sign_with_the_order(metric):
    labels, good = planted(500, 0)
    bad = planted(500, 3)[1]
    ahead, error = paired.gain(metric, labels, good, bad)
    behind, same = paired.gain(metric, labels, bad, good)
    assert ahead > 2 * error > 0
    assert (behind, same) == pytest.approx((-ahead, error))


def test_the_error_of_log_loss_is_that_of_the_rows_differences():
    labels, good = planted(500, 0)
    bad = planted(500, 1)[1]
    rows = np.log(good[np.arange(500), labels]) - np.log(bad[np.arange(500), labels])
    difference, error = paired.gain("log_loss", labels, good, bad)
    assert difference == pytest.approx(log_loss(labels, bad) - log_loss(labels, good))
    assert error == pytest.approx(np.std(rows, ddof=1) / np.sqrt(500))


def test_the_bootstrap_agrees_with_the_formula_where_there_is_one(monkeypatch):
    labels, good = planted(1000, 0)
    bad = planted(1000, 1)[1]
    formula = paired.gain("accuracy", labels, good, bad)
    monkeypatch.setattr(paired.metrics, "row_scores", lambda *_: None)
    difference, error = paired.gain("accuracy", labels, good, bad)
    assert difference == formula[0]
    assert error == pytest.approx(formula[1], rel=0.25)  # 100 resamples: 7 % is one standard deviation


def test_the_error_holds_over_fresh_draws():
    draws = [(*planted(400, 0, seed), planted(400, 1, seed)[1]) for seed in range(0, 200, 2)]
    gains = np.array([paired.gain("log_loss", *draw) for draw in draws])
    assert np.std(gains[:, 0], ddof=1) == pytest.approx(gains[:, 1].mean(), rel=0.25)


@given(st.integers(0, 10**6), st.sampled_from(["log_loss", "accuracy"]))
def test_of_equal_candidates_the_first_is_taken(seed, metric):
    labels, probabilities = planted(60, 1, seed)
    same = {"plain": probabilities, "fitted": probabilities.copy()}
    assert paired.simplest(metric, labels, same) == paired.best(metric, labels, same) == "plain"


def test_a_gain_within_the_error_is_not_taken_and_one_beyond_it_is():
    labels, good = planted(4000, 0)
    hardly, clearly = planted(4000, 0.05, 2)[1], planted(4000, 1)[1]
    labels_of_both = {"simple": hardly, "fitted": planted(4000, 0.05, 2)[1]}
    assert paired.simplest("log_loss", planted(4000, 0, 2)[0], labels_of_both) == "simple"
    assert paired.simplest("log_loss", labels, {"simple": clearly, "fitted": good}) == "fitted"
    ahead, error = paired.gain("accuracy", labels, good, hurt(good, labels, 3))
    assert 0 < ahead < 2 * error  # three rows of 4,000: more than one error, so it is taken
    assert paired.simplest("accuracy", labels, {"simple": hurt(good, labels, 1), "fitted": good}) == "simple"


def hurt(probabilities: np.ndarray, labels: np.ndarray, rows: int) -> np.ndarray:
    """The same with the classes of so many right rows turned round."""
    right = np.flatnonzero(probabilities.argmax(axis=1) == labels)[:rows]
    spoilt = probabilities.copy()
    spoilt[right] = spoilt[right, ::-1]
    return spoilt
