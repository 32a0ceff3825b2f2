"""The tables of a competition: which rows there are, where their images lie, which class they have.

Ids and class names are strings throughout: read as numbers, Shopee's class "00" would turn into 0 and score nothing.
"""

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from src.config import CompetitionConfig
from src.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".jp2"})


def train_table(competition: CompetitionConfig, root: Path) -> pd.DataFrame:
    """Training rows: id, path (relative to root), label (class name), group ("" where there are none); all str.

    Raises UserError naming file and row for a missing column, an empty or doubled id, or a label outside the classes.
    """
    pattern = competition.train_images
    if competition.train_csv is None:
        table = _listed_table(root, pattern)
        source = root / prefix(pattern)
    else:
        source = root / competition.train_csv
        columns = [competition.id_column, competition.label_column, *filter(None, [competition.group_column])]
        csv = read_csv(source, columns)
        table = pd.DataFrame({"id": csv[competition.id_column], "label": csv[competition.label_column]})
        table["path"] = _paths(csv, pattern, competition, source)
        table["group"] = csv[competition.group_column] if competition.group_column else ""
    if table.empty:
        raise UserError(f"{source}: no training rows" + ("" if competition.train_csv else f": no file matches {pattern}"))
    _check_ids(table["id"], source)
    unlabelled = np.flatnonzero((table["label"] == "").to_numpy())
    if len(unlabelled):
        row = int(unlabelled[0])
        raise UserError(f"{source}: row {row + 2}, id {table['id'][row]!r}: no label ({len(unlabelled)} such rows)")
    if competition.classes:
        foreign = table[~table["label"].isin(competition.classes)]
        if len(foreign):
            row = foreign.iloc[0]
            raise UserError(
                f"{source}: row {foreign.index[0] + 2}, id {row['id']!r}: label {row['label']!r} is not among the "
                f"{len(competition.classes)} classes {shorten(competition.classes)} ({len(foreign)} such rows)"
            )
    return table[["id", "path", "label", "group"]]


def test_table(competition: CompetitionConfig, root: Path) -> pd.DataFrame:
    """Test rows: id, path (relative to root); all str. In the order of the sample submission, where there is one."""
    pattern = competition.test_images
    if competition.test_csv is None:
        table = _listed_table(root, pattern)
        source = root / prefix(pattern)
    else:
        source = root / competition.test_csv
        csv = read_csv(source, [competition.id_column])
        table = pd.DataFrame({"id": csv[competition.id_column], "path": _paths(csv, pattern, competition, source)})
    _check_ids(table["id"], source)
    sample = root / competition.sample_csv if competition.sample_csv else None
    if sample is not None and sample.is_file():
        table = _in_the_samples_order(table, sample, competition)
    return table[["id", "path"]].reset_index(drop=True)


def truth(competition: CompetitionConfig, root: Path) -> pd.DataFrame | None:
    """id and label of the test rows whose label is known, by a solution_csv or by {label} in test_images; none: unknown."""
    if competition.test_csv is None and "{label}" in competition.test_images:
        return _listed_table(root, competition.test_images)[["id", "label"]]
    if competition.solution_csv is None or not (root / competition.solution_csv).is_file():
        return None
    columns = {competition.id_column: "id", competition.label_column: "label"}
    return read_csv(root / competition.solution_csv, list(columns)).rename(columns=columns)[["id", "label"]]


def class_names(competition: CompetitionConfig, train: pd.DataFrame) -> tuple[str, ...]:
    """The classes in the order of the logits: the competition's own, or the sorted labels of its training table."""
    return competition.classes or tuple(sorted(train["label"].unique(), key=natural))


def class_indices(labels: pd.Series, classes: tuple[str, ...]) -> np.ndarray:
    """(n,) int64: each label's place among the classes, which is its logit's."""
    return labels.map({name: i for i, name in enumerate(classes)}).to_numpy(dtype=np.int64, copy=True)


def submission_columns(competition: CompetitionConfig, classes: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The submission's header: as configured, or the table's own id and label columns (or the classes)."""
    if competition.submission_columns:
        return competition.submission_columns
    values = classes if competition.submission_values == "probabilities" else (competition.label_column,)
    return (competition.id_column, *values)


def read_csv(path: Path, columns: list[str]) -> pd.DataFrame:
    """A CSV as strings, nothing taken for a missing value. Raises UserError for an absent file or column."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            # index_col=False: where rows have a field more than the header, pandas would take the ids for row names.
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except pd.errors.ParserWarning:
        raise UserError(f"{path}: not a readable CSV: rows have more fields than the header") from None
    except OSError as error:
        said = "no such file" if isinstance(error, FileNotFoundError) else f"can't be read: {error.strerror or error}"
        raise UserError(f"{path}: {said}") from None
    except ValueError as error:  # pandas' parser errors and UnicodeDecodeError are ValueErrors
        raise UserError(f"{path}: not a readable CSV: {' '.join(str(error).split())}") from None
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise UserError(f"{path}: column {absent[0]!r} is missing; the file has {', '.join(map(repr, table.columns))}")
    return table


def listing(root: Path, pattern: str) -> list[str]:
    """All image files below the fixed part of a pattern, relative to root with forward slashes, in natural order."""
    found = []
    for folder, _, names in os.walk(root / prefix(pattern), followlinks=True):
        relative = Path(folder).relative_to(root).as_posix()
        found += [f"{relative}/{name}" for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
    return sorted((path.removeprefix("./") for path in found), key=natural)


def prefix(pattern: str) -> str:
    """The folder that a pattern surely lies in: "train/train/{label}/{id}" → "train/train"."""
    return pattern.partition("{")[0].rpartition("/")[0]


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key under which 2 comes before 10. No two names have the same: 01 and 1 stand in one order everywhere."""
    parts = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
    return [*parts, (-1, 0, name)]


def shorten(names: list[str] | tuple[str, ...] | np.ndarray, most: int = 6) -> str:
    """The first few names and how many more there are."""
    names = list(names)
    return ", ".join(map(str, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")


def _listed_table(root: Path, pattern: str) -> pd.DataFrame:
    """Rows from the files alone. The id is what {id} matched, or else all that the pattern leaves open: "cat.0"."""
    named: set[str] = set()

    def group(match: re.Match) -> str:
        name = match[1]
        if name in named:
            return f"(?P={name})"
        named.add(name)
        return f"(?P<{name}>[^/]+?)"

    parts = re.split(r"(\{\w+\})", pattern)
    regex = "".join(re.sub(r"\{(\w+)\}", group, part) if part.startswith("{") else re.escape(part) for part in parts)
    rest = re.compile(f"{re.escape(pattern.partition('{')[0])}(.*){re.escape(pattern.rpartition('}')[2])}")
    rows = []
    for path in listing(root, pattern):
        match = re.fullmatch(regex, path)
        if match:
            fields = match.groupdict()
            rows.append((fields.get("id") or rest.fullmatch(path)[1], path, fields.get("label", ""), ""))
    return pd.DataFrame(rows, columns=["id", "path", "label", "group"], dtype=str)


def _paths(csv: pd.DataFrame, pattern: str, competition: CompetitionConfig, source: Path) -> list[str]:
    """The pattern filled in for every row; {id} and {label} stand for the columns of those roles."""
    roles = {"id": competition.id_column, "label": competition.label_column}
    columns = [roles.get(name, name) for name in re.findall(r"\{(\w+)\}", pattern)]
    for column in columns:
        if column not in csv.columns:
            raise UserError(f"{source}: column {column!r}, which the path {pattern} needs, is missing")
    template = re.sub(r"\{\w+\}", "%s", pattern.replace("%", "%%"))
    return [template % values for values in zip(*(csv[column] for column in columns), strict=True)]


def _check_ids(ids: pd.Series, source: Path) -> None:
    empty = np.flatnonzero((ids == "").to_numpy())
    if len(empty):
        raise UserError(f"{source}: row {empty[0] + 2} has no id ({len(empty)} such rows)")
    doubled = ids[ids.duplicated(keep=False)]
    if len(doubled):
        rows = [int(i) + 2 for i in doubled.index[doubled == doubled.iloc[0]]]
        raise UserError(
            f"{source}: id {doubled.iloc[0]!r} stands {len(rows)} times, in rows {shorten(rows)} "
            f"({doubled.nunique()} ids are doubled)"
        )


def _in_the_samples_order(table: pd.DataFrame, sample: Path, competition: CompetitionConfig) -> pd.DataFrame:
    id_column = submission_columns(competition)[0]
    ids = read_csv(sample, [id_column])[id_column]
    _check_ids(ids, sample)
    known = table.set_index("id")["path"]
    # A sample row that the table lacks still needs a prediction: its image is looked for where the pattern says.
    pattern = competition.test_images.replace(f"{{{competition.id_column}}}", "{id}")
    paths = [known.get(id) or pattern.replace("{id}", id) for id in ids]
    return pd.DataFrame({"id": ids, "path": paths})
