"""Predictions always carry ids: nothing is ever matched by position or by the order of a folder."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from src.errors import UserError
from src.files import replacing

MADE_BY = ("views", "model")  # absent from oof.npz and from what earlier versions wrote


@dataclass(frozen=True)
class Predictions:
    """Logits of some rows. ids: (n,) str, unique; logits: (n, classes) float32; classes: names in the logits' order.

    views: under which a model saw the rows, "identity, hflip; mean of probabilities"; model: the sha256 of its file. They
    are kept with the logits, since a record beside them is of another file after an interruption. "": not known.
    """

    ids: np.ndarray
    logits: np.ndarray
    classes: tuple[str, ...]
    views: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        assert self.logits.shape == (len(self.ids), len(self.classes)), (self.logits.shape, len(self.ids), len(self.classes))
        assert len(np.unique(self.ids)) == len(self.ids), "an id stands twice"

    def probabilities(self) -> np.ndarray:
        """(n, classes) float64; rows sum to 1."""
        return softmax(self.logits.astype(np.float64), axis=1)

    def of(self, ids: np.ndarray) -> "Predictions":
        """The same for these ids, in their order. Raises UserError naming the first id that is absent."""
        order = {id: i for i, id in enumerate(self.ids)}
        absent = [id for id in ids if id not in order]
        if absent:
            raise UserError(f"{len(absent)} of {len(ids)} rows have no prediction, the first is {str(absent[0])!r}")
        rows = np.array([order[id] for id in ids], dtype=np.int64)
        return replace(self, ids=self.ids[rows], logits=self.logits[rows])

    def save(self, path: Path) -> None:
        with replacing(path) as partial, open(partial, "wb") as file:
            np.savez(
                file,
                ids=self.ids.astype(str),
                logits=self.logits.astype(np.float32),
                classes=np.array(self.classes, dtype=str),
                **{name: np.array(text) for name in MADE_BY if (text := getattr(self, name))},
            )

    @staticmethod
    def load(path: Path) -> "Predictions":
        """Raises UserError where the file is absent, truncated, of another kind, or holds NaN."""
        try:
            with np.load(path, allow_pickle=False) as file:
                made_by = {name: str(file[name]) for name in MADE_BY if name in file}
                predictions = Predictions(file["ids"], file["logits"], tuple(str(name) for name in file["classes"]), **made_by)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except Exception as error:  # zipfile, numpy and KeyError each have their own for a damaged file
            raise UserError(f"{path}: not a file of predictions ({error}); remove it and make it again") from None
        if not np.isfinite(predictions.logits).all():
            row = int(np.flatnonzero(~np.isfinite(predictions.logits).all(axis=1))[0])
            raise UserError(f"{path}: row {str(predictions.ids[row])!r} holds NaN or infinity")
        return predictions


def concatenate(parts: list[Predictions]) -> Predictions:
    """Folds' predictions of disjoint rows as one."""
    classes = {part.classes for part in parts}
    assert len(classes) == 1, classes
    return Predictions(np.concatenate([p.ids for p in parts]), np.concatenate([p.logits for p in parts]), classes.pop())


def mean(parts: list[Predictions]) -> Predictions:
    """Several predictions of the same rows: the logarithm of their mean probability, as logits."""
    first = parts[0]
    probability = np.mean([part.of(first.ids).probabilities() for part in parts], axis=0)
    logits = np.log(np.maximum(probability, np.finfo(np.float32).tiny))
    return Predictions(first.ids, logits.astype(np.float32), first.classes)
