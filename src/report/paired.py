"""Two runs on the same rows: is one better, or is it noise?

Both predict the same rows, so most of what makes a row hard is common to both and leaves the difference: a paired
comparison sees a gain several times smaller than the two scores' own intervals would suggest.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from src.competitions import metrics
from src.competitions.tables import shorten
from src.errors import UserError
from src.inference.paired import gain
from src.report.oof import Oof


@dataclass(frozen=True)
class Paired:
    """`first` and `second` on their common rows, in one order. Differences are first less second."""

    first: Oof
    second: Oof
    metric: float  # difference of the competition's metric
    interval: tuple[float, float]  # of it, 95 %: bootstrap of pairs of rows
    loss: float  # mean difference of the rows' log losses
    standard_error: float  # of it
    only_first: int  # rows that only the first run gets right
    only_second: int
    p_value: float  # McNemar's exact test: that so uneven a split of these rows is chance

    @property
    def verdict(self) -> str:
        """In words, by the interval of the metric."""
        name = self.first.config.competition.metric
        low, high = self.interval
        if low <= 0 <= high:
            return f"No difference in {name.replace('_', ' ')} beyond noise"
        better = self.first if (self.metric > 0) == metrics.HIGHER_IS_BETTER[name] else self.second
        return f"{better.run.name} is better, by {abs(self.metric):.4f} in {name.replace('_', ' ')}"

    def disagreements(self) -> pd.DataFrame:
        """Rows, those first that the first run predicts better: row (its number), gain (by how much smaller its loss is)."""
        gain = self.second.losses - self.first.losses
        order = np.argsort(-gain, kind="stable")
        return pd.DataFrame({"row": order, "gain": gain[order]})


def pair(first: Oof, second: Oof) -> Paired:
    """The comparison on the rows that both runs predict.

    Raises UserError for runs of different competitions, classes or labels, or without a common row.
    """
    first, second = _common(first, second)
    name = first.config.competition.metric
    ahead, error = gain("log_loss", first.labels, first.probabilities, second.probabilities)
    only_first, only_second = int((first.correct & ~second.correct).sum()), int((second.correct & ~first.correct).sum())
    uneven = only_first + only_second
    return Paired(
        first, second,
        metric=_score(name, first) - _score(name, second),
        interval=_interval(name, first, second),
        loss=0.0 - ahead,
        standard_error=error,
        only_first=only_first,
        only_second=only_second,
        p_value=binomtest(only_first, uneven).pvalue if uneven else 1.0,
    )  # fmt: skip


def _score(metric: str, oof: Oof) -> float:
    return metrics.score(metric, oof.labels, oof.probabilities)


def _interval(metric: str, first: Oof, second: Oof) -> tuple[float, float]:
    """The difference's 95 % interval: bootstrap over rows, the same for both, seeded."""
    ours, theirs = (metrics.row_scores(metric, oof.labels, oof.probabilities) for oof in (first, second))
    parts = None if ours is None or theirs is None else ours - theirs
    return metrics.interval(
        len(first.ids), parts, lambda rows: _score(metric, first.take(rows)) - _score(metric, second.take(rows))
    )


def _common(first: Oof, second: Oof) -> tuple[Oof, Oof]:
    """Both runs' rows that the other one has, too, in the first one's order."""
    one, other = first.run.path, second.run.path
    if first.config.competition.name != second.config.competition.name:
        names = first.config.competition.name, second.config.competition.name
        raise UserError(f"{one} is a run of {names[0]}, {other} of {names[1]}: they have no rows in common")
    if first.classes != second.classes:
        raise UserError(f"{one} has the classes {shorten(first.classes)}, {other} {shorten(second.classes)}: not comparable")
    ids, ours, theirs = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    if not len(ids):
        raise UserError(f"{one} and {other} have no out-of-fold row in common: train the same folds of both")
    first, second = first.take(ours), second.take(theirs)
    differing = np.flatnonzero(first.labels != second.labels)
    if len(differing):
        raise UserError(
            f"{one} and {other} have different labels for {len(differing):,} rows, the first is {str(ids[differing[0]])!r}: "
            "they were trained on different data"
        )
    return first, second
