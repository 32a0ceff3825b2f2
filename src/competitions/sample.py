"""The sample submission: its header is law, its rows and their order are the submission's, its values are a hint."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from src.competitions.csv_file import read_csv, read_header
from src.competitions.names import alike, quoted, shorten
from src.config import CompetitionConfig
from src.errors import UserError


def find(competition: CompetitionConfig, root: Path) -> Path | None:
    """The sample's path; None where the competition has none, or it isn't there."""
    path = root / competition.sample_csv if competition.sample_csv else None
    return path if path is not None and path.is_file() else None


def submission_columns(competition: CompetitionConfig, classes: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The submission's header: as configured, or the table's own id and label columns (or the classes)."""
    if competition.submission_columns:
        return competition.submission_columns
    values = classes if competition.submission_values == "probabilities" else (competition.label_column,)
    return (competition.id_column, *values)


def check(competition: CompetitionConfig, root: Path, classes: tuple[str, ...]) -> None:
    """Raise UserError, before anything is trained, where no valid submission could be made of these classes' predictions.

    That is where a knob doesn't fit the classes, or the submission's header would not be the sample's.
    """
    columns = submission_columns(competition, classes)
    if len(competition.submission_labels) not in (0, len(classes)):
        raise _unfit(
            "submission_labels", f"{len(competition.submission_labels)} labels for the {len(classes)} classes", classes
        )
    if competition.positive is not None and competition.positive not in classes:
        raise _unfit("positive", f"{quoted(competition.positive)} is not among the {len(classes)} classes", classes)
    if competition.submission_values == "probabilities":
        if len(columns) != len(classes) + 1:
            said = f"{len(columns)} columns, and {len(classes) + 1} are needed: the id, and one for each of the classes"
            raise _unfit("submission_columns", said, classes)
        place, twins = {name: k for k, name in enumerate(classes)}, alike(columns[1:], classes)
        if any(place.get(twins.get(name, name), k) != k for k, name in enumerate(columns[1:])):
            said = f"they are filled in the order of the classes, and name them in another, {shorten(columns[1:])}"
            raise _unfit("submission_columns", f"{said}: set competition.classes in that order; it is", classes)
    if len(set(columns)) < len(columns):
        raise UserError(
            f"competition.submission_columns: the header {shorten(columns, 12)} has a name twice; name other columns"
        )
    check_header(competition, root, columns)


def check_header(competition: CompetitionConfig, root: Path, columns: tuple[str, ...]) -> None:
    """Raise UserError where the sample is there and has another header than `columns`, or the same in another order."""
    path = find(competition, root)
    if path is None or (header := read_header(path)) == columns:
        return
    knob = "competition.submission_columns"
    if competition.submission_values == "probabilities" and sorted(header[1:]) == sorted(columns[1:]):
        knob = "competition.classes"  # in the sample's order: that of the columns alone would exchange the classes
    said = f"its header is {_as_csv(header)}, and the submission's would be {_as_csv(columns)}"
    raise UserError(f"{path}: {said}; write the sample's into {knob}, in its order")


def ids(path: Path) -> pd.Series:
    """The ids of the sample's rows, in its first column; the index is the editor's row."""
    return read_csv(path, []).iloc[:, 0]


def labels(competition: CompetitionConfig, root: Path) -> tuple[list[str], Path] | None:
    """How the sample, or else the solution, spells classes, each once, and its path; None where neither says so.

    Raises UserError where the sample's header is not the submission's.
    """
    path = find(competition, root)
    if competition.submission_values == "probabilities" and not competition.submission_columns:
        return (list(read_header(path)[1:]), path) if path else None
    if competition.submission_values == "label" and path:
        check_header(competition, root, submission_columns(competition))
        return [label for label in read_csv(path, []).iloc[:, 1].unique() if label], path
    solution = root / competition.solution_csv if competition.solution_csv else None
    if solution is None or not solution.is_file():
        return None
    return list(read_csv(solution, [competition.label_column])[competition.label_column].unique()), solution


def doubt(competition: CompetitionConfig, root: Path, classes: tuple[str, ...]) -> str | None:
    """A line about the sample's labels where they are no classes: placeholders, or probabilities.

    Raises UserError where one is a class spelt otherwise: Kaggle would score nothing that is written as the table has it.
    """
    found = labels(competition, root) if competition.submission_values == "label" else None
    if found is None or found[1] != find(competition, root):
        return None
    given, path = found
    written = competition.submission_labels or classes
    foreign = [label for label in given if label not in set(written)]
    if not foreign:
        return None
    column = submission_columns(competition)[1]
    twins = alike(foreign, written)
    if twins and not competition.submission_labels and not competition.classes:
        first, twin = next(iter(twins.items()))
        said = f"column {quoted(column)} holds {quoted(first)}, and the training rows have {quoted(twin)}"
        remedy = "say how each class is written in competition.submission_labels, in the order"
        raise UserError(f"{path}: {said}: {remedy} {shorten(classes)}")
    if twins:
        return (
            f"{path}: column {quoted(column)} holds {_some(twins)}, which the submission will write as {_some(twins.values())}"
        )
    hint = "; if a probability is wanted: competition.submission_values" if all(map(_is_probability, foreign)) else ""
    return f"{path}: column {quoted(column)} holds {_some(foreign)}, which is no class: taken for a placeholder{hint}"


def _unfit(knob: str, said: str, classes: tuple[str, ...]) -> UserError:
    return UserError(f"competition.{knob}: {said} {shorten(classes)}")


def _as_csv(columns: Collection[str]) -> str:
    return quoted(",".join(columns), 300)


def _some(names: Collection[str]) -> str:
    return shorten([quoted(name) for name in names], 3)


def _is_probability(label: str) -> bool:
    try:
        return 0 < float(label) < 1
    except ValueError:
        return False
