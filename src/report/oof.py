"""A run's out-of-fold rows with label, fold, prediction and loss: what every part of the report reads."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.competitions import metrics
from src.competitions.predictions import concatenate
from src.config import Config
from src.errors import UserError
from src.inference.check import out_of_fold_parts
from src.inference.members import Member


@dataclass(frozen=True)
class Oof:
    """n rows, each predicted by the fold that did not train on it.

    ids, folds: (n,) str; labels: (n,) int64, indices of classes; probabilities: (n, classes) float64, rows sum to 1.
    """

    run: Member
    config: Config
    classes: tuple[str, ...]
    ids: np.ndarray
    folds: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    with_tta: bool

    @property
    def predicted(self) -> np.ndarray:
        """(n,) int64: the most probable class."""
        return self.probabilities.argmax(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """(n,) bool."""
        return self.predicted == self.labels

    @property
    def losses(self) -> np.ndarray:
        """(n,) float64: each row's log loss."""
        return metrics.row_scores("log_loss", self.labels, self.probabilities)

    def take(self, rows: np.ndarray) -> "Oof":
        """The same for some rows; rows: their numbers, or (n,) bool."""
        return replace(
            self, ids=self.ids[rows], folds=self.folds[rows], labels=self.labels[rows], probabilities=self.probabilities[rows]
        )


def read(path: Path) -> Oof:
    """The out-of-fold rows of a run or an ensemble, under predict.py's TTA where every fold has them, else plain.

    Raises UserError for a folder that is no run, or has no out-of-fold rows.
    """
    run = Member(path)
    config = run.config
    parts, with_tta = out_of_fold_parts(run)
    if not parts:
        raise UserError(
            f"{path} has no out-of-fold rows to look at; `python train.py --config {path}/config.yaml --name {run.name} "
            "--fold 0` trains a fold that has some"
        )
    every = concatenate(list(parts.values()))
    folds = np.concatenate([np.full(len(part.ids), fold) for fold, part in parts.items()])
    labels = run.labels(every.ids, every.classes)
    return Oof(run, config, every.classes, every.ids, folds, labels, every.probabilities(), with_tta)
