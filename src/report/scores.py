"""What out-of-fold rows say of a model: each fold's and each class's scores, and which classes it confuses."""

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from src.competitions import metrics
from src.report.oof import Oof


def by_fold(oof: Oof) -> pd.DataFrame:
    """One line a fold: fold, rows, metric (the competition's), second (`second_metric`)."""
    first = oof.config.competition.metric
    lines = []
    for fold in dict.fromkeys(oof.folds):
        part = oof.take(oof.folds == fold)
        values = [metrics.score(metric, part.labels, part.probabilities) for metric in (first, second_metric(first))]
        lines.append((fold, len(part.ids), *values))
    return pd.DataFrame(lines, columns=["fold", "rows", "metric", "second"])


def second_metric(metric: str) -> str:
    """What is shown beside the competition's metric: accuracy, or beside that the log loss."""
    return "log_loss" if metric == "accuracy" else "accuracy"


def by_class(oof: Oof) -> pd.DataFrame:
    """One line a class, the worst F1 first: name, precision, recall, f1 (0 where undefined), rows."""
    every = np.arange(len(oof.classes))
    scores = precision_recall_fscore_support(oof.labels, oof.predicted, labels=every, zero_division=0)
    table = pd.DataFrame(dict(zip(("precision", "recall", "f1", "rows"), scores, strict=True)))
    return table.assign(name=oof.classes).sort_values(["f1", "name"], ignore_index=True)


def confusion(oof: Oof) -> np.ndarray:
    """(classes, classes) int64: how many rows of each class (first axis) are taken for each class."""
    return confusion_matrix(oof.labels, oof.predicted, labels=np.arange(len(oof.classes)))


def confused_pairs(oof: Oof, most: int = 12) -> pd.DataFrame:
    """The most frequent mistakes: label, predicted (names), rows, share (of the label's rows)."""
    counts = confusion(oof)
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    label, predicted = np.unravel_index(order[wrong.flat[order] > 0], wrong.shape)
    names = np.array(oof.classes)
    return pd.DataFrame(
        {
            "label": names[label],
            "predicted": names[predicted],
            "rows": wrong[label, predicted],
            "share": wrong[label, predicted] / counts.sum(axis=1)[label],
        }
    )
