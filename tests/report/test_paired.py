"""Two runs on the same rows: the difference, its errors, McNemar's test, and which rows make it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from src.errors import UserError
from src.report import paired
from src.report.oof import Oof
from written_runs import written

ACCURACY = {"metric": "accuracy", "submission_values": "label", "positive": None}


def run(path: Path, labels: np.ndarray, margin: np.ndarray, **given: object) -> Oof:
    """A run whose label's logit leads by `margin` (n,)."""
    sign = np.where(np.asarray(labels) == 1, 1, -1) * margin
    return written(path, labels, np.column_stack([-sign / 2, sign / 2]), **given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("paired")


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, 400)


@pytest.fixture(scope="module")
def noisy(labels: np.ndarray) -> np.ndarray:
    """What makes a row hard, for every run alike."""
    return np.random.default_rng(1).normal(1.5, 2, len(labels))


def test_a_small_gain_on_every_row_is_seen_though_both_scores_are_far_less_certain(folder, labels, noisy):
    weak, strong = run(folder / "weak", labels, noisy), run(folder / "strong", labels, noisy + 0.1)
    pair = paired.pair(weak, strong)
    assert pair.metric == pytest.approx(weak.losses.mean() - strong.losses.mean())
    assert pair.loss == pytest.approx(pair.metric)
    low, high = pair.interval
    assert 0 < low < pair.metric < high
    assert high - low < 0.1 * 2 * 1.96 * weak.losses.std() / np.sqrt(len(labels))
    assert pair.verdict == f"strong is better, by {pair.metric:.4f} in log loss"


def test_two_models_that_differ_by_luck_alone_are_called_equal(folder, labels, noisy):
    rng = np.random.default_rng(2)
    one, other = (run(folder / name, labels, noisy + rng.normal(0, 0.5, len(labels))) for name in ("one", "other"))
    assert paired.pair(one, other).verdict == "No difference in log loss beyond noise"


def test_the_interval_is_about_two_standard_errors_either_way(folder, labels, noisy):
    other = run(folder / "random", labels, noisy + np.random.default_rng(3).normal(0, 1, len(labels)))
    first = run(folder / "first", labels, noisy)
    pair = paired.pair(first, other)
    assert pair.standard_error == pytest.approx(np.std(first.losses - other.losses, ddof=1) / 20)
    assert np.diff(pair.interval)[0] == pytest.approx(2 * 1.96 * pair.standard_error, rel=0.15)


def test_where_higher_is_better_the_higher_one_is_better(folder, labels):
    right, wrong = np.ones(400), np.where(np.arange(400) < 60, -1.0, 1.0)
    pair = paired.pair(
        run(folder / "h", labels, right, competition=ACCURACY), run(folder / "l", labels, wrong, competition=ACCURACY)
    )
    assert pair.metric == pytest.approx(0.15)
    assert pair.verdict == "h is better, by 0.1500 in accuracy"


def test_a_metric_of_all_rows_at_once_has_an_interval_too(folder, labels, noisy):
    macro = ACCURACY | {"metric": "macro_f1"}
    pair = paired.pair(
        run(folder / "m", labels, noisy, competition=macro), run(folder / "n", labels, -noisy, competition=macro)
    )
    assert 0 < pair.interval[0] < pair.metric < pair.interval[1]


@pytest.fixture(scope="module")
def right(folder, labels) -> Oof:
    return run(folder / "right", labels, np.ones(400))


@given(only_first=st.integers(0, 15), only_second=st.integers(0, 15), both=st.integers(1, 10))
def test_mcnemar_is_the_exact_binomial_test_of_the_rows_that_one_alone_gets_right(right, only_first, only_second, both):
    rows = np.arange(only_first + only_second + both)
    only, other = rows < only_first, (rows >= only_first) & (rows < only_first + only_second)
    pair = paired.pair(wrong_but(right, only), wrong_but(right, other))
    assert (pair.only_first, pair.only_second) == (only_first, only_second)
    fewer = min(only_first, only_second)
    assert pair.p_value == pytest.approx(min(1, 2 * binom.cdf(fewer, only_first + only_second, 0.5)))


def wrong_but(right: Oof, rows: np.ndarray) -> Oof:
    """As many of the rows as `rows` (n,) bool is long, right only where it is True."""
    some = right.take(np.arange(len(rows)))
    return replace(some, probabilities=np.where(rows[:, None], some.probabilities, some.probabilities[:, ::-1]))


def test_rows_are_matched_by_id_and_only_common_ones_count(folder, labels, noisy):
    ids = np.array([f"row{i}" for i in range(400)])
    order = np.random.default_rng(4).permutation(400)[:300]
    first = run(folder / "all", labels, noisy)
    second = run(folder / "some", labels[order], noisy[order], ids=ids[order], folds=3)
    pair = paired.pair(first, second)
    assert len(pair.first.ids) == 300
    assert (pair.first.ids == pair.second.ids).all()
    assert (pair.metric, pair.only_first, pair.p_value) == (pytest.approx(0), 0, 1)


def test_the_rows_that_differ_most_stand_at_both_ends(folder, labels, noisy):
    better = noisy.copy()
    better[[3, 4]] += [4, -6]
    pair = paired.pair(run(folder / "x", labels, better), run(folder / "y", labels, noisy))
    rows = pair.disagreements()
    assert pair.first.ids[rows["row"].iloc[[0, -1]]].tolist() == ["row3", "row4"]
    assert rows["gain"].iloc[0] > 0 > rows["gain"].iloc[-1]


@pytest.mark.parametrize(
    "other, message",
    [
        ({"competition": {"name": "else"}}, "is a run of dogs_vs_cats, .* of else: they have no rows in common"),
        ({"competition": {"classes": ("dog", "cat")}}, r"has the classes cat, dog, .* dog, cat: not comparable"),
        ({"ids": [f"z{i}" for i in range(400)]}, "have no out-of-fold row in common: train the same folds of both"),
    ],
)
def test_runs_that_can_not_be_compared_are_refused_in_one_line(folder, labels, noisy, other, message):
    first, second = run(folder / "first", labels, noisy), run(folder / "second", labels, noisy, **other)
    with pytest.raises(UserError, match=message) as caught:
        paired.pair(first, second)
    assert "\n" not in str(caught.value)


def test_other_labels_for_a_row_are_refused_naming_the_first(folder, labels, noisy):
    changed = labels.copy()
    changed[7] = 1 - changed[7]
    with pytest.raises(UserError, match="have different labels for 1 rows, the first is 'row7'"):
        paired.pair(run(folder / "first", labels, noisy), run(folder / "changed", changed, noisy))
