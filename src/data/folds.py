"""folds.csv: which row is validated in which fold. Seeded, stratified, and bound to every run by its sha256."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from src.competitions.tables import read_csv, shorten
from src.errors import UserError
from src.files import replacing, sha256

COLUMNS = ["id", "label", "group", "fold"]


def make_folds(rows: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    """id, label, group, fold (0 … folds-1) for every row, in the rows' order.

    rows: id, label, group, all str; a group of "" means that the row stands alone. Stratified by label, no group in two
    folds. Raises UserError naming the classes that have too few rows or groups to stand in every fold.
    """
    _refuse_rare_classes(rows, folds)
    # A row without a group is a group of its own.
    unit = pd.Series(np.where(rows["group"] != "", rows["group"], "row " + rows["id"]))
    largest = int(unit.value_counts().max())
    table = rows[["id", "label", "group"]].assign(fold=-1).reset_index(drop=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # sklearn warns of rare classes; they are refused by name above
        if largest * 100 * folds <= len(rows) or largest == 1:
            # Duplicates: one row stands for its group, the others follow. StratifiedGroupKFold took 31 s for 105,392 rows.
            first = ~unit.duplicated().to_numpy()
            splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(unit[first], table["label"][first])
            fold_of = {name: fold for fold, (_, held_out) in enumerate(splits) for name in unit[first].iloc[held_out]}
            table["fold"] = unit.map(fold_of).to_numpy()
        else:
            splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(unit, table["label"], unit)
            for fold, (_, held_out) in enumerate(splits):
                table.loc[held_out, "fold"] = fold
    check_folds(table, folds)
    return table


def check_folds(table: pd.DataFrame, folds: int) -> None:
    """The invariants: each row once, every fold filled, every class in every fold, no group in two folds.

    Raises UserError: with groups, whether they can be kept depends on the data; and a user may bring folds.csv along.
    """
    if not table["id"].is_unique:
        raise UserError(f"folds: id {table['id'][table['id'].duplicated()].iloc[0]!r} stands twice")
    if set(table["fold"]) != set(range(folds)):
        raise UserError(f"folds: expected the folds 0 to {folds - 1}, found {shorten(sorted(set(table['fold'])))}")
    counts = pd.crosstab(table["label"], table["fold"])
    absent = [f"{label} (not in fold {int(row.to_numpy().argmin())})" for label, row in counts.iterrows() if row.min() == 0]
    if absent:
        raise UserError(
            f"folds: {len(absent)} classes are not in every fold: {shorten(absent)}; use fewer folds (--data.folds)"
        )
    grouped = table[table["group"] != ""]
    split = grouped.groupby("group")["fold"].nunique()
    if (split > 1).any():
        raise UserError(f"folds: the group {split.index[split > 1][0]!r} stands in {int(split.max())} folds")


def write_folds(table: pd.DataFrame, path: Path) -> str:
    """Write folds.csv (to a temporary name, then renamed) and return its sha256. The same table gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        table.to_csv(partial, columns=COLUMNS, index=False, lineterminator="\n")
    return sha256(path)


def read_folds(path: Path) -> pd.DataFrame:
    """folds.csv as written: id, label, group str; fold int."""
    table = read_csv(path, COLUMNS)
    bad = table[~table["fold"].str.fullmatch("[0-9]{1,4}")]
    if len(bad):
        raise UserError(f"{path}: row {bad.index[0]}: fold {bad['fold'].iloc[0]!r} is not a number")
    twice = table[table["id"].duplicated()]
    if len(twice):
        raise UserError(f"{path}: row {twice.index[0]}: id {twice['id'].iloc[0]!r} stands twice")
    return table.astype({"fold": np.int64}).reset_index(drop=True)


def _refuse_rare_classes(rows: pd.DataFrame, folds: int) -> None:
    units = rows.assign(unit=rows["group"].where(rows["group"] != "", "row " + rows["id"])).groupby("label")["unit"].nunique()
    rare = [f"{label} ({count})" for label, count in units.sort_index().items() if count < folds]
    if rare:
        what = "rows" if (rows["group"] == "").all() else "groups"
        raise UserError(
            f"{len(rare)} of {len(units)} classes have fewer {what} than the {folds} folds: {shorten(rare, 42)}; "
            f"use --data.folds {max(2, int(units.min()))} or fewer, or take these classes out"
            if units.min() >= 2
            else f"{len(rare)} of {len(units)} classes have fewer {what} than the {folds} folds: {shorten(rare, 42)}; "
            "a class with a single row can't be validated: take it out of the table"
        )
