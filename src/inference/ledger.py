"""The ledger, submissions/ledger.csv: which submissions were written, from what, when handed in, and how Kaggle scored them.

A file may have many rows, one for each content it ever had; the sha256 tells which is meant. People may add columns and rows.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from src.errors import UserError
from src.files import locked, replacing, sha256

COLUMNS = ("time", "file", "sha256", "runs", "method", "CV", "submitted", "public", "private")
TIMES, SCORES = ("time", "submitted"), ("CV", "public", "private")
Row = dict[str, str]


def enter(path: Path, runs: Iterable[str], method: str, cv: float | None) -> None:
    """Add a submission that was just written to the ledger beside it; the same content under the same name has one row.

    runs: names of the runs it was made from; cv: its out-of-fold score in the competition's metric, None where unknown.
    Raises UserError where the ledger was damaged.
    """
    with _changing(path.parent / "ledger.csv") as rows:
        if _find(rows, path) is None:
            rows.append(_row(path, runs, method, cv))


@contextmanager
def handing_in(path: Path, runs: Iterable[str], again: bool = False) -> Iterator[None]:
    """Around the upload: the file's row says when. Raises UserError where the same content was handed in before.

    The time is noted first and taken back only where Kaggle refused, so that nothing is handed in twice by a process
    that was killed, or by two at once. runs: for a file that the ledger doesn't know. again: hand in nevertheless.
    """
    ledger, digest = path.parent / "ledger.csv", sha256(path)
    with _changing(ledger) as rows:
        before = next((row for row in reversed(rows) if row["sha256"] == digest and row["submitted"]), None)
        if before is not None and not again:
            score = f", public {before['public']}" if before["public"] else ""
            raise UserError(
                f"{path} was handed in on {before['submitted']} as {before['file']}{score} ({ledger}); "
                f"--again spends another submission on the same content"
            )
        row = _find(rows, path)
        if row is None:
            rows.append(row := _row(path, runs, "", None))
        was, row["submitted"] = row["submitted"], _now()
    try:
        yield
    except UserError:
        with _changing(ledger) as rows:
            row = _find(rows, path, digest)
            if row is not None:
                row["submitted"] = was
        raise


def handed_in(path: Path) -> Row | None:
    """The file's row that was handed in last."""
    rows = [row for row in read(path.parent / "ledger.csv")[1] if row["file"] == path.name and row["submitted"]]
    return max(rows, key=lambda row: row["submitted"], default=None)


def record(path: Path, scores: dict[str, float]) -> Row | None:
    """Note Kaggle's scores {"public": …} in the row of the file: the one handed in last, else the one of its content now.

    Returns the row; None where the ledger has none.
    """
    handed = handed_in(path)
    digest = handed["sha256"] if handed else sha256(path) if path.is_file() else ""
    if not (path.parent / "ledger.csv").is_file():
        return None
    with _changing(path.parent / "ledger.csv") as rows:
        row = _find(rows, path, digest)
        if row is not None:
            row.update({board: f"{score:g}" for board, score in scores.items()})
    return row


def altered(path: Path) -> str | None:
    """One line where the ledger knows the file, but with another content than it has now."""
    rows = [row for row in read(path.parent / "ledger.csv")[1] if row["file"] == path.name]
    digest = sha256(path)
    if not rows or any(row["sha256"] == digest for row in rows):
        return None
    last = rows[-1]
    return f"changed since it was written on {last['time']}: its sha256 was {last['sha256'][:12]}, and is {digest[:12]} now"


def read(ledger: Path) -> tuple[list[str], list[Row]]:
    """The columns and rows of a ledger, which need not exist. Raises UserError naming the row that can't be read."""
    if not ledger.is_file():
        return list(COLUMNS), []
    try:
        header, *lines = csv.reader(io.StringIO(ledger.read_text(encoding="utf-8-sig"), newline=""), strict=True)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{ledger}: not a readable CSV ({error}); mend it, or move it away to start a new one") from None
    absent = [column for column in COLUMNS if column not in header]
    if absent or len(set(header)) < len(header):
        fault = f"column {absent[0]!r} is missing" if absent else "a column stands twice"
        raise UserError(f"{ledger}: row 1: {fault}; expected {','.join(COLUMNS)} and any others")
    rows = []
    for number, cells in enumerate(lines, 2):
        if not any(cells):  # an empty line
            continue
        fault = f"{len(cells)} values, expected {len(header)}" if len(cells) != len(header) else None
        row = dict(zip(header, cells, strict=False))
        if fault := fault or _fault(row):
            raise UserError(f"{ledger}: row {number}: {fault}; mend the row, or delete it")
        rows.append(row)
    return header, rows


def _fault(row: Row) -> str | None:
    if not re.fullmatch("[0-9a-f]{64}", row["sha256"]):
        return f"column 'sha256': {row['sha256']!r} is not 64 hexadecimal digits"
    for column in TIMES:
        if not _reads(datetime.fromisoformat, row[column]):
            return f"column {column!r}: {row[column]!r} is not a time like 2026-01-31T09:30:00+00:00"
    for column in SCORES:
        if not _reads(float, row[column]) or not math.isfinite(float(row[column] or 0)):
            return f"column {column!r}: {row[column]!r} is not a number"
    return None


def _reads(kind: Callable[[str], object], value: str) -> bool:
    try:
        return not value or kind(value) is not None
    except ValueError:
        return False


@contextmanager
def _changing(ledger: Path) -> Iterator[list[Row]]:
    """The rows, to be changed in place: read, and written whole, while no other process does."""
    with locked(ledger.parent, patience=60):
        columns, rows = read(ledger)
        yield rows
        with replacing(ledger) as partial, open(partial, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _find(rows: list[Row], path: Path, digest: str | None = None) -> Row | None:
    """The file's last row with this content, or else with the one it has now."""
    digest = sha256(path) if digest is None else digest
    return next((row for row in reversed(rows) if row["file"] == path.name and row["sha256"] == digest), None)


def _row(path: Path, runs: Iterable[str], method: str, cv: float | None) -> Row:
    score = "" if cv is None or math.isnan(cv) else f"{cv:.6g}"
    values = (_now(), path.name, sha256(path), " ".join(runs), method, score, "", "", "")
    return dict(zip(COLUMNS, values, strict=True))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
