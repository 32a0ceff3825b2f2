"""src/inference/calibrate.py: planted faults are found and mended, sound probabilities are left alone."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax

from src.competitions.predictions import Predictions, mean
from src.errors import UserError
from src.inference import calibrate, paired
from src.inference.calibrate import SIMPLEST_FIRST, Calibration

ROWS = 6000
FITTED = SIMPLEST_FIRST[1:]
some_logits = arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(2, 5)), elements=st.floats(-1e3, 1e3, width=32))


def planted(rows: int = ROWS, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits whose softmax is the truth, labels drawn from it, and five folds."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, classes))
    labels = (softmax(logits, axis=1).cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=classes - 1)
    return logits, labels, np.arange(rows) % 5


def compare(labels: np.ndarray, logits: np.ndarray, folds: np.ndarray) -> dict[str, np.ndarray]:
    return {kind: calibrate.nested(kind, labels, logits, folds) for kind in SIMPLEST_FIRST}


def recommended(labels: np.ndarray, tried: dict[str, np.ndarray]) -> str:
    return paired.simplest("log_loss", labels, {kind: np.exp(values) for kind, values in tried.items()})


def loss(labels: np.ndarray, log_probabilities: np.ndarray) -> float:
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def predictions(logits: np.ndarray) -> Predictions:
    names = tuple(f"{k:02d}" for k in range(logits.shape[1]))
    return Predictions(np.array([f"row {i}" for i in range(len(logits))]), logits.astype(np.float32), names)


# The reliability diagram


def test_the_diagrams_points_are_those_of_a_hand_count():
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.4, 0.6], [1.0, 0.0]])
    table = calibrate.reliability(np.array([0, 1, 1, 0]), probabilities, bins=10)
    assert table.to_numpy().tolist() == [[0.6, 1.0, 1], [pytest.approx((0.95 + 0.91 + 1) / 3), pytest.approx(2 / 3), 3]]
    assert table.columns.tolist() == ["confidence", "accuracy", "rows"]


@given(some_logits, st.integers(1, 30), st.randoms(use_true_random=False))
def test_the_diagrams_points_are_means_over_all_rows(logits, bins, random):
    probabilities = softmax(logits.astype(np.float64), axis=1)
    labels = np.array([random.randrange(logits.shape[1]) for _ in logits])
    table = calibrate.reliability(labels, probabilities, bins)
    assert table["rows"].sum() == len(labels)
    assert 1 <= len(table) <= bins
    assert np.average(table["accuracy"], weights=table["rows"]) == pytest.approx(
        (probabilities.argmax(axis=1) == labels).mean()
    )
    assert np.average(table["confidence"], weights=table["rows"]) == pytest.approx(probabilities.max(axis=1).mean())


def test_the_calibration_error_is_small_for_the_truth_and_large_for_what_is_too_sure():
    logits, labels, _ = planted()
    assert calibrate.calibration_error(labels, softmax(logits, axis=1)) < 0.02
    assert calibrate.calibration_error(labels, softmax(3 * logits, axis=1)) > 0.1


# What is fitted


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_planted_temperature_is_found(temperature):
    logits, labels, _ = planted()
    assert calibrate.fit("temperature", labels, logits * temperature).temperature == pytest.approx(temperature, rel=0.06)


def test_a_planted_prior_shift_is_found_and_mended():
    logits, labels, folds = planted()
    shifted = logits - np.array([2.0, 0.0, -1.0])
    found = calibrate.fit("prior", labels, shifted)
    assert np.array(found.prior) == pytest.approx(np.array([2, 0, -1]) - 1 / 3, abs=0.15)
    tried = compare(labels, shifted, folds)
    assert recommended(labels, tried) == "prior"
    assert loss(labels, tried["prior"]) == pytest.approx(loss(labels, log_softmax(logits, axis=1)), abs=0.003)


def test_a_floor_is_found_where_some_labels_are_wrong():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, ROWS)
    logits = 30.0 * np.eye(2)[labels]
    wrong = rng.random(ROWS) < 0.01
    labels[wrong] = 1 - labels[wrong]
    found = calibrate.fit("clip", labels, logits)
    assert found.floor == pytest.approx(0.01, rel=0.3)
    held = calibrate.nested("clip", labels, logits, np.arange(ROWS) % 5)
    assert loss(labels, held) < 0.06 < 0.2 < loss(labels, log_softmax(logits, axis=1))


def test_sound_probabilities_are_left_alone():
    for seed in range(4):
        logits, labels, folds = planted(2000, seed=seed)
        tried = compare(labels, logits, folds)
        ahead, error = paired.gain("log_loss", labels, np.exp(tried["prior+clip"]), np.exp(tried["none"]))
        assert ahead < 2 * error  # the nested score doesn't reward noise
    taken = [recommended(y, compare(y, z, f)) for z, y, f in (planted(1000, seed=s) for s in range(12))]
    assert taken.count("none") >= 10  # one standard error lets a few of a hundred through


def test_what_is_recommended_gains_as_much_on_fresh_rows():
    logits, labels, folds = planted()
    tried = compare(labels, 2 * logits, folds)
    assert recommended(labels, tried) == "temperature"
    promised, error = paired.gain("log_loss", labels, np.exp(tried["temperature"]), np.exp(tried["none"]))
    fresh, truth, _ = planted(seed=1)
    calibrated = calibrate.fit("temperature", labels, 2 * logits).log_probabilities(2 * fresh)
    kept, fresh_error = paired.gain("log_loss", truth, np.exp(calibrated), softmax(2 * fresh, axis=1))
    assert promised > 10 * error
    assert abs(kept - promised) < 3 * np.hypot(error, fresh_error)


@pytest.mark.parametrize("kind", FITTED)
def test_a_folds_rows_are_calibrated_without_their_own_labels(kind):
    logits, labels, folds = planted(500)
    before = calibrate.nested(kind, labels, logits, folds)
    changed = np.where(folds == 2, (labels + 1) % 3, labels)
    after = calibrate.nested(kind, changed, logits, folds)
    assert np.array_equal(before[folds == 2], after[folds == 2])
    assert not np.array_equal(before[folds != 2], after[folds != 2])


@pytest.mark.parametrize("kind", FITTED)
@pytest.mark.parametrize("labels", [[0, 1, 2, 0], [0, 0, 0, 0], [1, 2, 0, 1]], ids=["all right", "one class", "all wrong"])
def test_few_or_separable_rows_give_finite_numbers(kind, labels):
    found = calibrate.fit(kind, np.array(labels), 50 * np.eye(3)[[0, 1, 2, 0]])
    assert 1e-3 < found.temperature < 1e3
    assert np.isfinite(found.log_probabilities(np.array([[1e4, -1e4, 0.0]]))).all()
    assert not found.prior or np.abs(found.prior).max() < 20


# What is applied


@pytest.mark.parametrize("kind", ["clip", "temperature", "temperature+clip"])
@given(logits=some_logits, temperature=st.floats(0.2, 5), floor=st.floats(1e-6, 0.05))
def test_temperature_and_clip_leave_the_class_that_stands_first(kind, logits, temperature, floor):
    calibration = Calibration(kind, temperature if "temperature" in kind else 1.0, (), floor if "clip" in kind else 0.0)
    before, after = softmax(logits.astype(np.float64), axis=1), calibration.apply(predictions(logits)).probabilities()
    firsts = before.argmax(axis=1)
    assert np.allclose(after[np.arange(len(after)), firsts], after.max(axis=1))
    assert np.allclose(after.sum(axis=1), 1)
    if "clip" in kind:
        assert after.min() > 0.8 * floor  # divided by the row's sum, which five classes can raise to 1.2


def test_ids_and_classes_stay_and_none_changes_nothing():
    before = predictions(planted(20)[0])
    after = Calibration("temperature", 2.0).apply(before)
    assert (after.ids.tolist(), after.classes) == (before.ids.tolist(), before.classes)
    assert np.allclose(after.probabilities(), softmax(before.logits / 2, axis=1), atol=1e-6)
    assert Calibration().apply(before) is before


@pytest.mark.parametrize("kind", SIMPLEST_FIRST)
def test_written_as_json_and_read_back_it_is_the_same(kind):
    logits, labels, _ = planted(300)
    found = calibrate.fit(kind, labels, 2 * logits)
    assert Calibration.from_json(json.loads(json.dumps(found.as_json()))) == found
    assert found.kind == kind


def test_it_says_what_it_does():
    assert str(Calibration()) == "none"
    assert str(Calibration("prior+clip", 1.5, (-0.25, 0.25), 0.005)) == (
        "temperature 1.500, prior -0.250 to +0.250, no probability below 0.005"
    )


@pytest.mark.parametrize("seed", range(5))
def test_calibrated_before_averaged_over_folds_is_nearer_the_truth_than_after(seed):
    """Five folds' models, each too sure by noise of its own: their mean is flatter than any, and a temperature from OOF,
    where each row has one model, would flatten it a second time."""
    truth, labels, _ = planted(4000, 2, seed)
    rng = np.random.default_rng(100 + seed)
    models = [2 * (truth + rng.normal(0, 1, truth.shape)) for _ in range(5)]
    oof = np.choose(np.arange(len(labels))[:, None] % 5, models)
    fitted = calibrate.fit("temperature", labels, oof)
    assert fitted.temperature > 2
    fresh, drawn, _ = planted(4000, 2, 50 + seed)
    tests = [predictions(2 * (fresh + rng.normal(0, 1, fresh.shape))) for _ in range(5)]
    before = mean([fitted.apply(test) for test in tests]).probabilities()
    after = fitted.apply(mean(tests)).probabilities()
    ahead, error = paired.gain("log_loss", drawn, before, after)
    assert ahead > 3 * error
    assert calibrate.calibration_error(drawn, before) < calibrate.calibration_error(drawn, after)


# Where it can't help


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "quadratic_kappa", "roc_auc"])
def test_for_metrics_other_than_log_loss_it_is_refused_with_the_reason(metric):
    reason = "order of the rows" if metric == "roc_auc" else "class that stands first"
    with pytest.raises(UserError, match=rf"--calibrate temperature: .*{metric} looks at the {reason}"):
        calibrate.check_kind("temperature", metric)
    calibrate.check_kind("auto", metric)
    calibrate.check_kind("none", metric)
    calibrate.check_kind("temperature", "log_loss")
