"""Test rows without a picture that can be read: found before hours of prediction, and refused, left out, or given the prior.

Kaggle wants a value for every row, so `predict.unreadable: prior` hands in what is known of such a row: the classes' shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.competitions.predictions import Predictions
from src.config import CompetitionConfig, Config
from src.cores import cores
from src.data.image import Form, ImageError, read
from src.data.spread import parts, spread
from src.errors import UserError

PRIOR = "prior"


@dataclass(frozen=True)
class RowsToPredict:
    """The test rows in the submission's order, and which of them a model can look at."""

    ids: np.ndarray  # (n,) str
    seen: pd.DataFrame  # id, path of those with a picture
    prior: np.ndarray  # ids of those that get the classes' shares
    left_out: np.ndarray  # ids of those that get nothing

    def complete(self, predicted: Predictions, shares: np.ndarray) -> Predictions:
        """All rows in their order: those predicted, and the others with the logarithm of `shares` (classes,) as logits."""
        if not len(self.prior):
            return predicted
        log = np.log(np.maximum(shares, np.finfo(np.float32).tiny)).astype(np.float32)
        logits = np.concatenate([predicted.logits, np.tile(log, (len(self.prior), 1))])
        every = Predictions(np.concatenate([predicted.ids, self.prior]), logits, predicted.classes)
        return every.of(self.ids[~np.isin(self.ids, self.left_out)])

    def __str__(self) -> str:
        return told(len(self.prior))


def look(root: Path, test: pd.DataFrame, form: Form, config: Config, remedy: str, partial: bool = False) -> RowsToPredict:
    """Decode every test picture once, in the form that the models will see: a small part of what predicting costs.

    test: id, path, found. partial: leave out the rows without a picture; otherwise predict.unreadable decides. Raises
    UserError that counts them, with the first of each kind, its row and `remedy`; and where no row has a picture.
    """
    faults = _faults(root, test["path"][test["found"]].tolist(), form, config)
    why = np.full(len(test), "", dtype=object)
    why[test["found"].to_numpy()] = faults
    missing, unreadable = ~test["found"].to_numpy(), why != ""
    ids, bad = test["id"].to_numpy(dtype=str), missing | unreadable
    if bad.all():
        lack = "has an image" if missing.all() else "has an image that can be read"
        raise UserError(f"{root}: none of the {len(test):,} test rows {lack}")
    fills = config.predict.unreadable == PRIOR and not partial
    if bad.any() and not (partial or fills):
        of, lacks = config.competition, ((missing, "no image"), (unreadable, "an image that can't be read"))
        told = [
            f"{rows.sum():,} of {len(test):,} test rows have {lack}, the first is {_first(root, test, rows, why, of)}"
            for rows, lack in lacks
            if rows.any()
        ]
        remedy = remedy.format(int((~bad).sum()))
        raise UserError(f"{'; '.join(told)}: Kaggle would refuse a submission without them; {remedy}")
    return RowsToPredict(ids, test[~bad][["id", "path"]].reset_index(drop=True), ids[bad & fills], ids[bad & (not fills)])


def told(count: int) -> str:
    """What a closing line and the ledger say of rows that got the classes' shares; "" where there are none."""
    return f"the classes' shares for {count:,} without a picture that can be read" if count else ""


def shares(labels: pd.Series, classes: Sequence[str]) -> np.ndarray:
    """(classes,) float64: each class's share of the training rows."""
    return labels.value_counts(normalize=True).reindex(list(classes), fill_value=0.0).to_numpy(dtype=np.float64)


def _faults(root: Path, paths: list[str], form: Form, config: Config) -> list[str]:
    """What is wrong with each picture, "" where nothing is."""
    chunks = parts(len(paths))
    workers = len(cores()) if config.data.workers is None else config.data.workers
    faults = [""] * len(paths)
    for number, found in spread(_faults_of, [(root, paths[chunk], form) for chunk in chunks], workers, "test images"):
        faults[chunks[number]] = found
    return faults


def _faults_of(root: Path, paths: list[str], form: Form) -> list[str]:
    faults = []
    for path in paths:
        try:
            read(root / path, form)
            faults.append("")
        except ImageError as error:
            faults.append(str(error).removeprefix(f"{root / path}: "))
    return faults


def _first(root: Path, test: pd.DataFrame, rows: np.ndarray, why: np.ndarray, of: CompetitionConfig) -> str:
    """The first of `rows` (n,) bool, counted as an editor does, the header being row 1."""
    number = int(np.flatnonzero(rows)[0])
    table = next((name for name in (of.sample_csv, of.test_csv) if name and (root / name).is_file()), None)
    place = f"row {number + 2} of {table}, " if table else ""
    fault = f": {why[number]}" if why[number] else ""
    return f"{root / test['path'].iloc[number]} ({place}id {test['id'].iloc[number]!r}){fault}"
