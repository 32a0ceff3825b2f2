"""src/inference/blend.py: weights are found where they help, equal weights recommended where they don't, noise not rewarded."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

from src.errors import UserError
from src.inference import blend, paired
from src.inference.blend import Blend

FITTED = ("single", "weights", "greedy", "stack")
FOLDS = 5


def planted(noises: list[float], rows: int = 4000, classes: int = 2, seed: int = 0) -> tuple[np.ndarray, ...]:
    """labels, the members' logits (members, rows, classes), folds. A member sees the truth with noise of its own."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.5, (rows, classes))
    labels = (softmax(truth, axis=1).cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=classes - 1)
    logits = np.stack([truth + rng.normal(0, noise, truth.shape) for noise in noises])
    return labels, logits.astype(np.float32), np.arange(rows) % FOLDS


def held_out(method: str, metric: str, labels: np.ndarray, logits: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(rows, classes) probabilities: each fold's by the blend fitted without it."""
    probabilities = np.empty(logits.shape[1:])
    for fold, fitted in blend.fit_without(method, metric, labels, logits, folds).items():
        probabilities[folds == fold] = np.exp(fitted.apply(logits[:, folds == fold]))
    return probabilities


def nested(metric: str, labels: np.ndarray, logits: np.ndarray, folds: np.ndarray) -> dict[str, np.ndarray]:
    return {method: held_out(method, metric, labels, logits, folds) for method in blend.methods_for(metric, len(logits))}


# What is recommended


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_where_weights_truly_help_they_are_found_and_gain_as_much_on_fresh_rows(metric):
    noises = [0.2, 4, 4, 4]  # one sound member and three that are mostly noise
    labels, logits, folds = planted(noises)
    tried = nested(metric, labels, logits, folds) | {
        "single": np.full((len(labels), 2), 0.5)
    }  # as if it could not be left alone
    method = paired.simplest(metric, labels, tried)
    assert method in ("weights", "greedy")
    promised, error = paired.gain(metric, labels, tried[method], tried["mean"])
    fresh, seen, _ = planted(noises, seed=1)
    fitted = blend.fit(method, metric, labels, logits)
    assert fitted.weights[0] > 0.7
    equal = np.exp(blend.fit("mean", metric, labels, logits).apply(seen))
    kept, fresh_error = paired.gain(metric, fresh, np.exp(fitted.apply(seen)), equal)
    assert promised > 5 * error
    assert abs(kept - promised) < 2.5 * np.hypot(error, fresh_error)


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_where_members_are_alike_a_plain_mean_is_recommended(metric):
    labels, logits, folds = planted([1, 1, 1], classes=3)
    tried = nested(metric, labels, logits, folds)
    tried = {name: tried[name] for name in ("single", "mean", "weights", "greedy")}
    assert paired.simplest(metric, labels, tried) == "mean"
    ahead, error = paired.gain(metric, labels, tried["weights"], tried["mean"])
    assert abs(ahead) < 2.5 * error


def test_where_one_member_knows_all_it_is_left_alone():
    labels, logits, folds = planted([0, 3])
    tried = nested("log_loss", labels, logits, folds)
    assert paired.simplest("log_loss", labels, tried) == "single"
    assert blend.fit("single", "log_loss", labels, logits).weights == (1.0, 0.0)


@pytest.mark.parametrize("method", FITTED)
def test_a_folds_rows_are_blended_without_their_own_labels(method):
    labels, logits, folds = planted([0.5, 1, 2], rows=300)
    before = held_out(method, "log_loss", labels, logits, folds)
    turned = np.where(folds == 2, 1 - labels, labels)
    after = held_out(method, "log_loss", turned, logits, folds)
    assert np.array_equal(before[folds == 2], after[folds == 2])
    if method != "single":  # the best member may stay the best
        assert not np.array_equal(before[folds != 2], after[folds != 2])


# The methods


def test_the_means_are_those_of_probabilities_and_of_logits():
    logits = np.array([[[0.0, 2.0]], [[0.0, -1.0]]], np.float32)
    mean, geometric = (blend.fit(method, "log_loss", np.array([0]), logits).apply(logits) for method in ("mean", "logits"))
    assert np.exp(mean) == pytest.approx((softmax(logits[0], axis=1) + softmax(logits[1], axis=1)) / 2)
    assert np.exp(geometric) == pytest.approx(softmax([[0.0, 0.5]], axis=1))


def test_no_other_weights_have_a_lower_log_loss():
    labels, logits, _ = planted([0.5, 1, 2], classes=3)
    weights = blend.fit("weights", "log_loss", labels, logits).weights
    assert sum(weights) == pytest.approx(1)
    probabilities = softmax(logits.astype(np.float64), axis=2)
    least = log_loss(labels, np.tensordot(weights, probabilities, 1))
    for other in np.random.default_rng(0).dirichlet(np.ones(3), 200):
        near = 0.98 * np.array(weights) + 0.02 * other
        assert least <= log_loss(labels, np.tensordot(near, probabilities, 1)) + 1e-9


def test_greedy_selection_maximises_the_metric_itself():
    labels, logits, _ = planted([1, 1.5, 3], rows=1000, classes=4)
    weights = blend.fit("greedy", "accuracy", labels, logits).weights
    assert sum(weights) == pytest.approx(1)
    probabilities = softmax(logits.astype(np.float64), axis=2)
    reached = accuracy_score(labels, np.tensordot(weights, probabilities, 1).argmax(axis=1))
    assert reached >= max(accuracy_score(labels, each.argmax(axis=1)) for each in probabilities)
    assert reached >= accuracy_score(labels, probabilities.mean(axis=0).argmax(axis=1))


def test_a_stack_mends_what_weights_cannot():
    labels, logits, folds = planted([0.5, 0.5], rows=1000, classes=3)
    right = held_out("stack", "log_loss", labels, logits, folds)
    spoilt = logits[:, :, [1, 2, 0]]  # each class under another's name
    tried = nested("log_loss", labels, spoilt, folds)
    assert paired.simplest("log_loss", labels, tried) == "stack"
    assert log_loss(labels, tried["stack"]) == pytest.approx(log_loss(labels, right), abs=1e-3)


def test_one_certain_mistake_does_not_decide_a_stack():
    labels, logits, _ = planted([0.5, 0.5], rows=1000)
    before = blend.fit("stack", "log_loss", labels, logits)
    logits[0, 0] = 1e4 * np.eye(2)[1 - labels[0]]
    after = blend.fit("stack", "log_loss", labels, logits)
    rest = slice(1, None)
    losses = [log_loss(labels[rest], np.exp(fitted.apply(logits[:, rest]))) for fitted in (before, after)]
    assert losses[1] < losses[0] + 0.01


def test_a_stack_gives_a_class_that_it_has_not_seen_hardly_any_probability():
    labels, logits, _ = planted([0.5, 0.5], rows=400, classes=3)
    for kept in ((0, 2), (0, 1)):
        some = np.isin(labels, kept)
        given = np.exp(blend.fit("stack", "log_loss", labels[some], logits[:, some]).apply(logits))
        absent = ({0, 1, 2} - set(kept)).pop()
        assert given[:, absent].mean() < 0.01
        assert accuracy_score(labels[some], given[some].argmax(axis=1)) > 0.6


def test_a_mean_of_ranks_knows_nothing_of_how_sure_a_member_is():
    labels, logits, _ = planted([1, 1])
    ranks = blend.fit("rank", "roc_auc", labels, logits)
    surer = np.stack([logits[0], 64 * logits[1]])  # most of its probabilities are 0 or 1 to all digits
    assert np.allclose(ranks.apply(logits), ranks.apply(surer))
    alone = blend.fit("rank", "roc_auc", labels, logits[:1]).apply(logits[:1])
    assert roc_auc_score(labels, alone[:, 1]) == pytest.approx(roc_auc_score(labels, logits[0, :, 1] - logits[0, :, 0]))


@pytest.mark.parametrize("metric, methods", [("roc_auc", blend.SIMPLEST_FIRST), ("log_loss", blend.SIMPLEST_FIRST)])
def test_every_method_is_finite_and_sums_to_one_even_for_absurd_logits(metric, methods):
    labels, logits, _ = planted([0.5, 1], rows=200, classes=3)
    logits[0, :20] = [1e4, -1e4, 0]
    logits[1, :20] = [-1e4, 1e4, 0]
    for method in methods:
        given = blend.fit(method, metric, labels, logits).apply(logits)
        assert np.isfinite(given).all(), method
        assert np.allclose(np.exp(given).sum(axis=1), 1, atol=1e-6), method


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from(["mean", "logits", "weights", "greedy", "single", "stack"]))
def test_the_members_order_does_not_matter(seed, method):
    labels, logits, _ = planted([0.3, 1, 2], rows=120, classes=3, seed=seed)
    order = np.random.default_rng(seed).permutation(3)
    given = blend.fit(method, "log_loss", labels, logits).apply(logits)
    moved = blend.fit(method, "log_loss", labels, logits[order]).apply(logits[order])
    assert np.allclose(np.exp(given), np.exp(moved), atol=5e-3)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 4), st.sampled_from(["mean", "logits", "weights", "greedy", "single"]))
def test_a_blend_of_copies_is_the_member(seed, copies, method):
    labels, logits, _ = planted([1], rows=60, classes=3, seed=seed)
    same = np.repeat(logits, copies, axis=0)
    given = blend.fit(method, "log_loss", labels, same).apply(same)
    assert np.allclose(given, log_softmax(logits[0].astype(np.float64), axis=1), atol=1e-6)


@pytest.mark.parametrize("method", blend.SIMPLEST_FIRST)
def test_written_as_json_and_read_back_it_blends_alike(method):
    labels, logits, _ = planted([0.5, 1], rows=100, classes=3)
    fitted = blend.fit(method, "log_loss", labels, logits)
    again = Blend(**json.loads(json.dumps(fitted.as_json())))
    assert np.array_equal(fitted.apply(logits), again.apply(logits))


def test_disagreement_counts_rows_above_and_correlates_below_the_diagonal():
    first = np.array([[3, 0], [0, 1], [2, 0], [0, 4.0]])
    logits = np.stack([first, 2 * first, first * [[1], [1], [-1], [1]]]).astype(np.float32)
    table = blend.disagreement(logits)
    assert np.isnan(np.diag(table)).all()
    assert [table[0, 1], table[0, 2], table[1, 2]] == [0, 0.25, 0.25]
    assert table[1, 0] == pytest.approx(1, abs=0.01)
    assert 0 < table[2, 0] < 0.9


# Refusals


def test_ranks_are_for_roc_auc_alone():
    with pytest.raises(UserError, match="--method rank: ranks throw away how probable a class is, which log_loss needs"):
        blend.check_method("rank", "log_loss", 2)
    blend.check_method("rank", "roc_auc", 2)
    assert "rank" in blend.methods_for("roc_auc", 2)
    assert "rank" not in blend.methods_for("accuracy", 2)


def test_one_run_can_not_be_blended():
    with pytest.raises(UserError, match="--method stack: blending needs two runs or more; one run alone is only calibrated"):
        blend.check_method("stack", "log_loss", 1)
    assert blend.methods_for("log_loss", 1) == ("single",)
