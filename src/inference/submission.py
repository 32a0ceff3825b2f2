"""The submission: made from predictions, checked as Kaggle would check it, and written only if valid."""

import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd

from src.competitions import metrics
from src.competitions.csv_file import SIGNATURES
from src.competitions.names import natural, quoted
from src.competitions.predictions import Predictions
from src.competitions.sample import find, submission_columns
from src.competitions.tables import class_indices, renamed, truth
from src.config import CompetitionConfig
from src.errors import UserError
from src.files import replacing

MOST_FAULTS = 20  # told one by one; the rest are counted
SMALLEST = np.finfo(np.float64).tiny  # 2.2e-308: a number below it loses digits, and one below 5e-324 is read as 0
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
BYTE_ORDER_MARK = {b"\xef\xbb\xbf": "starts with a byte order mark; save it as plain UTF-8"}


class SubmissionError(UserError):
    """A submission that Kaggle would refuse or score as nonsense. `faults`: one line each, with row and column."""

    def __init__(self, path: Path, faults: list[str]) -> None:
        self.faults = faults
        more = f" and {len(faults) - 3} more faults" if len(faults) > 3 else ""
        super().__init__(f"{path} is not a valid submission: {'; '.join(faults[:3])}{more}")


def make(competition: CompetitionConfig, predictions: Predictions) -> pd.DataFrame:
    """The submission's table, all str: class names keep their leading zeros, probabilities all digits that count."""
    probabilities = predictions.probabilities()
    probabilities[probabilities < SMALLEST] = 0
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            table.to_csv(partial, index=False, lineterminator="\n", encoding="utf-8")
            if faults := check(partial, competition, classes, ids):
                raise SubmissionError(path, faults)
    except OSError as error:
        raise UserError(f"{path}: the submission can't be written: {error.strerror or error}") from None


def check(path: Path, competition: CompetitionConfig, classes: tuple[str, ...], ids: list[str]) -> list[str]:
    """The faults of a submission file, one line each with row and column; none: Kaggle would take it.

    ids: the test rows in the sample's order. Rows are counted as in an editor, the header being row 1. It is stricter
    than Kaggle where a file that Kaggle takes may say something else than was meant: a last row without its line end
    may have been cut off, and a number in quotes or with blanks has been through other hands.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        return [f"can't be read: {error.strerror or error}"]
    if fault := _fault_of_encoding(raw):
        return [fault]
    *lines, rest = raw.decode("utf-8").split("\n")
    faults = [f"row {len(lines) + 1}: the last row has no line end: was the file cut off there?"] if rest else []
    lines += [rest] if rest else []
    columns = list(submission_columns(competition, classes))
    header, wrong = _cells(1, lines[0], columns)
    if header != columns or wrong:
        return [f"row 1: the header is {quoted(lines[0], 300)}, expected {quoted(','.join(columns), 300)}"]
    rows = {}
    for number, line in enumerate(lines[1:], 2):
        rows[number], wrong = _cells(number, line, columns)
        faults += wrong
    faults += _faults_of_ids({number: row[0] for number, row in rows.items() if row}, ids, columns[0], competition)
    return faults + _faults_of_values(
        {n: row[1:] for n, row in rows.items() if len(row) == len(columns)}, columns[1:], competition, classes
    )


def labels_written(competition: CompetitionConfig, classes: tuple[str, ...]) -> tuple[str, ...]:
    """What stands in the submission for each class."""
    return competition.submission_labels or classes


def order_of(competition: CompetitionConfig) -> str:
    """Where the test rows and their order stand: Shopee's in test.csv, that of the Dogs vs. Cats in their sample."""
    return competition.sample_csv or competition.test_csv or "the test images"


def in_todays_terms(predictions: Predictions, classes: tuple[str, ...]) -> Predictions:
    """An older run's predictions with its classes spelt, and in the order, as the data's are now."""
    names = renamed(predictions.classes, classes)
    place = {name: k for k, name in enumerate(names)}
    if place.keys() != set(classes):
        return predictions
    return Predictions(predictions.ids, predictions.logits[:, [place[name] for name in classes]], classes)


def extent(competition: CompetitionConfig, root: Path) -> str:
    """In words, of which rows the submission consists: the sample's, where it is there, which may be fewer than the test's."""
    table = competition.sample_csv if find(competition, root) else competition.test_csv
    return f"every row of {table}, in its order" if table else "a row for every test image"


def score(competition: CompetitionConfig, predictions: Predictions, root: Path) -> tuple[float, int] | None:
    """The competition's metric on the test rows whose labels are known in its folder, and their number; none: unknown."""
    known = truth(competition, root, predictions.classes)
    if known is None:
        return None
    known = known[known["id"].isin(predictions.ids)]  # the sample may have but a part of them
    if known.empty:
        return None
    labels = class_indices(known["label"], predictions.classes, root)
    predicted = predictions.of(known["id"].to_numpy(dtype=str))
    return metrics.score(competition.metric, labels, predicted.probabilities()), len(labels)


def expected(metric: str, labels: np.ndarray, probabilities: np.ndarray) -> tuple[float, float, float]:
    """The score of out-of-fold rows, and the ends of its 95 % interval over rows.

    labels: (n,) int64, indices of classes; probabilities: (n, classes) float64, rows sum to 1. It says what other rows
    of the same kind would have scored; that the mean over folds is better than each of them is not in it.
    """
    parts = metrics.row_scores(metric, labels, probabilities)
    ends = metrics.interval(len(labels), parts, lambda rows: metrics.score(metric, labels[rows], probabilities[rows]))
    return metrics.score(metric, labels, probabilities), *ends


def _fault_of_encoding(raw: bytes) -> str | None:
    for signature, fault in (SIGNATURES | BYTE_ORDER_MARK).items():
        if raw.startswith(signature):
            return fault
    if not raw:
        return "the file is empty"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"row {raw[: error.start].count(10) + 1}: not UTF-8: byte {error.start} is {raw[error.start]:#04x}"
    for character, fault in {"\r": "has Windows line ends (CRLF); save it with LF", "\0": "holds a NUL character"}.items():
        if character in text:
            return f"row {text.partition(character)[0].count(chr(10)) + 1}: {fault}"
    return None


def _cells(number: int, line: str, columns: list[str]) -> tuple[list[str], list[str]]:
    """The values of a row, and what is wrong with them as values of these columns."""
    if not line:
        return [], [f"row {number}: an empty line"]
    try:
        cells = next(csv.reader([line], strict=True))
    except csv.Error as error:
        return [], [f"row {number}: not readable as CSV: {error}; is a quote left open?"]
    if len(cells) != len(columns):
        hint = "; is a comma part of a number?" if len(cells) > len(columns) else ""
        return cells, [f"row {number}: {len(cells)} values, expected {len(columns)}{hint}"]
    plain = [_quoted(cell) for cell in cells] if '"' in line else []
    if plain and ",".join(plain) != line:
        wrong = next(k for k in range(len(plain)) if not f"{line},".startswith(",".join([*plain[: k + 1], ""])))
        return cells, [f"row {number}, column {columns[wrong]!r}: quoted otherwise than a CSV needs; expected {plain[wrong]}"]
    return cells, []


def _quoted(cell: str) -> str:
    """A value as a CSV holds it: in quotes only where it has a comma or a quote."""
    return '"' + cell.replace('"', '""') + '"' if set(cell) & {",", '"'} else cell


def _faults_of_ids(given: dict[int, str], ids: list[str], column: str, competition: CompetitionConfig) -> list[str]:
    """Doubled, foreign, missing ids; and where none of these, the first row out of order. given: row number → id."""
    faults, seen, expected = [], {}, set(ids)
    near = {_plain(id): id for id in ids}
    for number, id in given.items():
        if id in seen:
            faults.append(f"row {number}, column {column!r}: id {id!r} stands already in row {seen[id]}")
        elif id not in expected:
            faults.append(f"row {number}, column {column!r}: id {id!r} is not a test row{_meant(id, near)}")
        seen.setdefault(id, number)
    if len(seen) > 1 and expected.isdisjoint(seen):
        return [f"{faults[0]} (nor is any other of its {len(seen):,} ids: is it for another competition, --config?)"]
    missing = sorted(expected - seen.keys(), key=natural)
    if missing:
        faults.append(f"{len(missing):,} of {len(ids):,} test rows are missing, the first is {missing[0]!r}")
    if not faults:
        for (number, id), wanted in zip(given.items(), ids, strict=True):
            if id != wanted:
                where = f"row {number}, column {column!r}: id {id!r} stands where {order_of(competition)} has {wanted!r}"
                return [f"{where}; keep its order"]
    return faults


def _faults_of_values(
    given: dict[int, list[str]], columns: list[str], competition: CompetitionConfig, classes: tuple[str, ...]
) -> list[str]:
    """The first fault of each value; for a probability a class also that they add up to 1. given: row number → values."""
    allowed = labels_written(competition, classes)
    near = {_plain(label): label for label in allowed}
    faults = []
    for number, values in given.items():
        if competition.submission_values == "label":
            told = [None if v in allowed else f"{v!r} is not a class{_meant(v, near)}" for v in values]
        else:
            told = [_fault_of_probability(value) for value in values]
        faults += [f"row {number}, column {name!r}: {fault}" for name, fault in zip(columns, told, strict=True) if fault]
        if competition.submission_values == "probabilities" and not any(told):
            total = sum(map(float, values))
            if abs(total - 1) > 1e-4:
                faults.append(f"row {number}: the probabilities add up to {total:.6g}, not 1")
    return faults


def _fault_of_probability(value: str) -> str | None:
    if not value:
        return "empty, expected a probability"
    if not NUMBER.fullmatch(value):
        return f"{value!r} is not a number"
    probability = float(value)
    if not 0 <= probability <= 1:
        return f"{value} is not a probability between 0 and 1"
    if probability < SMALLEST and re.search("[1-9]", re.split("[eE]", value)[0]):
        return f"{value} is so small that it would be read as {probability:g}; write 0"
    return None


def _plain(name: str) -> str:
    """A name as it would still be known after a spreadsheet: "00", "0.0", " 0" and '"0"' are all "0", and so is "0.jpg"."""
    bare = re.sub(r"\.(0+|jpe?g|png)$", "", name.strip(" \t\"'").casefold())
    return bare.lstrip("0") or bare[:1]


def _meant(name: str, near: dict[str, str]) -> str:
    known = near.get(_plain(name))
    return f"; is {known!r} meant?" if known else ""
