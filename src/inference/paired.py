"""Two predictions of the same rows compared: the difference of their scores with its error, and the simplest within it.

Rows are shared, so most of what makes one of them hard cancels: the error of the difference is far below that of a score.
"""

import numpy as np

from src.competitions import metrics

RESAMPLES = 100  # of the bootstrap; the standard error itself is then known to 7 %


def gain(metric: str, labels: np.ndarray, probabilities: np.ndarray, over: np.ndarray) -> tuple[float, float]:
    """By how much `probabilities` score better than `over`, and one standard error of that; positive is better.

    labels: (n,) int; the others (n, classes) float64. For log loss and accuracy the error is that of the mean of the
    per-row differences; for metrics of all rows at once it is the paired bootstrap's over rows, seeded.
    """
    sign = 1 if metrics.HIGHER_IS_BETTER[metric] else -1
    difference = sign * (metrics.score(metric, labels, probabilities) - metrics.score(metric, labels, over)) + 0.0  # never -0.0
    rows = len(labels)
    mine, other = (metrics.row_scores(metric, labels, each) for each in (probabilities, over))
    if mine is not None and other is not None:
        return difference, float(np.std(mine - other, ddof=1) / np.sqrt(rows)) if rows > 1 else float("nan")
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        at = rng.integers(rows, size=rows)
        drawn.append(metrics.score(metric, labels[at], probabilities[at]) - metrics.score(metric, labels[at], over[at]))
    return difference, float(np.nanstd(drawn, ddof=1))


def best(metric: str, labels: np.ndarray, candidates: dict[str, np.ndarray]) -> str:
    """The candidate with the best score; of equal ones the first."""
    sign = 1 if metrics.HIGHER_IS_BETTER[metric] else -1
    return max(candidates, key=lambda name: sign * metrics.score(metric, labels, candidates[name]))


def simplest(metric: str, labels: np.ndarray, candidates: dict[str, np.ndarray]) -> str:
    """The first candidate that the best one beats by no more than one standard error; give them simplest first."""
    top = candidates[best(metric, labels, candidates)]
    for name, probabilities in candidates.items():
        ahead, error = gain(metric, labels, top, probabilities)
        if ahead <= error or probabilities is top:
            return name
    raise AssertionError("the best is among the candidates")
