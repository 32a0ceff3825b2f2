"""predict.py --check: is this file a submission that Kaggle would take, and one that says what was meant?"""

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from src.competitions.predictions import Predictions, concatenate, mean
from src.competitions.tables import read_csv
from src.config import CompetitionConfig, Config
from src.data import prepare
from src.data.prepare import Prepared
from src.errors import UserError
from src.inference import ledger, plausibility, submission
from src.training.run import Run


def check_file(path: Path, config: Config, run: Run | None = None, said: Callable[[str], None] = print) -> int:
    """Say that the file is valid, with warnings, and return how many rows it has; or end with status 1 and a line a fault.

    run: also compare its values with what the run's models predict of the test rows, and say the expected score.
    Raises UserError where the file, the data or its test rows are not there.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    competition = config.competition
    prepared = prepare.prepare(config, lambda _: None)
    if prepared.test is None:
        raise UserError(f"{prepared.root}: no test rows to check against: {prepared.notes[-1]}")
    ids = prepared.test["id"].tolist()
    faults = submission.check(path, competition, prepared.classes, ids)
    warnings = [ledger.altered(path)]
    if not faults:
        table = read_csv(path, []).reset_index(drop=True)
        faults = _implausible(table, competition, run)
        warnings += [] if faults else [_unusual(table, competition, prepared, run), plausibility.certain(table, competition)]
    if competition.expected_test not in (None, len(ids)):
        warnings.append(
            f"checked against the {len(ids):,} test rows in {prepared.root}; Kaggle has {competition.expected_test:,}"
        )
    for fault in faults[: submission.MOST_FAULTS]:
        said(f"{path}: {fault}")
    if len(faults) > submission.MOST_FAULTS:
        said(f"{path}: and {len(faults) - submission.MOST_FAULTS:,} more faults")
    for warning in filter(None, warnings):
        said(f"{path}: warning: {warning}")
    if faults:
        sys.exit(1)
    said(f"{path}: valid for {competition.name}: {len(ids):,} rows in the order of {submission.order_of(competition)}")
    if run is not None and (line := expectation(run, competition)):
        said(line)
    return len(ids)


def expectation(run: Run, competition: CompetitionConfig) -> str | None:
    """The score to expect with its 95 % interval, in one line; None where the run has no out-of-fold rows."""
    oof = out_of_fold(run)
    if oof is None:
        return None
    labels = run.labels(oof.ids, oof.classes)
    score, low, high = submission.expected(competition.metric, labels, oof.probabilities())
    interval = f"95 %: {low:.4f} to {high:.4f}"
    return f"{run.path}: expected {competition.metric} {score:.4f} ({interval}; from {len(oof.ids):,} out-of-fold rows)"


def out_of_fold(run: Run) -> Predictions | None:
    """The run's out-of-fold rows, under TTA where every fold has them so, under the same views; None where there are none."""
    parts, _ = out_of_fold_parts(run)
    return concatenate(list(parts.values())) if parts else None


def out_of_fold_parts(run: Run) -> tuple[dict[str, Predictions], bool]:
    """The same fold by fold, and whether it is under TTA: an ensemble of predictions under TTA has these alone."""
    plain, tta = run.oof(), run.oof("oof_tta.npz")
    with_tta = bool(tta) and tta.keys() >= plain.keys() and len({part.views for part in tta.values()}) == 1
    return (tta if with_tta else plain), with_tta


def _implausible(table: pd.DataFrame, competition: CompetitionConfig, run: Run | None) -> list[str]:
    if fault := plausibility.constant(table):
        return [fault]
    tested = list(run.oof("test.npz").values()) if run is not None else []
    return plausibility.contradictions(table, competition, mean(tested), str(run.path)) if run is not None and tested else []


def _unusual(table: pd.DataFrame, competition: CompetitionConfig, prepared: Prepared, run: Run | None) -> str | None:
    """The warning of shares that are far from those of the run's out-of-fold predictions; without a run, of the labels."""
    oof = out_of_fold(run) if run is not None else None
    if oof is None:
        usual, source = plausibility.labelled(prepared.train["label"], competition, prepared.classes), "training rows"
    else:
        usual = plausibility.numbers(submission.make(competition, oof), competition, oof.classes)
        source = f"out-of-fold predictions of {run.path}"
    told = plausibility.far_from(usual, table, competition, prepared.classes)
    return told and f"{told} the {len(usual):,} {source}"
