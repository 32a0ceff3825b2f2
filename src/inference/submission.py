"""The submission: made from predictions, checked as Kaggle would check it, and written only if valid."""

import csv
import io
import math
import os
from pathlib import Path

import numpy as np
import pandas as pd

from src.competitions import metrics
from src.competitions.predictions import Predictions
from src.competitions.tables import class_indices, natural, read_csv, submission_columns
from src.config import CompetitionConfig
from src.errors import UserError

MOST_FAULTS = 20  # told one by one; the rest are counted


class SubmissionError(UserError):
    """A submission that Kaggle would refuse or score as nonsense. `faults`: one line each, with row and column."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.faults = faults
        more = f" and {len(faults) - 3} more faults" if len(faults) > 3 else ""
        super().__init__(f"{path} is not a valid submission: {'; '.join(faults[:3])}{more}")


def make(competition: CompetitionConfig, predictions: Predictions) -> pd.DataFrame:
    """The submission's table, all str: class names keep their leading zeros, probabilities all digits that count."""
    probabilities = predictions.probabilities()
    columns = submission_columns(competition, predictions.classes)
    table = {columns[0]: predictions.ids}
    if competition.submission_values == "label":
        written = np.array(labels_written(competition, predictions.classes), dtype=object)
        table[columns[1]] = written[probabilities.argmax(axis=1)]
    elif competition.submission_values == "probability":
        positive = predictions.classes.index(competition.positive or "")
        table[columns[1]] = [f"{value:.9g}" for value in probabilities[:, positive]]
    else:
        for name, values in zip(columns[1:], probabilities.T, strict=True):
            table[name] = [f"{value:.9g}" for value in values]
    return pd.DataFrame(table, dtype=str)


def write(table: pd.DataFrame, path: Path, competition: CompetitionConfig, classes: tuple[str, ...], ids: list[str]) -> None:
    """Write `table` to `path` if it is valid for these test ids; what stood there before is kept until then.

    Raises SubmissionError with the faults, UserError where the path can't be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")
        if faults := check(partial, competition, classes, ids):
            raise SubmissionError(path, faults)
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"{path}: the submission can't be written: {error.strerror or error}") from None
    finally:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)


def check(path: Path, competition: CompetitionConfig, classes: tuple[str, ...], ids: list[str]) -> list[str]:
    """The faults of a submission file, one line each with row and column; none: Kaggle would take it.

    ids: the test rows in the sample's order. Rows are counted as in an editor, the header being row 1.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8")
    except OSError as error:
        return [f"can't be read: {error.strerror or error}"]
    except UnicodeDecodeError as error:
        return [f"not UTF-8: byte {error.start} is {raw[error.start]:#04x}"]
    if text.startswith("\ufeff"):
        return ["starts with a byte order mark; save it as plain UTF-8"]
    if "\r" in text:
        return ["has Windows line ends (CRLF); save it with LF"]
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:  # a quote that is never closed swallows all rows after it
        return [f"not a readable CSV: {error}; is a quote left open?"]
    columns = list(submission_columns(competition, classes))
    if not rows or rows[0] != columns:
        return [f"row 1: the header is {','.join(rows[0]) if rows else 'absent'!r}, expected {','.join(columns)!r}"]
    faults = _check_ids([row[0] if row else "" for row in rows[1:]], ids)
    allowed = set(labels_written(competition, classes))
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(columns):
            faults.append(f"row {number}: {len(row)} values, expected {len(columns)}")
        elif competition.submission_values == "label":
            faults += [] if row[1] in allowed else [f"row {number}, column {columns[1]!r}: {_foreign(row[1], allowed)}"]
        else:
            faults += _check_probabilities(row[1:], columns[1:], number)
    return faults


def labels_written(competition: CompetitionConfig, classes: tuple[str, ...]) -> tuple[str, ...]:
    """What stands in the submission for each class."""
    return competition.submission_labels or classes


def score(competition: CompetitionConfig, predictions: Predictions, solution: Path) -> tuple[float, int]:
    """The competition's metric on the test rows whose labels `solution` holds, and their number."""
    truth = read_csv(solution, [competition.id_column, competition.label_column])
    labels = class_indices(truth[competition.label_column], predictions.classes)
    known = predictions.of(truth[competition.id_column].to_numpy(dtype=str))
    return metrics.score(competition.metric, labels, known.probabilities()), len(labels)


def _check_ids(given: list[str], ids: list[str]) -> list[str]:
    """Doubled, foreign, missing ids; and where none of these, the first row out of order."""
    faults, seen, expected = [], {}, set(ids)
    for number, id in enumerate(given, 2):
        if id in seen:
            faults.append(f"row {number}: id {id!r} stands already in row {seen[id]}")
        elif id not in expected:
            faults.append(f"row {number}: id {id!r} is not a test row")
        seen.setdefault(id, number)
    missing = sorted(expected - seen.keys(), key=natural)
    if missing:
        faults.append(f"{len(missing):,} of {len(ids):,} test rows are missing, the first is {missing[0]!r}")
    if not faults:
        wrong = next((i for i, (have, want) in enumerate(zip(given, ids, strict=True)) if have != want), None)
        if wrong is not None:
            faults.append(
                f"row {wrong + 2}: id {given[wrong]!r} stands where the sample has {ids[wrong]!r}; keep the sample's order"
            )
    return faults


def _foreign(value: str, allowed: set[str]) -> str:
    padded = value.zfill(max(map(len, allowed)))
    hint = f"; did it lose its zero? {padded!r} is one" if padded in allowed else ""
    return f"{value!r} is not a class{hint}"


def _check_probabilities(values: list[str], columns: list[str], number: int) -> list[str]:
    faults, total = [], 0.0
    for name, value in zip(columns, values, strict=True):
        try:
            probability = float(value.replace("_", "?"))  # float() would read 0_1 as 1
        except ValueError:
            faults.append(f"row {number}, column {name!r}: {value!r} is not a number")
            continue
        if not math.isfinite(probability) or not 0 <= probability <= 1:
            faults.append(f"row {number}, column {name!r}: {value} is not a probability between 0 and 1")
        total += probability
    if len(values) > 1 and not faults and abs(total - 1) > 1e-4:
        faults.append(f"row {number}: the probabilities add up to {total:.6g}, not 1")
    return faults
