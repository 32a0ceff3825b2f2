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
        """Raises UserError where the file is absent, damaged, or of anything else than rows' finite logits."""
        try:
            with np.load(path, allow_pickle=False) as file:
                ids, logits, classes = file["ids"], file["logits"], file["classes"]
                made_by = {name: str(file[name]) for name in MADE_BY if name in file}
            _check(ids, logits, classes)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except Exception as error:  # zipfile, numpy and KeyError each have their own for a damaged file
            said = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{path}: not a file of predictions ({said}); remove it and make it again") from None
        return Predictions(ids, logits.astype(np.float32, copy=False), tuple(classes.tolist()), **made_by)


def _check(ids: np.ndarray, logits: np.ndarray, classes: np.ndarray) -> None:
    """Raises ValueError where a file's arrays are not those of predictions."""
    for name, array in (("ids", ids), ("classes", classes)):
        if array.ndim != 1 or array.dtype.kind != "U":
            raise ValueError(f"{name} must be one line of text, not {array.dtype} of shape {array.shape}")
        values, counts = np.unique(array, return_counts=True)
        if len(values) < len(array):
            raise ValueError(f"{str(values[counts > 1][0])!r} stands twice among the {name}")
    if logits.dtype.kind != "f" or logits.shape != (len(ids), len(classes)):
        wanted = f"floats of shape {(len(ids), len(classes))}"
        raise ValueError(f"logits must be {wanted}, not {logits.dtype} of shape {logits.shape}")
    if not len(ids) or len(classes) < 2:
        raise ValueError("it has no rows" if len(classes) > 1 else f"it has {len(classes)} classes, and two are needed")
    if (odd := ~np.isfinite(logits.astype(np.float32)).all(axis=1)).any():
        raise ValueError(f"id {str(ids[odd][0])!r} holds NaN or infinity")


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
