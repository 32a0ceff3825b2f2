"""Does a well-formed submission say what was meant? Told from its values, beside a run's predictions or the training labels.

P(cat) in the place of P(dog), rows in another order than their ids, two classes swapped: Kaggle takes each of these.
"""

import numpy as np
import pandas as pd

from src.competitions.predictions import Predictions
from src.competitions.tables import class_indices
from src.config import CompetitionConfig
from src.inference import submission

FEW = 20  # fewer rows may by chance all hold the same label
MANY = 100  # from here on values of the same rows that don't correlate are no accident
FAR = 0.1  # share of the rows that would have to change their class
DRAWS = 200


def numbers(table: pd.DataFrame, competition: CompetitionConfig, classes: tuple[str, ...]) -> np.ndarray:
    """A submission's values as (n, columns) float64: a label as 1 in its class's column and 0 in the others."""
    if competition.submission_values != "label":
        return table.iloc[:, 1:].to_numpy(dtype=np.float64)
    written = submission.labels_written(competition, classes)
    return np.eye(len(written))[class_indices(table.iloc[:, 1], written, "submission")]


def constant(table: pd.DataFrame) -> str | None:
    """The fault of a submission whose rows all hold the same."""
    values = table.iloc[:, 1:]
    if len(table) < FEW or not (values == values.iloc[0]).all(axis=None):
        return None
    same = f"column {values.columns[0]!r}: all hold {values.iloc[0, 0]!r}"
    return f"rows 2 to {len(table) + 1}, {same}, which says nothing of the images"


def certain(table: pd.DataFrame, competition: CompetitionConfig) -> str | None:
    """A warning where the metric is log loss and a row is sure: Kaggle clips at 1e-15, so a wrong one costs 34.5."""
    if competition.metric != "log_loss" or competition.submission_values == "label":
        return None
    values = table.iloc[:, 1:].to_numpy(dtype=np.float64)
    sure = (values == 1) | ((values == 0) & (values.shape[1] == 1))
    if not sure.any():
        return None
    row, column = (int(at[0]) for at in np.nonzero(sure))
    count = f"{sure.any(axis=1).sum():,} of {len(table):,} rows hold 0 or 1, the first is row {row + 2}"
    return (
        f"{count}, column {table.columns[column + 1]!r}: a single wrong one costs 34.5 / {len(table):,} of log loss; clip them"
    )


def contradictions(table: pd.DataFrame, competition: CompetitionConfig, predicted: Predictions, source: str) -> list[str]:
    """The faults in which a submission contradicts `predicted`, other predictions of its rows, which are named `source`.

    Each column is correlated with each of theirs: below zero it is turned round, near zero in another order, and closest
    to another column it is swapped. Of unrelated values one in 740 correlates by more than 3 / sqrt(n) in size.
    """
    table = table[table.iloc[:, 0].isin(predicted.ids)]
    if len(table) < 2:
        return []
    theirs = submission.make(competition, predicted.of(table.iloc[:, 0].to_numpy(dtype=str)))
    values, expected = (numbers(each, competition, predicted.classes) for each in (table, theirs))
    names = _names(competition, predicted.classes)
    alike, chance = _correlations(values, expected), 3 / np.sqrt(len(table))
    own = np.diag(alike)
    if np.isnan(own).all():
        return []
    agreement = float(np.nanmean(own))
    if agreement < -chance or (agreement < chance and len(table) >= MANY):
        what = "are the classes exchanged?" if agreement < -chance else "do the values stand in another order than the ids?"
        worst = np.abs(values - expected).max(axis=1)
        return [
            f"{_example(table, theirs, worst, source)}; over {len(table):,} rows the correlation is {agreement:.2f}: {what}"
        ]
    faults = []
    for k, row in enumerate(np.nan_to_num(alike, nan=-1.0)):
        other = int(row.argmax())
        if row[other] > max(0.5, row[k] + chance):
            worst = np.abs(values - expected)[:, k]
            faults.append(
                f"{_example(table, theirs, worst, source)}; over {len(table):,} rows {names[k]!r} correlates with "
                f"their {names[other]!r} ({row[other]:.2f}), not their {names[k]!r} ({row[k]:.2f}): are the classes swapped?"
            )
    return faults


def far_from(usual: np.ndarray, table: pd.DataFrame, competition: CompetitionConfig, classes: tuple[str, ...]) -> str | None:
    """A warning where the classes' shares in a submission are far from those in `usual`, (m, columns) as of `numbers`.

    Far: a tenth of the rows would have to change their class, and none of 200 draws of as many rows of `usual` is as far
    from all of them.
    """
    rng, values = np.random.default_rng(0), numbers(table, competition, classes)
    shares, there = values.mean(axis=0), usual.mean(axis=0)
    drawn = [usual[rng.integers(len(usual), size=len(values))].mean(axis=0) for _ in range(DRAWS)]
    if _distance(shares, there) <= max(FAR, *(_distance(each, there) for each in drawn)):
        return None
    most = int(np.abs(shares - there).argmax())
    return f"{_names(competition, classes)[most]!r} has a share of {shares[most]:.1%}, but of {there[most]:.1%} in"


def labelled(labels: pd.Series, competition: CompetitionConfig, classes: tuple[str, ...]) -> np.ndarray:
    """(n, columns) float64: what a submission that knows these labels would hold, as of `numbers`."""
    certain = np.eye(len(classes))[class_indices(labels, classes)]
    one = competition.submission_values == "probability"
    return certain[:, [classes.index(competition.positive or "")]] if one else certain


def _names(competition: CompetitionConfig, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of the columns of `numbers`."""
    return (competition.positive or "",) if competition.submission_values == "probability" else classes


def _correlations(values: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(columns, columns) float64, of each column of one with each of the other; NaN where one of the two is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.corrcoef(values, expected, rowvar=False)[: values.shape[1], values.shape[1] :]


def _distance(shares: np.ndarray, others: np.ndarray) -> float:
    """Total variation: by how much shares must move to become the others. One column stands for itself and the rest."""
    return float(np.abs(shares - others).sum() / (2 if len(shares) > 1 else 1))


def _example(table: pd.DataFrame, theirs: pd.DataFrame, difference: np.ndarray, source: str) -> str:
    """Row and column of the largest difference, (n,) float64, and what stands in both."""
    row = int(difference.argmax())
    mine, other = table.iloc[row], theirs.iloc[row]
    column = next(name for name in table.columns[1:] if mine[name] != other[name])
    return f"row {table.index[row] + 2}, column {column!r}: {mine[column]} where {source} predicts {other[column]}"
