"""Blending: several members' predictions of the same rows as one, by weights that are fitted on out-of-fold rows or not at all.

Each method is scored by nested cross-validation: fitted on all folds but one, applied to that one. What is recommended is
the simplest within one standard error of the best, since what fits noise on OOF costs places on the private board.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from src.competitions import metrics
from src.errors import UserError
from src.inference import paired

SIMPLEST_FIRST = ("single", "mean", "logits", "rank", "weights", "greedy", "stack")
PICKS = 25  # of the greedy selection: weights in steps of 4 %
LEAST = 1e-6  # a member's probability as the stack sees it: one certain mistake must not decide a coefficient
TINIEST = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class Blend:
    """A fitted method: the members' weights, which sum to 1; for the stack the coefficients of its logistic regression."""

    method: str
    weights: tuple[float, ...] = ()
    coefficients: tuple[tuple[float, ...], ...] = ()  # (classes, members * classes)
    intercepts: tuple[float, ...] = ()

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """(n, classes) float64 log-probabilities of the members' logits (members, n, classes)."""
        log_p = log_softmax(logits.astype(np.float64), axis=2)
        if self.method == "stack":
            return log_softmax(_features(log_p) @ np.array(self.coefficients).T + self.intercepts, axis=1)
        if self.method == "logits":
            return log_softmax(np.tensordot(self.weights, log_p, 1), axis=1)
        if self.method == "rank":  # a class's column is ranked over the rows given, which is all that ROC AUC looks at
            ranks = np.tensordot(self.weights, rankdata(_log_odds(log_p), axis=1) / (log_p.shape[1] + 1), 1)
            return np.log(ranks / ranks.sum(axis=1, keepdims=True))
        return np.log(np.maximum(np.tensordot(self.weights, np.exp(log_p), 1), TINIEST))

    def as_json(self) -> dict[str, Any]:
        """Plain values; Blend(**them) is the same blend."""
        return asdict(self)


def methods_for(metric: str, members: int) -> tuple[str, ...]:
    """What can be tried, simplest first."""
    if members == 1:
        return ("single",)
    return tuple(method for method in SIMPLEST_FIRST if method != "rank" or metric == "roc_auc")


def check_method(method: str, metric: str, members: int) -> None:
    """Raises UserError where a method can't be used, with the reason."""
    if members == 1:
        raise UserError(f"--method {method}: blending needs two runs or more; one run alone is only calibrated")
    if method == "rank" and metric != "roc_auc":
        raise UserError(
            f"--method rank: ranks throw away how probable a class is, which {metric} needs; they are for roc_auc alone"
        )


def fit(method: str, metric: str, labels: np.ndarray, logits: np.ndarray) -> Blend:
    """One of SIMPLEST_FIRST fitted on labels (n,) int and the members' logits (members, n, classes).

    single: the member with the best score; mean (of probabilities), logits (their mean, a geometric mean of the
    probabilities) and rank: equal weights. weights: on the simplex, with the least log loss, a convex problem and for the
    other metrics a smooth stand-in. greedy: selection with replacement by the metric itself (Caruana 2004). stack:
    logistic regression on the log-probabilities.
    """
    members = len(logits)
    if method == "stack":
        return _stack(labels, logits)
    if method == "weights":
        return Blend(method, _least_log_loss(labels, logits))
    if method == "greedy":
        return Blend(method, _greedy(metric, labels, logits))
    if method == "single":
        alone = {str(i): np.exp(log_softmax(member.astype(np.float64), axis=1)) for i, member in enumerate(logits)}
        return Blend(method, tuple(np.eye(members)[int(paired.best(metric, labels, alone))].tolist()))
    return Blend(method, (1 / members,) * members)


def fit_without(method: str, metric: str, labels: np.ndarray, logits: np.ndarray, folds: np.ndarray) -> dict[Any, Blend]:
    """For each fold the blend fitted on all others, by which the fold's rows are scored. folds: (n,)."""
    return {fold: fit(method, metric, labels[folds != fold], logits[:, folds != fold]) for fold in np.unique(folds)}


def disagreement(logits: np.ndarray) -> np.ndarray:
    """(members, members) float64 of logits (members, n, classes), NaN on the diagonal.

    Above it the share of rows to which two members give different classes, below it the correlation of their
    log-probabilities, each row's centred over the classes.
    """
    firsts = logits.argmax(axis=2)
    flat = _centred(log_softmax(logits.astype(np.float64), axis=2)).reshape(len(logits), -1)
    apart = (firsts[:, None] != firsts[None]).mean(axis=2)
    np.fill_diagonal(apart, np.nan)
    return np.triu(apart) + np.tril(np.corrcoef(flat), -1)


def _least_log_loss(labels: np.ndarray, logits: np.ndarray) -> tuple[float, ...]:
    """Weights on the simplex of the mean of probabilities with the least log loss, a convex function of them."""
    members, rows = logits.shape[:2]
    right = np.exp(log_softmax(logits.astype(np.float64), axis=2))[:, np.arange(rows), labels]  # (members, n)
    right = np.maximum(right, TINIEST)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = weights @ right
        return float(-np.log(mixed).mean()), -(right / mixed).mean(axis=1)

    found = minimize(
        loss, np.full(members, 1 / members), jac=True, method="SLSQP", bounds=[(1e-9, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}, options={"ftol": 1e-10},
    ).x  # fmt: skip
    kept = np.where(found < 1e-4, 0, found)
    return tuple((kept / kept.sum()).tolist())


def _greedy(metric: str, labels: np.ndarray, logits: np.ndarray) -> tuple[float, ...]:
    """Again and again the member whose addition gives the best score; of all PICKS selections on the way the best one."""
    sign = 1 if metrics.HIGHER_IS_BETTER[metric] else -1
    probabilities = np.exp(log_softmax(logits.astype(np.float64), axis=2))
    counts, total = np.zeros(len(logits)), np.zeros(logits.shape[1:])
    top, weights = -np.inf, counts
    for picked in range(1, PICKS + 1):
        scores = [sign * metrics.score(metric, labels, (total + each) / picked) for each in probabilities]
        chosen = int(np.argmax(scores))
        counts[chosen] += 1
        total += probabilities[chosen]
        if scores[chosen] > top:
            top, weights = scores[chosen], counts / picked
    return tuple(weights.tolist())


def _stack(labels: np.ndarray, logits: np.ndarray) -> Blend:
    """Multinomial logistic regression, scikit-learn's default penalty. A class without rows here keeps probability ~0."""
    features = _features(log_softmax(logits.astype(np.float64), axis=2))
    model = LogisticRegression(max_iter=1000).fit(features, labels)
    classes = logits.shape[2]
    coefficients, intercepts = np.zeros((classes, features.shape[1])), np.full(classes, np.log(LEAST))
    if len(model.classes_) == 2:  # scikit-learn keeps the second class's row alone
        coefficients[model.classes_[1]], intercepts[model.classes_] = model.coef_[0], (0.0, model.intercept_[0])
    else:
        coefficients[model.classes_], intercepts[model.classes_] = model.coef_, model.intercept_
    return Blend("stack", (), tuple(map(tuple, coefficients.tolist())), tuple(intercepts.tolist()))


def _log_odds(log_probabilities: np.ndarray) -> np.ndarray:
    """Of each class against all others: still told apart where probabilities have all become 1."""
    classes = range(log_probabilities.shape[2])
    others = [logsumexp(np.delete(log_probabilities, k, axis=2), axis=2) for k in classes]
    return log_probabilities - np.stack(others, axis=2)


def _features(log_probabilities: np.ndarray) -> np.ndarray:
    """(members, n, classes) → (n, members * classes): bounded, and each row centred over the classes."""
    return np.concatenate(list(_centred(np.maximum(log_probabilities, np.log(LEAST)))), axis=1)


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(axis=2, keepdims=True)
