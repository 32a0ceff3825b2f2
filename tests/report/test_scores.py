"""Scores by fold and by class, and what is confused with what."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from src.competitions import metrics
from src.report import scores
from src.report.oof import Oof
from written_runs import written

THREE = {"classes": ("a", "b", "c"), "metric": "accuracy", "submission_values": "label", "positive": None}
LABELS = [0, 0, 0, 0, 1, 1, 2, 2]
GUESSES = [0, 1, 1, 2, 1, 1, 2, 0]


@pytest.fixture
def oof(tmp_path: Path) -> Oof:
    return written(tmp_path / "run", LABELS, np.eye(3)[GUESSES] * 2, competition=THREE)


def test_a_line_a_fold(oof: Oof):
    table = scores.by_fold(oof).set_index("fold")
    assert table["rows"].to_dict() == {"0": 4, "1": 4}
    assert table["metric"].to_dict() == {"0": 0.75, "1": 0.25}  # rows 0 2 4 6 and 1 3 5 7
    part = oof.take(oof.folds == "1")
    assert table.at["1", "second"] == pytest.approx(metrics.score("log_loss", part.labels, part.probabilities))


def test_beside_accuracy_stands_the_log_loss_and_beside_others_accuracy():
    assert [scores.second_metric(metric) for metric in ("accuracy", "log_loss", "macro_f1")] == [
        "log_loss",
        "accuracy",
        "accuracy",
    ]


def test_the_worst_class_comes_first(oof: Oof):
    table = scores.by_class(oof)
    assert table["name"].tolist() == ["a", "c", "b"]
    assert table["f1"].tolist() == pytest.approx(sorted(f1_score(LABELS, GUESSES, average=None)))
    assert table[["precision", "recall", "rows"]].iloc[0].tolist() == [0.5, 0.25, 4]


def test_a_class_without_rows_scores_zero_and_breaks_nothing(tmp_path: Path):
    oof = written(tmp_path / "run", [0, 0, 1, 1], np.eye(3)[[0, 0, 1, 1]], competition=THREE)
    assert scores.by_class(oof).iloc[0][["name", "f1", "rows"]].tolist() == ["c", 0, 0]
    assert scores.confusion(oof).shape == (3, 3)


def test_the_confusion_matrix_has_labels_down_and_guesses_across(oof: Oof):
    assert scores.confusion(oof).tolist() == [[1, 2, 1], [0, 2, 0], [1, 0, 1]]


def test_the_most_frequent_mistakes_come_first_and_right_rows_do_not_count(oof: Oof):
    pairs = scores.confused_pairs(oof)
    assert pairs.iloc[0].tolist() == ["a", "b", 2, 0.5]
    assert pairs[["label", "predicted"]].to_numpy().tolist() == [["a", "b"], ["a", "c"], ["c", "a"]]
    assert len(scores.confused_pairs(oof, most=1)) == 1


def test_without_mistakes_nothing_is_confused(tmp_path: Path):
    assert scores.confused_pairs(written(tmp_path / "run", LABELS, np.eye(3)[LABELS], competition=THREE)).empty
