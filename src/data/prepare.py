"""From whatever lies on the disk to tables that can be trained on: find, unpack, check, count, split.

prepare.py prints what this finds; train.py and predict.py call the same steps by themselves.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from src.competitions import archive, digits, kaggle, sample, tables, torchvision_data
from src.competitions.listing import IMAGE_SUFFIXES, why_no_rows
from src.competitions.names import quoted, shorten, shown
from src.config import CompetitionConfig, Config
from src.data import folds, own
from src.data.places import Places
from src.errors import UserError

if TYPE_CHECKING:
    from src.data.audit import Audit

KAGGLE_INPUT = Path("/kaggle/input")


@dataclass(frozen=True)
class Prepared:
    """A competition's tables and what was found of its images. `train` holds all rows, those without an image too."""

    root: Path
    classes: tuple[str, ...]
    train: pd.DataFrame  # id, path, label, group, found (bool)
    test: pd.DataFrame | None  # id, path, found; None where the test set is not there
    notes: tuple[str, ...]
    audit: "Audit | None" = None


def prepare(config: Config, said: Callable[[str], None] = print) -> Prepared:
    """Find the data, unpack it, read its tables and look for every image.

    Raises UserError where files are missing, saying which are expected where and the two ways to get them.
    """
    competition = config.competition
    root = _ready(config, said, competition.train_csv or f"{tables.prefix(competition.train_images) or '.'}/")
    train = tables.train_table(competition, root, said)
    classes = tables.class_names(competition, train, root)
    if len(classes) < 2:
        raise UserError(f"{root}: all {len(train):,} training rows are of one class, {quoted(classes[0])}; two are needed")
    sample.check(competition, root, classes)
    for line in (sample.doubt(competition, root, classes), tables.unscored(competition, root, classes)):
        if line:
            said(line)
    notes: list[str] = []
    places = Places(root)
    train = _located(train, places, "training", notes)
    test = _test_table(competition, places, notes, said)
    notes += _unused(competition, root, train, test)
    counts = [_count("training", len(train), competition.expected_train)]
    counts += [_count("test", len(test), competition.expected_test)] if test is not None else []
    summary = f"{competition.name}: {', '.join(counts)}, in {root}"
    return Prepared(root, classes, train, test, (summary, _describe_classes(train, classes), *notes))


def rows_to_predict(config: Config, said: Callable[[str], None] = print) -> tuple[Path, pd.DataFrame]:
    """The test part alone, for a kernel that only predicts: the data's folder, and of every row id, path and found, in order.

    Raises UserError where test files are missing.
    """
    competition = config.competition
    root = _ready(config, said, competition.test_csv or f"{tables.prefix(competition.test_images) or '.'}/")
    if competition.submission_values != "probabilities" or competition.submission_columns:
        sample.check_header(competition, root, sample.submission_columns(competition))
    notes: list[str] = []
    test = _test_table(competition, Places(root), notes, said)
    for note in notes:
        said(note)
    if test is None:
        raise UserError(f"{root}: no test rows to predict")
    if competition.sample_csv and not (root / competition.sample_csv).is_file():
        said(f"{root / competition.sample_csv} is not there: the rows are those of {competition.test_csv or 'the test images'}")
    if competition.expected_test not in (None, len(test)):
        said(_count("test", len(test), competition.expected_test))
    return root, test


def audited(config: Config, prepared: Prepared, said: Callable[[str], None] = print) -> Prepared:
    """The same after a look at every image: `audit` and audit.csv hold the findings; duplicates share a group, so one fold.

    Files already looked at are known from a cache beside the data. Without data.audit: `prepared` as it is.
    """
    if not config.data.audit:
        return prepared
    from src.data.audit import audit  # here: it brings Pillow and a hash library that prediction doesn't need

    competition, root = config.competition, prepared.root
    lying = {
        path for pattern in (competition.train_images, competition.test_images) for path in listed(competition, root, pattern)
    }
    folder = beside(prepared.root, competition)
    result = audit(root, prepared.train, prepared.test, lying, folder / ".audit.npz", config.data.workers or None, said)
    where = _write_own(competition, root, "audit.csv", result.write)
    train = prepared.train.assign(group=result.groups)
    told = [line for line in result.summary() if line.split(":")[0].strip() not in ("missing", "orphan")]  # counted above
    if where != folder / "audit.csv":
        told.append(f"audit.csv: {folder / 'audit.csv'} is yours and stays as it is; the audit's is {where}")
    return replace(prepared, train=train, audit=result, notes=(*prepared.notes, *told))


def prepare_and_report(config: Config, download: bool, said: Callable[[str], None] = print) -> None:
    """prepare.py's work: what was found, line by line, and folds.csv where there is something to train on."""
    if download:
        _download(config.competition, locate(config))
    prepared = audited(config, prepare(config, said), said)
    for note in prepared.notes:
        said(note)
    if prepared.audit is not None and len(prepared.audit.findings):
        _draw_findings(config, prepared, said)
    try:
        rows = training_rows(config, prepared)
        table = folds.make_folds(rows, config.data.folds, config.data.seed)
    except UserError as error:
        said(f"train.py will refuse this: {error}")
        return
    path = write_competition_folds(config, prepared, table)
    counts = " ".join(f"{count:,}" for count in table["fold"].value_counts().sort_index())
    where = path or f"{prepared.root} is read-only, so only each run keeps it"
    if path not in (None, prepared.root / "folds.csv"):
        where = f"{path}, as {prepared.root / 'folds.csv'} is yours"
    said(f"folds.csv: {len(table):,} rows in {config.data.folds} folds of {counts}; {where}")


def _download(competition: CompetitionConfig, root: Path) -> None:
    if competition.name not in torchvision_data.FILES:
        kaggle.download(competition, root)
    elif not (root / tables.prefix(competition.train_images)).is_dir():
        torchvision_data.write(competition.name, root)


def training_rows(config: Config, prepared: Prepared) -> pd.DataFrame:
    """The rows to train and validate on: id, path, label, group. Nothing is left out unless the configuration says so."""
    rows = prepared.train
    if not rows["found"].any() or (config.data.missing == "refuse" and not rows["found"].all()):
        raise UserError(_missing(rows, prepared.root))
    rows = rows[rows["found"]].drop(columns="found")
    if prepared.audit is not None:
        rows = _apply_policies(config, prepared.audit, rows)
    if rows.empty:
        raise UserError(f"{prepared.root}: none of the {len(prepared.train):,} training rows is left")
    if config.data.rows is not None and config.data.rows < len(rows):
        rows = _draw(rows, config.data.rows, config.data.seed)
    return rows.reset_index(drop=True)


def _missing(rows: pd.DataFrame, root: Path) -> str:
    """Why rows without an image are refused, and what to do: one that is only spelt otherwise must not be left out."""
    lost, places = rows[~rows["found"]], Places(root)
    near = next((place for place, path in enumerate(lost["path"]) if places.near(path)), None)
    first = lost.iloc[near or 0]
    said = (
        f"{len(lost):,} of {len(rows):,} training rows have no image, the first is id {quoted(first['id'])}: "
        f"{root / shown(first['path'])}{places.why(first['path'])}"
    )
    if near is not None:
        return f"{said}; write the path as the file is named, in competition.train_images or in the table"
    if len(lost) == len(rows):
        return f"{said}; do competition.train_images and the table say where the images are?"
    return f"{said}; --data.missing drop leaves them out and uses the other {len(rows) - len(lost):,}"


def beside(root: Path, competition: CompetitionConfig) -> Path:
    """Where what is found about the data is kept: with it, or below runs/ where it is read-only, as on Kaggle."""
    return root if os.access(root, os.W_OK) else _elsewhere(competition)


def _apply_policies(config: Config, audit: "Audit", rows: pd.DataFrame) -> pd.DataFrame:
    """`rows` without those that a policy drops. Raises UserError for findings that a policy refuses."""
    findings = audit.findings[(audit.findings["part"] == "train") & audit.findings["id"].isin(rows["id"])]
    policies = config.data.policies()
    for kind in findings["kind"].unique():
        found = findings[findings["kind"] == kind]
        if policies.get(kind) == "refuse":
            first = found.iloc[0]
            raise UserError(
                f"{len(found):,} training rows are {kind}, the first is id {quoted(first['id'])}, {shown(first['path'])}: "
                f"{first['detail']}{_unknown_format(first['path'], kind)}; "
                f"--data.policy {kind}=drop leaves them out, audit.csv beside the data lists them"
            )
    dropped = findings[findings["kind"].map(policies) == "drop"]
    return rows[~rows["id"].isin(dropped["id"])]


def _unknown_format(path: str, kind: str) -> str:
    """The reason, where it is the format's: the decoder reads no .npy and no .dcm, however sound the file is."""
    suffix = os.path.splitext(path)[1].lower()
    if kind not in ("not_an_image", "unreadable") or suffix in IMAGE_SUFFIXES:
        return ""
    return f"; OpenCV reads no {suffix} files of this kind: write them as PNG" if suffix else ""


def _draw_findings(config: Config, prepared: Prepared, said: Callable[[str], None]) -> None:
    """A sheet of examples beside audit.csv."""
    from src.data.sheet import picture_sheet

    competition, root, findings = config.competition, prepared.root, prepared.audit.findings
    sheet = _write_own(competition, root, "audit.png", lambda path: picture_sheet(findings, root, path))
    said(f"audit: {own_file(competition, root, 'audit.csv')}, with examples in {sheet}")


def write_competition_folds(config: Config, prepared: Prepared, table: pd.DataFrame) -> Path | None:
    """data/<competition>/folds.csv, for people to look at; None where the folder is read-only, as on Kaggle."""
    if not os.access(prepared.root, os.W_OK):
        return None
    try:
        return _write_own(config.competition, prepared.root, "folds.csv", lambda path: folds.write_folds(table, path))
    except OSError:  # read-only in a way that access() does not see; the run's own folds.csv is the one that counts
        return None


def own_file(competition: CompetitionConfig, root: Path, name: str) -> Path:
    """Where a file is that was written beside the data, or would be; an older version left no mark on its own."""
    path, other = beside(root, competition) / name, _elsewhere(competition) / name
    return other if other.is_file() and not own.is_ours(path) else path


def _write_own(competition: CompetitionConfig, root: Path, name: str, writer: Callable[[Path], object]) -> Path:
    """Write a file beside the data, or below runs/ where the user has another of that name; where it is."""
    folder, elsewhere = beside(root, competition), _elsewhere(competition)
    given = (competition.train_csv, competition.test_csv, competition.sample_csv, competition.solution_csv)
    tables = {os.path.realpath(root / table).casefold() for table in given if table}
    if os.path.realpath(folder / name).casefold() in tables:  # never ours, even if it once was
        folder = elsewhere
    return own.write(folder / name, elsewhere, writer)


def _elsewhere(competition: CompetitionConfig) -> Path:
    return Path("runs") / ".audit" / competition.name


def locate(config: Config) -> Path:
    """The competition's folder: data.root, or data/NAME, or Kaggle's input folder; the first that holds anything."""
    competition = config.competition
    if config.data.root is not None:
        return Path(config.data.root)
    usual = Path("data") / competition.name
    kaggle = [KAGGLE_INPUT / competition.slug, KAGGLE_INPUT / "competitions" / competition.slug] if competition.slug else []
    places = [*kaggle, usual] if _unpacked_from_elsewhere(usual) else [usual, *kaggle]
    shown = (root for root in places if root.is_dir() and any(not entry.name.startswith(".") for entry in root.iterdir()))
    return next(shown, usual)


def _unpacked_from_elsewhere(own: Path) -> bool:
    """Whether it holds what was unpacked, perhaps in part, from archives that lie in a read-only folder."""
    unpacked = (own / archive.MARKER).is_file() or any(own.glob(".*.zip.partial"))
    return unpacked and not any(own.glob("*.zip"))


def _ready(config: Config, said: Callable[[str], None], needed: str) -> Path:
    """The folder in which the file or folder `needed` lies, after unpacking what is packed."""
    competition, root = config.competition, locate(config)
    if root.is_dir() and any(root.glob("*.zip")):
        root = _unpacked(root, competition, said)
    if not (root / needed).exists() and _written(competition.name, root):
        said(f"{competition.name}: written to {root}")
    if not (root / needed).exists():
        raise UserError(_how_to_get(config, root, needed))
    return root


def _written(name: str, root: Path) -> bool:
    """Whether it is a competition whose pictures are written here, from what lies in its folder or came with a package."""
    if name == "digits":
        digits.write(root)
    elif torchvision_data.at_hand(name, root):
        torchvision_data.write(name, root)
    else:
        return False
    return True


def _unpacked(root: Path, competition: CompetitionConfig, said: Callable[[str], None]) -> Path:
    """Unpack the archives where they lie, or below data/ where that folder is read-only."""
    target = root if os.access(root, os.W_OK) else Path("data") / competition.name
    target.mkdir(parents=True, exist_ok=True)
    archive.unpack_all(root, target, said)
    if target != root:
        archive.copy_tables(root, target, said)
    return target


def _how_to_get(config: Config, root: Path, absent: str) -> str:
    competition = config.competition
    expected = [competition.train_csv, competition.test_csv, competition.sample_csv]
    expected = [name for name in expected if name] + [competition.train_images, competition.test_images]
    where = f"{root}: {absent} not found. Expected there: {', '.join(expected)} (or Kaggle's zip archives of them)."
    if competition.name in torchvision_data.FILES:
        file = torchvision_data.FILES[competition.name][0]
        return f"{where} Or torchvision's {file}; `python prepare.py --config … --download` gets it"
    if competition.slug is None:
        return where
    url = f"https://www.kaggle.com/c/{competition.slug}/data"
    return f"{where} Get them with `python prepare.py --config … --download`, or from {url}; or name their folder (--data.root)"


def _test_table(
    competition: CompetitionConfig, places: Places, notes: list[str], said: Callable[[str], None]
) -> pd.DataFrame | None:
    root = places.root
    if competition.test_csv is not None and not (root / competition.test_csv).is_file():
        notes.append(f"no test rows: {root / competition.test_csv} is not there; train.py doesn't need it, predict.py does")
        return None
    test = tables.test_table(competition, root, said)
    if test.empty and competition.test_csv:
        notes.append(f"no test rows: {root / competition.test_csv} has none")
    elif test.empty:
        pattern = competition.test_images
        why = why_no_rows(root, pattern, tables.prefix(competition.train_images))
        notes.append(f"no test rows: {why.replace(pattern, str(root / pattern), 1)}")
    return None if test.empty else _located(test, places, "test", notes)


def _located(table: pd.DataFrame, places: Places, part: str, notes: list[str]) -> pd.DataFrame:
    """The table with the paths that its images really have, and which rows have one: found; a note where some haven't."""
    paths = [places.find(path) for path in table["path"]]
    found = pd.Series([path is not None for path in paths], table.index, dtype=bool)
    if not found.all():
        first = table["path"][~found].iloc[0]
        where = f"the first is {shown(first)}{places.why(first)}"
        notes.append(f"{(~found).sum():,} of {len(table):,} {part} rows have no image, {where}")
    return table.assign(path=[path or given for path, given in zip(paths, table["path"], strict=True)], found=found)


def _unused(competition: CompetitionConfig, root: Path, train: pd.DataFrame, test: pd.DataFrame | None) -> list[str]:
    """Notes on images that lie where a part's images do, and that no row has."""
    used = set(train["path"]) | (set() if test is None else set(test["path"]))
    path, notes = sample.find(competition, root), []
    parts = (
        ("training", competition.train_images, competition.train_csv),
        ("test", competition.test_images, path.name if path else competition.test_csv),
    )
    for part, pattern, table in parts:
        extra = sorted(set(listed(competition, root, pattern)) - used)
        used.update(extra)
        if extra:
            what = f"have no row in {table}" if table else f"don't match {pattern}"
            notes.append(f"{len(extra):,} {part} images {what}, the first is {shown(extra[0])}; they are not used")
    return notes


def listed(competition: CompetitionConfig, root: Path, pattern: str) -> list[str]:
    """The images that lie where one part's do, without those in the other part's folder."""
    other = competition.test_images if pattern == competition.train_images else competition.train_images
    return tables.listing(root, pattern, tables.prefix(other))


def _count(part: str, rows: int, expected: int | None) -> str:
    note = f" (in full {expected:,})" if expected is not None and rows != expected else ""
    return f"{rows:,} {part} rows{note}"


def _describe_classes(train: pd.DataFrame, classes: tuple[str, ...]) -> str:
    counts = train["label"].value_counts().reindex(list(classes), fill_value=0)
    if len(classes) <= 10:
        return "classes: " + shorten([f"{shown(name)} {count:,}" for name, count in counts.items()], 10)
    few, many = counts.idxmin(), counts.idxmax()
    return f"{len(classes)} classes, from {counts[few]:,} rows ({shown(few)}) to {counts[many]:,} ({shown(many)})"


def _draw(rows: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """`most` rows, the classes as evenly as they allow, in the table's order."""
    shuffled = rows.iloc[np.random.default_rng(seed).permutation(len(rows))]
    turn = shuffled.groupby("label").cumcount()
    return rows.loc[sorted(turn.sort_values(kind="stable").index[:most])]
