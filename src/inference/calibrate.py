"""Calibration: probabilities that mean what they say, fitted on out-of-fold rows, taken only where it helps for sure.

Temperature (Guo 2017) divides the logits by one number; a prior shift adds a number to each class's logit, for a training
whose classes were weighed otherwise than the metric's; a floor keeps one confident mistake from costing 30 in log loss.

It is fitted on what it will be applied to, the predictions of one fold's models: `apply` goes over each fold's test
predictions, and these are averaged last. The mean over folds is flatter than any of them, and a temperature above 1 would
flatten it again: on planted models three times too sure, calibrating before averaging is ahead by 0.011 to 0.047 of log
loss. Below 1 averaging first is, by 0.0004 to 0.007. What flatness is left no OOF row shows: each has one model alone.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from src.competitions.predictions import Predictions
from src.errors import UserError

SIMPLEST_FIRST = ("none", "clip", "temperature", "temperature+clip", "prior", "prior+clip")
FLOORS = np.geomspace(1e-6, 0.05, 48)
TINIEST = float(np.finfo(np.float32).tiny)


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """The reliability diagram's points: confidence (mean), accuracy, rows of each of `bins` equal widths that has rows.

    labels: (n,) int; probabilities: (n, classes) float64. The confidence is that of the class which stands first.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    table = pd.DataFrame({"confidence": confidence, "accuracy": right.astype(np.float64), "rows": 1})
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    return table.groupby(place).agg({"confidence": "mean", "accuracy": "mean", "rows": "sum"}).reset_index(drop=True)


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo 2017): the mean over rows of |confidence - accuracy| of the row's bin."""
    table = reliability(labels, probabilities, bins)
    return float(np.average((table["confidence"] - table["accuracy"]).abs(), weights=table["rows"]))


@dataclass(frozen=True)
class Calibration:
    """softmax(logits / temperature + prior), no probability below floor. The defaults leave everything as it is."""

    kind: str = "none"
    temperature: float = 1.0
    prior: tuple[float, ...] = ()  # one number a class, of mean 0; none: all 0
    floor: float = 0.0

    def apply(self, predictions: Predictions) -> Predictions:
        """The calibrated predictions of one fold's models, as log-probabilities; of several folds take the mean after it."""
        if self.kind == "none":
            return predictions
        calibrated = self.log_probabilities(predictions.logits)
        return Predictions(predictions.ids, calibrated.astype(np.float32), predictions.classes)

    def log_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """(n, classes) float64 of logits (n, classes)."""
        scaled = logits.astype(np.float64) / self.temperature + (np.array(self.prior) if self.prior else 0.0)
        return np.log(_floored(softmax(scaled, axis=1), max(self.floor, TINIEST)))

    def as_json(self) -> dict[str, Any]:
        """Plain values; Calibration.from_json gives the same calibration back."""
        return asdict(self)

    @staticmethod
    def from_json(fields: dict[str, Any]) -> "Calibration":
        return Calibration(**fields | {"prior": tuple(fields["prior"])})

    def __str__(self) -> str:
        said = [f"temperature {self.temperature:.3f}"] if self.temperature != 1 else []
        said += [f"prior {min(self.prior):+.3f} to {max(self.prior):+.3f}"] if self.prior else []
        said += [f"no probability below {self.floor:.2g}"] if self.floor else []
        return ", ".join(said) or "none"


def no_use(metric: str) -> str:
    """Why nothing is calibrated for a metric other than log loss."""
    if metric == "roc_auc":
        return "as roc_auc looks at the order of the rows alone"
    return f"as {metric} looks at the class that stands first alone, which temperature and clip leave as it is"


def check_kind(kind: str, metric: str) -> None:
    """Raises UserError for a calibration that the metric has no use for, with the reason."""
    if kind not in ("auto", "none") and metric != "log_loss":
        raise UserError(f"--calibrate {kind}: it is fitted to log loss and would gain nothing, {no_use(metric)}")


def fit(kind: str, labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """The calibration of this kind (SIMPLEST_FIRST) with the least log loss on labels (n,) int, logits (n, classes)."""
    temperature, prior = 1.0, ()
    if kind.startswith(("temperature", "prior")):
        temperature, prior = _scale(labels, logits.astype(np.float64), with_prior=kind.startswith("prior"))
    scaled = Calibration(kind, temperature, prior)
    return Calibration(kind, temperature, prior, _floor(labels, scaled.log_probabilities(logits))) if "clip" in kind else scaled


def nested(kind: str, labels: np.ndarray, logits: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """(n, classes) log-probabilities: the rows of each fold calibrated by what the other folds' rows say. folds: (n,)."""
    calibrated = np.empty(logits.shape, dtype=np.float64)
    for fold in np.unique(folds):
        held = folds == fold
        calibrated[held] = held_out(kind, labels, logits, held)
    return calibrated


def held_out(kind: str, labels: np.ndarray, logits: np.ndarray, held: np.ndarray) -> np.ndarray:
    """(held rows, classes) log-probabilities of the rows `held`, (n,) bool, calibrated by what the others say."""
    return fit(kind, labels[~held], logits[~held]).log_probabilities(logits[held])


def _scale(labels: np.ndarray, logits: np.ndarray, with_prior: bool) -> tuple[float, tuple[float, ...]]:
    """Temperature and prior of the least log loss; log temperature and each class's shift are held to 0 ± 1, as weakly as
    one row more would: rows that are all right would ask for temperature 0, an absent class for a shift of minus infinity.
    """
    rows, classes = logits.shape
    at = np.arange(rows)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, shift = np.exp(parameters[0]), parameters[1:] if with_prior else np.zeros(classes)
        log_p = log_softmax(slope * logits + shift, axis=1)
        residual = np.exp(log_p)
        residual[at, labels] -= 1
        gradient = [slope * (residual * logits).sum() / rows, *(residual.mean(axis=0) if with_prior else [])]
        return -log_p[at, labels].mean() + parameters @ parameters / (2 * rows), np.array(gradient) + parameters / rows

    start = np.zeros(1 + classes * with_prior)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-5, 5)] + [(None, None)] * (len(start) - 1)).x
    return float(np.exp(-found[0])), tuple(float(value) for value in found[1:] - found[1:].mean()) if with_prior else ()


def _floor(labels: np.ndarray, log_probabilities: np.ndarray) -> float:
    """The floor of the least log loss, or 0 where each costs more than it saves."""
    probabilities = np.exp(log_probabilities)
    floors = [0.0, *FLOORS[FLOORS * probabilities.shape[1] < 0.5]]
    at = np.arange(len(labels))
    losses = [-np.log(_floored(probabilities, max(floor, TINIEST))[at, labels]).mean() for floor in floors]
    return float(floors[int(np.argmin(losses))])


def _floored(probabilities: np.ndarray, floor: float) -> np.ndarray:
    raised = np.maximum(probabilities, floor)
    return raised / raised.sum(axis=1, keepdims=True)
