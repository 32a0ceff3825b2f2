"""Rows whose label is probably wrong, by confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning:
Estimating Uncertainty in Dataset Labels", JAIR 70).

A row counts as evidence against its label where another class is as probable as it usually is for that class's own rows.
Thresholds of each class's own make up for classes that a model is surer or less sure of.
"""

import numpy as np
import pandas as pd


def thresholds(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(classes,) float64: mean probability of a class over the rows labelled so; infinite for a class without a row."""
    own = probabilities[np.arange(len(labels)), labels]
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=own, minlength=classes)
    return np.divide(sums, counts, out=np.full(classes, np.inf), where=counts > 0)


def suspects(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Suspect rows, the most certain first: row (its number), suggested (class index), margin (in (0, 1]).

    labels: (n,) int64; probabilities: (n, classes) float64, each row's by a model that was not trained on it. A row is
    suspect where, of the classes that reach their threshold, the most probable is not its label. margin: by how much
    the suggested class is more probable than the label.
    """
    reached = np.where(probabilities >= thresholds(labels, probabilities), probabilities, -np.inf)
    suggested = reached.argmax(axis=1)
    rows = np.flatnonzero(np.isfinite(reached.max(axis=1)) & (suggested != labels))
    margin = probabilities[rows, suggested[rows]] - probabilities[rows, labels[rows]]
    found = pd.DataFrame({"row": rows, "suggested": suggested[rows], "margin": margin})
    return found[found["margin"] > 0].sort_values("margin", ascending=False, kind="stable").reset_index(drop=True)
