"""The tables of a competition: which rows there are, where their images lie, which class they have.

Ids and class names are strings throughout: read as numbers, Shopee's class "00" would turn into 0 and score nothing.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from src.competitions import sample
from src.competitions.csv_file import read_csv, read_header
from src.competitions.listing import listed_table, listing, prefix, why_no_rows
from src.competitions.names import alike, natural, quoted, respelt, same_numbers, shorten
from src.competitions.sample import submission_columns
from src.config import CompetitionConfig
from src.errors import UserError

__all__ = ["listing", "natural", "prefix", "read_csv", "shorten", "submission_columns"]  # what others know by this name
# Folders beside those of the classes that hold no class, unless it is configured as one.
NO_CLASS = re.compile(r"(test(s|ing)?\d*|val(id|idation)?)([ _-]?(set|images?|data))?", re.IGNORECASE)

Said = Callable[[str], None]


def train_table(competition: CompetitionConfig, root: Path, said: Said = lambda _: None) -> pd.DataFrame:
    """Training rows: id, path (as the table says), label (class name), group ("" where there are none); all str.

    Labels are spelt as in `classes`, or else as in the sample, where they differ by ".0" alone; `said` is told. Raises
    UserError naming file and row for a missing column, an empty or doubled id, or a label outside the classes.
    """
    table, source = _listed_train(competition, root, said) if competition.train_csv is None else _train_csv(competition, root)
    if table.empty:
        raise UserError(f"{source}: no training rows")
    _check_ids(table, source)
    _check_labels(table, source)
    table["label"] = _spelt(table["label"], source, competition, root, said)
    if competition.classes:
        _check_known(table, competition.classes, source)
    return table[["id", "path", "label", "group"]].reset_index(drop=True)


def test_table(competition: CompetitionConfig, root: Path, said: Said = lambda _: None) -> pd.DataFrame:  # noqa: PT028
    """Test rows: id, path (as the table says); all str. The sample submission's rows in its order, where there is one.

    `said` is told where the sample and the table have different rows.
    """
    pattern = competition.test_images
    if competition.test_csv is None:
        table = listed_table(root, pattern, prefix(competition.train_images), said)
        source = root / prefix(pattern)
    else:
        source = root / competition.test_csv
        csv = read_csv(source, [competition.id_column])
        table = pd.DataFrame({"id": csv[competition.id_column], "path": _paths(csv, pattern, competition, source)})
    _check_ids(table, source)
    path = sample.find(competition, root)
    if path is not None:
        table = _as_the_sample(table, path, competition, said)
    return table[["id", "path"]].reset_index(drop=True)


def truth(competition: CompetitionConfig, root: Path, classes: tuple[str, ...]) -> pd.DataFrame | None:
    """id and label, one of `classes`, of the test rows whose label is known, by a solution_csv or by {label} in test_images.

    None: unknown, as where the folders of test images aren't the classes. Raises UserError for a row of the solution whose
    label is neither a class nor what the submission writes for one.
    """
    if competition.test_csv is None and "{label}" in competition.test_images:
        table = listed_table(root, competition.test_images, prefix(competition.train_images))[["id", "label"]]
        return table if table["label"].isin(classes).all() else None
    if competition.solution_csv is None or not (root / competition.solution_csv).is_file():
        return None
    source, columns = root / competition.solution_csv, {competition.id_column: "id", competition.label_column: "label"}
    table = read_csv(source, list(columns)).rename(columns=columns)[["id", "label"]]
    written = dict(zip(competition.submission_labels, classes, strict=False))
    _check_ids(table, source)
    given = set(table["label"]) - set(classes)
    table["label"] = _replaced(
        table["label"], {name: written[name] for name in given & written.keys()} | same_numbers(given, classes)
    )
    _check_known(table, classes, source)
    return table.reset_index(drop=True)


def unscored(competition: CompetitionConfig, root: Path, classes: tuple[str, ...]) -> str | None:
    """A line where labels of the test rows are there and can't be used. Raises UserError as `truth` does."""
    if truth(competition, root, classes) is not None or competition.test_csv or "{label}" not in competition.test_images:
        return None
    table = listed_table(root, competition.test_images, prefix(competition.train_images))
    foreign = sorted(set(table["label"]) - set(classes), key=natural)
    return f"{root}: the test images lie under {shorten(foreign)}, which is no class: they aren't scored" if foreign else None


def class_names(competition: CompetitionConfig, train: pd.DataFrame, root: Path | None = None) -> tuple[str, ...]:
    """The classes in the order of the logits: the competition's own, or the sorted labels of its training table.

    root: where the sample may lie; if the names of its columns are the classes, their order is its own.
    """
    classes = competition.classes or tuple(sorted(train["label"].unique(), key=natural))
    path = sample.find(competition, root) if root is not None else None
    if (
        path is None
        or competition.classes
        or competition.submission_columns
        or competition.submission_values != "probabilities"
    ):
        return classes
    columns = read_header(path)[1:]
    return columns if sorted(columns) == sorted(classes) else classes


def class_indices(labels: pd.Series, classes: tuple[str, ...], source: object = "labels") -> np.ndarray:
    """(n,) int64: each label's place among the classes, which is its logit's; "7" is found as "7.0" and the other way round.

    Raises UserError naming the first label that is no class, with its id where these are the index, and `source`.
    """
    places = {name: i for i, name in enumerate(classes)}
    twins = same_numbers(labels.unique(), classes)
    found = labels.map(places | {label: places[twin] for label, twin in twins.items()})
    foreign = np.flatnonzero(found.isna())
    if len(foreign):
        label, id = labels.iloc[foreign[0]], labels.index[foreign[0]]
        where = f"id {quoted(id)}: " if isinstance(id, str) else ""
        said = f"{where}label {quoted(str(label))} is not among the {len(classes)} classes {shorten(classes)}"
        raise UserError(f"{source}: {said} ({len(foreign)} such rows)")
    return found.to_numpy(dtype=np.int64, copy=True)


def renamed(classes: tuple[str, ...], now: tuple[str, ...]) -> tuple[str, ...]:
    """Classes as an older run knows them, in today's spelling: "0.0" → "0"."""
    twins = same_numbers(classes, now)
    return tuple(twins.get(name, name) for name in classes)


def _train_csv(competition: CompetitionConfig, root: Path) -> tuple[pd.DataFrame, Path]:
    source = root / competition.train_csv
    columns = [competition.id_column, competition.label_column, *filter(None, [competition.group_column])]
    csv = read_csv(source, columns)
    table = pd.DataFrame({"id": csv[competition.id_column], "label": csv[competition.label_column]})
    table["path"] = _paths(csv, competition.train_images, competition, source)
    table["group"] = csv[competition.group_column] if competition.group_column else ""
    return table, source


def _listed_train(competition: CompetitionConfig, root: Path, said: Said) -> tuple[pd.DataFrame, Path]:
    """The files themselves as the table, without those of the test images' folder."""
    pattern, without = competition.train_images, prefix(competition.test_images)
    source = root / prefix(pattern)
    table = listed_table(root, pattern, without, said)
    if table.empty:
        raise UserError(f"{source}: no training images: {why_no_rows(root, pattern, without)}")
    odd = sorted({label for label in table["label"] if NO_CLASS.fullmatch(label)} - set(competition.classes))
    if odd:
        count = int(table["label"].isin(odd).sum())
        raise UserError(
            f"{source}: {shorten(odd)} would be a class, of {count:,} images: if they are test images, name them in "
            "competition.test_images; if it is a class, list all in competition.classes; or else move it elsewhere"
        )
    return table.assign(group=""), source


def _paths(csv: pd.DataFrame, pattern: str, competition: CompetitionConfig, source: Path) -> list[str]:
    """The pattern filled in for every row; {id} and {label} stand for the columns of those roles."""
    roles = {"id": competition.id_column, "label": competition.label_column}
    columns = [roles.get(name, name) for name in re.findall(r"\{(\w+)\}", pattern)]
    for column in columns:
        if column not in csv.columns:
            raise UserError(f"{source}: column {column!r}, which the path {pattern} needs, is missing")
    template = re.sub(r"\{\w+\}", "%s", pattern.replace("%", "%%"))
    return [template % values for values in zip(*(csv[column] for column in columns), strict=True)]


def _spelt(labels: pd.Series, source: Path, competition: CompetitionConfig, root: Path, said: Said) -> pd.Series:
    """The labels in the spelling that the competition's own classes, or its sample, have of them."""
    present = set(labels.unique())
    if competition.classes:
        names, by = same_numbers(present, competition.classes), "competition.classes"
    elif competition.submission_values == "probability":
        names, by = respelt(present, [competition.positive or ""]), "competition.positive"
    else:
        wanted, by = (None if competition.submission_labels else sample.labels(competition, root)) or ([], "")
        names = respelt(present, wanted)
    names = {label: name for label, name in names.items() if name != label}
    if not names:
        return labels
    examples = shorten([f"{label} as {names[label]}" for label in sorted(names, key=natural)], 3)
    said(f"{source}: labels are read as {by} spells them: {examples}")
    return _replaced(labels, names)


def _replaced(labels: pd.Series, names: dict[str, str]) -> pd.Series:
    return labels.map(lambda label: names.get(label, label)) if names else labels


def _row(index: pd.Index, place: int) -> str:
    """Where a row of a CSV stands, in front of its id; "" where files are the table."""
    return f"row {index[place]}, " if index.name == "row" else ""


def _check_ids(table: pd.DataFrame, source: Path) -> None:
    ids, index = table["id"], table.index
    empty = np.flatnonzero(ids == "")
    if len(empty):
        raise UserError(f"{source}: row {index[empty[0]]} has no id ({len(empty)} such rows)")
    broken = np.flatnonzero(ids.str.contains("[\r\n]", regex=True))
    if len(broken):
        raise UserError(f"{source}: {_row(index, broken[0])}id {quoted(ids.iloc[broken[0]])} holds a line break")
    doubled = ids[ids.duplicated(keep=False)]
    if len(doubled):
        rows = doubled.index[doubled == doubled.iloc[0]].tolist()
        raise UserError(
            f"{source}: id {quoted(doubled.iloc[0])} stands {len(rows)} times, in rows {shorten(rows)} "
            f"({doubled.nunique()} ids are doubled)"
        )


def _check_labels(table: pd.DataFrame, source: Path) -> None:
    broken = table["label"].str.contains("[\r\n]", regex=True)
    for fault, wrong in (("no label", table["label"] == ""), ("a line break in its label", broken)):
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            where = f"{_row(table.index, place)}id {quoted(table['id'].iloc[place])}"
            raise UserError(f"{source}: {where}: {fault} ({int(wrong.sum())} such rows)")


def _check_known(table: pd.DataFrame, classes: tuple[str, ...], source: Path) -> None:
    foreign = np.flatnonzero(~table["label"].isin(classes))
    if not len(foreign):
        return
    id, label = table[["id", "label"]].iloc[foreign[0]]
    twin, such = alike([label], classes).get(label), "such rows" if table.index.name == "row" else "such images"
    raise UserError(
        f"{source}: {_row(table.index, foreign[0])}id {quoted(id)}: label {quoted(label)} is not among the "
        f"{len(classes)} classes {shorten(classes)} ({len(foreign)} {such})" + (f"; is {quoted(twin)} meant?" if twin else "")
    )


def _as_the_sample(table: pd.DataFrame, path: Path, competition: CompetitionConfig, said: Said) -> pd.DataFrame:
    """The sample's rows, each with the path that the table gives it."""
    ids = sample.ids(path)
    _check_ids(ids.to_frame("id"), path)
    known = table.set_index("id")["path"]
    # A sample row that the table lacks still needs a prediction: its image is looked for where the pattern says.
    pattern = competition.test_images.replace(f"{{{competition.id_column}}}", "{id}")
    paths = [known.get(id) or pattern.replace("{id}", id) for id in ids]
    source = competition.test_csv or "the test images"
    more, lacking = len(table) - int(table["id"].isin(ids).sum()), int((~ids.isin(table["id"])).sum())
    if lacking == len(ids) and len(table):
        here, there = quoted(ids.iloc[0]), quoted(table["id"].iloc[0])
        said(f"{path}: none of its {len(ids):,} ids is in {source}: {here} here, {there} there")
    elif more:
        said(f"{path}: only its {len(ids):,} rows are predicted: {more:,} of the {len(table):,} of {source} are not in it")
    if 0 < lacking < len(ids) and competition.test_csv:
        first = ids[~ids.isin(table["id"])].iloc[0]
        said(f"{path}: {lacking:,} of its {len(ids):,} ids are not in {source}, the first is {quoted(first)}")
    return pd.DataFrame({"id": ids, "path": paths})
